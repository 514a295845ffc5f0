"""What `melcli transcribe` and `melcli score` ask of a model, whoever made it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a transcript. start, end: seconds from the beginning of what was heard."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Recognised:
    """What was heard in one piece of audio, and why decoding stopped: eos, length, repetition or silence. words: with times, where asked for."""

    text: str
    finish_reason: str
    words: tuple[Word, ...] | None = None


class Recogniser(Protocol):
    """Waveforms to text. rate: samples per second it wants. max_seconds: the longest piece it takes."""

    @property
    def rate(self) -> int: ...

    @property
    def max_seconds(self) -> float: ...

    def recognise(self, waves: Sequence[Tensor]) -> Iterator[dict[int, Recognised]]:
        """For each batch that is done what was heard, by index into `waves` (wave_S float32 mono). Features are made here, to be timed."""
        ...
