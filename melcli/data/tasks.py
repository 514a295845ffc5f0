"""Tasks: how an utterance becomes one sequence of text and speech, each a condition or a target."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from melcli.data.utterance import Utterance

SPEECH = "<|speech|>"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the sequence. Targets are learnt, conditions are only read; speech has no text of its own."""

    kind: Literal["text", "speech"]
    target: bool
    text: str = ""


class Task(Protocol):
    def __call__(self, utterance: Utterance, prompt: str) -> list[Segment]: ...


def asr(utterance: Utterance, prompt: str = SPEECH) -> list[Segment]:
    """[speech] ask -> transcript. `prompt` says what stands around the speech."""
    segments = [
        Segment("speech", False) if piece == SPEECH else Segment("text", False, piece)
        for piece in re.split(f"({re.escape(SPEECH)})", prompt)
        if piece
    ]
    return [*segments, Segment("text", True, utterance.text or "")]


def text(utterance: Utterance, prompt: str = "") -> list[Segment]:
    """Text alone, for language modelling."""
    return [Segment("text", True, utterance.text or "")]


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sequence. labels are -100 on conditions; ctc_ids is the target text in CTC's classes, for speech tasks."""

    input_ids: list[int]
    labels: list[int]
    ctc_ids: list[int]


class Encoder:
    """Turns segments into token ids with a tokenizer, leaving `patches` speech tokens where speech goes.

    end_ids: what follows every target. speech_id: the speech token, `<|speech|>` of the tokenizer unless given.
    """

    def __init__(
        self,
        tokenizer: Any,
        task: Callable[[Utterance, str], list[Segment]],
        prompt: str,
        end_ids: Sequence[int],
        ctc_alphabet: str | None = None,
        speech_id: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.task = task
        self.prompt = prompt
        self.end_ids = list(end_ids)
        self.speech_id = tokenizer.convert_tokens_to_ids(SPEECH) if speech_id is None else speech_id
        self.reads_speech = any(segment.kind == "speech" for segment in task(Utterance("", ()), prompt))
        self._conditions: dict[str, list[int]] = {}
        self._classes = None if ctc_alphabet is None else {character: i for i, character in enumerate(ctc_alphabet)}

    def texts(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Token ids of the target text of many utterances, in one go."""
        if not utterances:
            return []
        # a transcript that happens to hold the text of a special token stays text
        return self.tokenizer([u.text or "" for u in utterances], add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def length(self, utterance: Utterance, patches: int, text_ids: list[int]) -> int:
        """Positions of the encoded sequence."""
        return len(self(utterance, 0, []).input_ids) + (patches if self.reads_speech else 0) + len(text_ids)

    def __call__(self, utterance: Utterance, patches: int, text_ids: list[int]) -> Example:
        ids: list[int] = []
        labels: list[int] = []
        has_speech = False
        for segment in self.task(utterance, self.prompt):
            if segment.kind == "speech":
                piece, has_speech = [self.speech_id] * patches, True
            elif segment.target:
                piece = [*text_ids, *self.end_ids]
            else:
                piece = self._condition(segment.text)
            ids += piece
            labels += piece if segment.target else [-100] * len(piece)
        if not has_speech and ids:  # nothing before the first token to predict it from
            labels[0] = -100
        return Example(ids, labels, self._ctc_ids(utterance, text_ids) if has_speech else [])

    def _ctc_ids(self, utterance: Utterance, text_ids: list[int]) -> list[int]:
        if self._classes is None:
            return text_ids
        return [self._classes[character] for character in utterance.text or "" if character in self._classes]

    def _condition(self, piece: str) -> list[int]:
        if piece not in self._conditions:
            self._conditions[piece] = self.tokenizer(piece, add_special_tokens=False)["input_ids"]
        return self._conditions[piece]
