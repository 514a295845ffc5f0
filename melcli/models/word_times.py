"""When the words of a transcript are said, by the model's own CTC head.

The head names a character a little after it begins, and often for one frame only: LATE and LINGERS put that right. They were measured with tiny-en
against where the sound begins and ends (docs/long-audio.md).

Shapes: T CTC frames of an utterance, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcli.data.sounds import ALPHABET
from melcli.models.align import align
from melcli.models.processor import SpeechLMProcessor
from melcli.models.recogniser import Word

LATE = 0.08  # seconds from the beginning of a word to the first frame that names it
LINGERS = 0.1  # seconds that a word sounds after the last frame that names it, unless the next one begins


def word_times(processor: SpeechLMProcessor, ctc_logits: Sequence[Tensor], texts: Sequence[str], seconds: Sequence[float]) -> list[tuple[Word, ...]]:
    """The words of each text with their times. ctc_logits: of each utterance [T, C]; seconds: its length.

    A word of which the CTC head knows no character (7, 你) lies between its neighbours; where there is more text than frames for it, words share the
    utterance by their characters.
    """
    words = [text.split() for text in texts]
    spelt = [spell(processor, each) for each in words]
    log_probs = [torch.log_softmax(logits_TC.float(), -1) for logits_TC in ctc_logits]
    space = -1 if processor.ctc_alphabet is None else processor.ctc_alphabet.find(" ")
    found = align(log_probs, [[c for word in each for c in word] for each in spelt])
    return [
        _words(each, classes, spans, space, duration / max(len(frames), 1), duration)
        for each, classes, spans, frames, duration in zip(words, spelt, found, log_probs, seconds, strict=True)
    ]


def spell(processor: SpeechLMProcessor, words: Sequence[str]) -> list[list[int]]:
    """The CTC head's classes of each word; a space belongs to the word before it."""
    if processor.dictionary is not None:
        known = {sound: i for i, sound in enumerate(ALPHABET)}
        return [[known[sound] for sound in processor.dictionary.sounds.write(word)] for word in words]
    if processor.ctc_alphabet is not None:
        known = {character: i for i, character in enumerate(processor.ctc_alphabet)}
        cased = [word if any(c in known for c in word) else word.lower() for word in words]
        classes = [[known[c] for c in word if c in known] for word in cased]
        if " " in known:
            classes = [[*each, known[" "]] if each and i + 1 < len(words) else each for i, each in enumerate(classes)]
        return classes
    pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
    return [processor.tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"] for piece in pieces]


def _words(words: Sequence[str], classes: Sequence[Sequence[int]], spans: list[tuple[int, int]] | None, space: int, step: float, duration: float):
    """Words with times; `step`: seconds of a frame, `space`: a class that is no part of a word."""
    if spans is None:
        letters = sum(len(word) + 1 for word in words)
        ends = [sum(len(word) + 1 for word in words[: i + 1]) / letters * duration for i in range(len(words))]
        return tuple(Word(word, start, end) for word, start, end in zip(words, [0.0, *ends], ends, strict=False))
    at = 0
    times: list[tuple[float, float] | None] = []
    for each in classes:
        own = spans[at : at + len(each)]
        at += len(each)
        letters = own[:-1] if each and each[-1] == space else own
        times.append((max(0.0, letters[0][0] * step - LATE), letters[-1][1] * step + LINGERS) if letters else None)
    following = duration
    for i in range(len(times) - 1, -1, -1):
        if times[i] is not None:
            start, end = times[i]
            times[i] = (start, max(start, min(end, following)))
            following = start
    return tuple(Word(word, *_between(times, i, duration)) for i, word in enumerate(words))


def _between(times: Sequence[tuple[float, float] | None], i: int, duration: float) -> tuple[float, float]:
    """A word's own times, or its share of the room between the neighbours that have some."""
    here = times[i]
    if here is not None:
        return here
    first = next((j + 1 for j in range(i, -1, -1) if times[j] is not None), 0)
    last = next((j for j in range(i, len(times)) if times[j] is not None), len(times))
    low = times[first - 1][1] if first else 0.0
    high = times[last][0] if last < len(times) else duration
    share = (high - low) / (last - first)
    return low + (i - first) * share, low + (i - first + 1) * share
