"""What a voice is asked to say, and whose voice it is to take: the protocols for zero-shot voices.

`continuation`: a voice hears the first three seconds of a recording and says the rest of its text. `cross-sentence`: it hears another recording of
the same speaker and says the whole text (Wang et al., "Neural codec language models are zero-shot text to speech synthesizers", arXiv 2301.02111).
The published protocol cuts after exactly three seconds; here the cut lies at the quietest place near by, so that no word is cut in two, and the words
after it alone are counted.

Shapes: S samples.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rapidfuzz.distance import Levenshtein
from torch import Tensor

from melcli.audio.segment import FRAME_SECONDS, frame_levels
from melcli.data.utterance import Utterance
from melcli.scoring.normalize import plain

PROTOCOLS = ("none", "continuation", "cross-sentence")
PROMPT_SECONDS = 3.0
SEARCH_SECONDS = 0.3  # on either side
REST_SECONDS = 1.0  # at the least, for something to be left to say
CROSS_SECONDS = (2.0, 20.0)  # of a prompt that is a recording of its own


@dataclass(frozen=True, slots=True)
class Wanted:
    """One text to be spoken. reference: a recording of it. prompt: a recording of the voice to take, with its text where known.

    original: what similarity is measured against besides the prompt; the reference, if that is all there is.
    """

    id: str
    text: str
    speaker: str | None = None
    reference: Utterance | None = None
    prompt: Utterance | None = None
    original: Utterance | None = None


def other_recordings(utterances: Mapping[str, Utterance], seed: int) -> dict[str, Utterance | None]:
    """For each utterance another one of its speaker, drawn by seed and id alone; None where there is none of a fit length.

    The draw for one utterance does not change with which others are scored beside it.
    """
    low, high = CROSS_SECONDS
    of_speaker: dict[str, list[str]] = {}
    for name, utterance in sorted(utterances.items()):
        if utterance.speaker is not None and utterance.audio and low <= (utterance.duration or 0.0) <= high:
            of_speaker.setdefault(utterance.speaker, []).append(name)
    found: dict[str, Utterance | None] = {}
    for name, utterance in utterances.items():
        others = [other for other in of_speaker.get(utterance.speaker or "", []) if other != name]
        found[name] = utterances[random.Random(f"{seed}/{name}").choice(others)] if others else None
    return found


def cut_place(wave_S: Tensor, rate: int) -> float | None:
    """Seconds after which a recording is cut: the quietest 20 ms within SEARCH_SECONDS of PROMPT_SECONDS; None where too little would be left."""
    if len(wave_S) / rate < PROMPT_SECONDS + SEARCH_SECONDS + REST_SECONDS:
        return None
    first, last = (round((PROMPT_SECONDS + side * SEARCH_SECONDS) / FRAME_SECONDS) for side in (-1, 1))
    return (first + int(frame_levels(wave_S, rate)[first:last].argmin()) + 0.5) * FRAME_SECONDS


def words_before(text: str, heard: str) -> int:
    """How many words of a text were said in its beginning, of which `heard` was heard: the beginning of the text that is nearest to it in letters."""
    words, target = text.split(), plain(heard)
    costs = [Levenshtein.distance(plain(" ".join(words[:count])), target) for count in range(len(words) + 1)]
    return costs.index(min(costs))


def halves(utterance: Utterance, seconds: float, words: int) -> tuple[Utterance, Utterance]:
    """An utterance cut in two: the prompt and the rest, each with its text."""
    at, text = (utterance.start or 0.0) + seconds, (utterance.text or "").split()
    whole = utterance.duration
    first = replace(utterance, end=at, duration=seconds, text=" ".join(text[:words]))
    return first, replace(utterance, start=at, duration=None if whole is None else whole - seconds, text=" ".join(text[words:]))
