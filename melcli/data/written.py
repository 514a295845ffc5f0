"""Text, or vectors that an encoder made before, in the place of speech: what a model with a unified encoder learns from. No audio is opened.

Shapes: T characters, V vectors of an utterance, W width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from melcli.data.utterance import Utterance

TASKS = ("repeat", "instruct")  # whose speech is read as text in training


def codes_of(text: str) -> Tensor:
    """A text as features: its Unicode code points, int32 [T, 1]. Whole numbers are what tells them from mel frames and samples."""
    return torch.tensor([ord(character) for character in text], dtype=torch.int32)[:, None]


def text_of(codes_T1: Tensor) -> str:
    """The text that `codes_of` made codes of."""
    return "".join(map(chr, codes_T1[:, 0].tolist()))


class WrittenFeatures:
    """Utterances that are read where others are heard. heard: their texts in reading order, those of the utterances unless given."""

    def __init__(self, utterances: Sequence[Utterance], heard: Sequence[str] | None = None) -> None:
        self.utterances = utterances
        self.heard = [u.text or "" for u in utterances] if heard is None else heard
        self.frames = [len(text) for text in self.heard]

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        return codes_of(self.heard[index])


class VectorFeatures:
    """Utterances for which an encoder's vectors are there already. vectors: [V, W] of each, by its id."""

    def __init__(self, utterances: Sequence[Utterance], vectors: Mapping[str, Tensor]) -> None:
        self.utterances = utterances
        self.vectors = vectors
        self.frames = [len(vectors[u.id]) for u in utterances]

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        return self.vectors[self.utterances[index].id]


def question_and_answer(utterance: Utterance) -> tuple[str, str]:
    """What is asked, and the answer of a row that has one: `answer`, or the first of `answers`; else an empty string."""
    answer = utterance.extra.get("answer")
    if answer is None:
        several = utterance.extra.get("answers")
        answer = several[0] if isinstance(several, list) and several else ""
    return utterance.text or "", str(answer)
