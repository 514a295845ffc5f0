"""Fundamental frequency of speech from its waveform: normalised autocorrelation and the best path through it.

Shapes: S samples, T frames, K pitches of a logarithmic grid, L lags.

Talkin's RAPT (1995) in outline: each frame says how alike the signal and itself a period later are, and dynamic programming chooses a track that
does not jump. It labels training data for a vocoder, once, so it sees whole utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WINDOW = 0.032  # seconds that are compared with those a period later: two periods at 62 Hz
JUMP = 0.004  # cost of moving by one step of the grid, in units of correlation
REACH = 6  # steps of the grid that a track can move in one frame
SHORT = 0.05  # bonus of an octave up: a period, and not two of them
VOICED = 0.5  # correlation from which a frame has a pitch
QUIET = 1e-3  # of the mean energy: frames so far below it are noise and hum between words
HUM = 50.0  # Hz up to which the signal is left out: mains hum is periodic, too


@dataclass(frozen=True, slots=True)
class PitchGrid:
    """Pitches from `low` to `high` Hz, `steps` an octave."""

    low: float = 60.0
    high: float = 560.0
    steps: int = 60

    @property
    def size(self) -> int:
        """How many there are."""
        return int(np.floor(np.log2(self.high / self.low) * self.steps)) + 1

    def hertz(self) -> Tensor:
        """Each of them, float32 [K]."""
        return self.low * 2.0 ** (torch.arange(self.size) / self.steps)


def correlations(wave_S: Tensor, rate: int, hop: int, grid: PitchGrid) -> Tensor:
    """How alike the signal around each frame (centred on multiples of the hop) and itself a period later are, at most 1: [T, K]."""
    width, longest = round(WINDOW * rate), int(np.ceil(rate / grid.low)) + 2
    span = width + longest
    frames = len(wave_S) // hop + 1
    spectrum_F = torch.fft.rfft(wave_S.float())
    spectrum_F[: round(HUM * len(wave_S) / rate) + 1] = 0
    voice_S = torch.fft.irfft(spectrum_F, len(wave_S))
    blocks_TN = torch.nn.functional.pad(voice_S, (span // 2, span + hop)).unfold(0, span, hop)[:frames]
    size = 1 << (span + width).bit_length()
    head_TF, whole_TF = torch.fft.rfft(blocks_TN[:, :width], size), torch.fft.rfft(blocks_TN, size)
    product_TL = torch.fft.irfft(head_TF.conj() * whole_TF, size)[:, :longest]
    energy_TN = torch.nn.functional.pad(blocks_TN.square().cumsum(1), (1, 0))
    energy_TL = energy_TN[:, width : width + longest] - energy_TN[:, :longest]
    quiet = width * (QUIET * float(voice_S.square().mean()) + 1e-9)
    alike_TL = product_TL / ((energy_TL.clamp_min(0) * energy_TL[:, :1].clamp_min(0)).sqrt() + quiet)
    return _at(alike_TL, rate / grid.hertz())


def _at(alike_TL: Tensor, lags_K: Tensor) -> Tensor:
    """Values at fractional lags, by cubic interpolation (Catmull-Rom)."""
    whole_K = lags_K.floor()
    part_K = (lags_K - whole_K).to(alike_TL)
    index_K = whole_K.long()
    a, b, c, d = (alike_TL[:, (index_K + step).clamp(0, alike_TL.shape[1] - 1)] for step in (-1, 0, 1, 2))
    return b + 0.5 * part_K * (c - a + part_K * (2 * a - 5 * b + 4 * c - d + part_K * (3 * (b - c) + d - a)))


def track_many(waves: Sequence[Tensor], rate: int, hop: int, grid: PitchGrid) -> list[tuple[Tensor, Tensor]]:
    """(pitch_T in Hz, voiced_T) of each waveform, frames centred on multiples of the hop. Where nothing is voiced the pitch goes on as it may."""
    alike = [correlations(wave_S, rate, hop, grid) for wave_S in waves]
    score_BTK = torch.nn.utils.rnn.pad_sequence(alike, batch_first=True)
    octaves_K = torch.arange(grid.size) / grid.steps
    paths = _best_paths((score_BTK + SHORT * octaves_K).numpy())
    found = []
    for row, alike_TK in enumerate(alike):
        path_T = torch.from_numpy(paths[row, : len(alike_TK)].copy())
        found.append((_refined(alike_TK, path_T, grid), alike_TK.gather(1, path_T[:, None])[:, 0] > VOICED))
    return found


def _best_paths(score_BTK: np.ndarray) -> np.ndarray:
    """The path of greatest total less JUMP a step, for each row: int64 [B, T]."""
    rows, frames, size = score_BTK.shape
    moves = np.arange(-REACH, REACH + 1)
    costs = JUMP * np.abs(moves).astype(np.float32)
    came_from = np.zeros((frames, rows, size), dtype=np.int8)
    best_BK = score_BTK[:, 0]
    padded = np.full((rows, size + 2 * REACH), -np.inf, dtype=np.float32)
    for frame in range(1, frames):
        padded[:, REACH:-REACH] = best_BK
        reached = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis=1) - costs
        move = reached.argmax(-1)
        came_from[frame] = move - REACH
        best_BK = np.take_along_axis(reached, move[..., None], -1)[..., 0] + score_BTK[:, frame]
    paths = np.zeros((rows, frames), dtype=np.int64)
    at = best_BK.argmax(-1)
    every = np.arange(rows)
    for frame in range(frames - 1, -1, -1):
        paths[:, frame] = at
        at = at + came_from[frame, every, at]
    return paths


def _refined(alike_TK: Tensor, path_T: Tensor, grid: PitchGrid) -> Tensor:
    """The pitch between the steps of the grid, at the top of a parabola through three."""
    inner_T = path_T.clamp(1, grid.size - 2)[:, None]
    left, top, right = (alike_TK.gather(1, inner_T + step)[:, 0] for step in (-1, 0, 1))
    bend = left - 2 * top + right
    shift_T = torch.where(bend < -1e-6, 0.5 * (left - right) / bend.clamp(max=-1e-6), torch.zeros_like(bend)).clamp(-0.5, 0.5)
    return grid.low * 2.0 ** ((path_T + torch.where(inner_T[:, 0] == path_T, shift_T, torch.zeros_like(shift_T))) / grid.steps)
