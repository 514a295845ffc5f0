"""Silence in a recording: before, after and inside the speech.

Shapes: S samples, N frames of 20 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from torch import Tensor

from melcli.audio.segment import FRAME_SECONDS, frame_levels, is_silent

SILENCE_DB = 40.0  # a frame of 20 ms so far below the loudest one of its recording is silent


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds of silence. longest: of the pauses inside. share: of the recording that is silent, 0 to 1. speech: seconds between the ends."""

    lead: float
    tail: float
    longest: float
    share: float
    speech: float


def measure(wave_S: Tensor, rate: int) -> Pauses:
    """Silence of one recording. Where there is no sound at all, all of it is `lead`."""
    seconds = len(wave_S) / rate
    if is_silent(wave_S, rate):
        return Pauses(seconds, 0.0, 0.0, 1.0, 0.0)
    loud = _loud(wave_S, rate)
    first, last = loud.index(True), len(loud) - loud[::-1].index(True)
    longest = max((len(list(run)) for sound, run in groupby(loud[first:last]) if not sound), default=0)
    lead, tail = first * FRAME_SECONDS, max(0.0, seconds - last * FRAME_SECONDS)
    return Pauses(lead, tail, longest * FRAME_SECONDS, 1 - sum(loud) / len(loud), seconds - lead - tail)


def trimmed(wave_S: Tensor, rate: int) -> Tensor:
    """The recording without the silence at its ends; empty where there is no sound."""
    if is_silent(wave_S, rate):
        return wave_S[:0]
    loud = _loud(wave_S, rate)
    size = max(1, round(FRAME_SECONDS * rate))
    return wave_S[loud.index(True) * size : (len(loud) - loud[::-1].index(True)) * size]


def _loud(wave_S: Tensor, rate: int) -> list[bool]:
    levels_N = frame_levels(wave_S, rate)
    return (levels_N > levels_N.max() - SILENCE_DB).tolist()
