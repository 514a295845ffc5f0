"""Recordings of any length as pieces that a model can take: silence told from sound by its energy, cuts where it is quietest.

Shapes: S samples, N frames of 10 or 20 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

FRAME_SECONDS = 0.02
SILENCE_DBFS = -65.0  # the loudest 20 ms of a recording that holds nothing: a quiet room recorded at a low level lies above it
CUT_SECONDS = 0.2  # a cut goes into the quietest stretch of this length
TONE_SECONDS, TONE_LINES, TONE_SHARE = 0.064, 8, 0.99  # 8 lines of 16 Hz hold 98 % of the purest vowel found in 370 utterances
SEARCH_SHARE = 0.5  # of the longest chunk: the cut lies in its later half


@dataclass(frozen=True, slots=True)
class Piece:
    """What is given to a model at a time. start, end: seconds of the recording that it stands for. wave_S: its samples, with a little of what is
    around it where that is no speech; None where it holds nothing. before: seconds in wave_S ahead of `start`."""

    start: float
    end: float
    wave_S: Tensor | None
    before: float = 0.0


class Cutter(Protocol):
    """Cuts one recording that arrives in blocks. Pieces come in order and do not overlap. seconds: how much has arrived."""

    seconds: float

    def push(self, wave_S: Tensor) -> Iterator[Piece]:
        """The next samples in; the pieces that they complete out."""

    def finish(self) -> Iterator[Piece]:
        """The last pieces."""


def frame_levels(wave_S: Tensor, rate: int, seconds: float = FRAME_SECONDS) -> Tensor:
    """Level of each 20 ms (or `seconds`) in decibel below full scale [N]; at least one frame."""
    size = max(1, round(seconds * rate))
    count = max(1, len(wave_S) // size)
    frames = wave_S[: count * size].reshape(count, -1) if len(wave_S) >= size else wave_S[None]
    return 10 * torch.log10(frames.square().mean(1).clamp_min(1e-12))


def is_silent(wave_S: Tensor, rate: int) -> bool:
    """Whether nothing in the recording is loud enough to be speech."""
    return len(wave_S) == 0 or float(frame_levels(wave_S, rate).max()) < SILENCE_DBFS


def is_tone(wave_S: Tensor, rate: int) -> bool:
    """Whether nearly all of the sound lies in a few lines of the spectrum, as that of whistles, sweeps and signals does, and no speech."""
    size = round(TONE_SECONDS * rate)
    wave_S = torch.nn.functional.pad(wave_S, (0, max(0, size - len(wave_S))))
    spectra_FN = torch.stft(wave_S, size, size // 4, window=torch.hann_window(size), center=False, return_complex=True).abs().square()
    energy_N = spectra_FN.sum(0)
    loud_N = energy_N > 0.01 * energy_N.max()
    return bool(loud_N.any()) and float((spectra_FN.topk(TONE_LINES, 0).values.sum(0) / energy_N)[loud_N].median()) > TONE_SHARE


def quietest(wave_S: Tensor, rate: int, longest: int) -> int:
    """The sample at which to cut: the quietest place in the later half of the first `longest` samples."""
    size = max(1, round(FRAME_SECONDS * rate))
    width = round(CUT_SECONDS / FRAME_SECONDS)
    levels_N = frame_levels(wave_S[: longest + width * size], rate)
    smooth_N = torch.nn.functional.avg_pool1d(levels_N[None], width, 1, width // 2, count_include_pad=False)[0, : len(levels_N)]
    low, high = round(longest * SEARCH_SHARE) // size, longest // size
    return (low + int(smooth_N[low:high].argmin())) * size


class Whole:
    """The whole recording in pieces no longer than max_seconds, cut where it is quietest; one that is silent has no samples."""

    def __init__(self, rate: int, max_seconds: float) -> None:
        self.rate = rate
        self.longest = math.floor(max_seconds * rate)
        self.pending_S = torch.empty(0)
        self.first = 0

    @property
    def seconds(self) -> float:
        return (self.first + len(self.pending_S)) / self.rate

    def push(self, wave_S: Tensor) -> Iterator[Piece]:
        self.pending_S = torch.cat([self.pending_S, wave_S]) if len(self.pending_S) else wave_S
        while len(self.pending_S) > self.longest + round(CUT_SECONDS * self.rate):
            yield self._piece(quietest(self.pending_S, self.rate, self.longest))

    def finish(self) -> Iterator[Piece]:
        while len(self.pending_S) > self.longest:
            yield self._piece(quietest(self.pending_S, self.rate, self.longest))
        if len(self.pending_S) or not self.first:
            yield self._piece(len(self.pending_S))

    def _piece(self, samples: int) -> Piece:
        wave_S, self.pending_S = self.pending_S[:samples], self.pending_S[samples:]
        start = self.first / self.rate
        self.first += samples
        return Piece(start, self.first / self.rate, None if is_silent(wave_S, self.rate) else wave_S)
