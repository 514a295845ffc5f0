"""Where speech may be: silence told from sound by its energy, and long recordings cut where they are quietest.

Shapes: S samples, N frames of 20 ms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FRAME_SECONDS = 0.02
SILENCE_DBFS = -65.0  # the loudest 20 ms of a recording that holds nothing: a quiet room recorded at a low level lies above it
CUT_SECONDS = 0.2  # a cut goes into the quietest stretch of this length
SEARCH_SHARE = 0.5  # of the longest chunk: the cut lies in its later half


def frame_levels(wave_S: Tensor, rate: int) -> Tensor:
    """Level of each 20 ms in decibel below full scale [N]; at least one frame."""
    size = max(1, round(FRAME_SECONDS * rate))
    count = max(1, len(wave_S) // size)
    frames = wave_S[: count * size].reshape(count, -1) if len(wave_S) >= size else wave_S[None]
    return 10 * torch.log10(frames.square().mean(1).clamp_min(1e-12))


def is_silent(wave_S: Tensor, rate: int) -> bool:
    """Whether nothing in the recording is loud enough to be speech."""
    return len(wave_S) == 0 or float(frame_levels(wave_S, rate).max()) < SILENCE_DBFS


def chunks(wave_S: Tensor, rate: int, max_seconds: float) -> list[tuple[int, int]]:
    """(first, last) samples of pieces no longer than max_seconds that together are the whole recording."""
    longest = math.floor(max_seconds * rate)
    if len(wave_S) <= longest:
        return [(0, len(wave_S))]
    size = max(1, round(FRAME_SECONDS * rate))
    width = round(CUT_SECONDS / FRAME_SECONDS)
    levels_N = frame_levels(wave_S, rate)
    smooth_N = torch.nn.functional.avg_pool1d(levels_N[None], width, 1, width // 2, count_include_pad=False)[0, : len(levels_N)]
    pieces, start = [], 0
    while len(wave_S) - start > longest:
        low, high = (start + round(longest * SEARCH_SHARE)) // size, (start + longest) // size
        end = (low + int(smooth_N[low:high].argmin())) * size
        pieces.append((start, end))
        start = end
    return [*pieces, (start, len(wave_S))]
