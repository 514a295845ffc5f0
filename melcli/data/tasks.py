"""Tasks: how an utterance becomes one sequence of text and speech, each a condition or a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from melcli.data.utterance import Utterance

SPEECH = "<|speech|>"
SPOKEN = "<|spoken|>"
TEXT = "<|text|>"  # in a prompt of tts: where the text goes


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the sequence. Targets are learnt, conditions are only read; speech has no text of its own.

    own: the text is the utterance's, not the prompt's.
    """

    kind: Literal["text", "speech"]
    target: bool
    text: str = ""
    own: bool = False


class Task(Protocol):
    def __call__(self, utterance: Utterance, prompt: str) -> list[Segment]: ...


def asr(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[speech] ask -> transcript. `prompt` says what stands around the speech."""
    return [*_around(SPEECH, Segment("speech", False), prompt), Segment("text", True, utterance.text or "", own=True)]


def tts(utterance: Utterance, prompt: str = TEXT) -> list[Segment]:
    """text ask -> [speech]. `prompt` says what stands around the text."""
    return [*_around(TEXT, Segment("text", False, utterance.text or "", own=True), prompt), Segment("speech", True)]


def repeat(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[text, through the encoder's text branch] ask -> the text: what `asr` is to a model that learns from text alone (TESU-LLM)."""
    return asr(utterance, prompt)


def instruct(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[question, through the encoder's text branch] ask -> answer, which here is the utterance's text (see `question_and_answer`)."""
    return asr(utterance, prompt)


def text(utterance: Utterance, prompt: str = "") -> list[Segment]:
    """Text alone, for language modelling."""
    return [Segment("text", True, utterance.text or "", own=True)]


def _around(mark: str, segment: Segment, prompt: str) -> list[Segment]:
    """The segment where the prompt has its mark, and the prompt's own text around it."""
    pieces = re.split(f"({re.escape(mark)})", prompt)
    return [segment if piece == mark else Segment("text", False, piece) for piece in pieces if piece]


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sequence. labels are -100 on conditions; ctc_ids is the text in CTC's classes, for tasks with speech.

    positions: of the tokens, where they are not 0, 1, 2 and so on.
    """

    input_ids: list[int]
    labels: list[int]
    ctc_ids: list[int]
    positions: list[int] | None = None


class Encoder:
    """Turns segments into token ids with a tokenizer, leaving a token for each patch of speech where speech goes.

    end_ids: what follows every target text. speech_id: holds the places of speech that is heard, `<|speech|>` of the tokenizer unless given;
    spoken_id: of speech that is said. pace: patches that a token of the text takes to say, to spread the text's positions by; None leaves them.
    """

    def __init__(
        self,
        tokenizer: Any,
        task: Callable[[Utterance, str], list[Segment]],
        prompt: str,
        end_ids: Sequence[int],
        ctc_alphabet: str | None = None,
        speech_id: int | None = None,
        spoken_id: int | None = None,
        pace: float | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.prompt = prompt
        self.end_ids = list(end_ids)
        self.speech_id = tokenizer.convert_tokens_to_ids(SPEECH) if speech_id is None else speech_id
        self.spoken_id = spoken_id
        self.pace = pace
        speech = [segment.target for segment in task(Utterance("", ()), prompt) if segment.kind == "speech"]
        self.reads_speech, self.speaks = False in speech, True in speech
        self._conditions: dict[str, list[int]] = {}
        self._classes = None if ctc_alphabet is None else {character: i for i, character in enumerate(ctc_alphabet)}

    def texts(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Token ids of the text of many utterances, in one go."""
        if not utterances:
            return []
        # a transcript that happens to hold the text of a special token stays text
        return self.tokenizer([u.text or "" for u in utterances], add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def length(self, utterance: Utterance, patches: int, text_ids: list[int]) -> int:
        """Positions of the encoded sequence. patches: of the speech, be it heard or said."""
        return len(self(utterance, 0, []).input_ids) + (patches if self.reads_speech or self.speaks else 0) + len(text_ids)

    def __call__(self, utterance: Utterance, patches: int, text_ids: list[int], untold: int = 0) -> Example:
        """untold: patches at the head of the speech, such as somebody else's voice, whose text is not in the text."""
        ids: list[int] = []
        labels: list[int] = []
        own = 0  # where the utterance's text begins
        has_speech = False
        for segment in self.task(utterance, self.prompt):
            if segment.kind == "speech":
                piece, has_speech = [self.spoken_id if segment.target else self.speech_id] * patches, True
            elif segment.own:
                piece, own = [*text_ids, *(self.end_ids if segment.target else ())], len(ids)
            else:
                piece = self._condition(segment.text)
            ids += piece
            labels += piece if segment.target and segment.kind == "text" else [-100] * len(piece)
        if not has_speech and ids:  # nothing before the first token to predict it from
            labels[0] = -100
        positions = spread(own, len(text_ids), len(ids) - patches, patches, self.pace, untold) if self.speaks and self.pace else None
        return Example(ids, labels, self._ctc_ids(utterance, text_ids) if has_speech else [], positions)

    def _ctc_ids(self, utterance: Utterance, text_ids: list[int]) -> list[int]:
        if self._classes is None:
            return text_ids
        return [self._classes[character] for character in utterance.text or "" if character in self._classes]

    def _condition(self, piece: str) -> list[int]:
        if piece not in self._conditions:
            self._conditions[piece] = self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return self._conditions[piece]


def spread(own: int, tokens: int, prompt: int, patches: int, pace: float, untold: int = 0) -> list[int]:
    """Positions of a tts sequence in which a token of the text and the patch that says it have about the same one.

    own: positions before the text; tokens: of the text; prompt: of text and all that is around it; patches: of speech, from where the prompt ends,
    `untold` of them not of this text. What is around the text counts on from 0; text and speech both begin after it, the text in steps of `pace`
    patches a token.
    """
    start = prompt - tokens
    text = [start + untold + round(i * pace) for i in range(tokens)]
    return [*range(own), *text, *range(own, start), *range(start, start + patches)]
