"""What a voice sounds like, in a few numbers: pitch, share of voiced speech and of silence, level, and the long-term average spectrum (LTAS).

Shapes: S samples, T frames, F bins of a spectrum, K bands.

They say whether something is speech at all, and whether two stretches could be of one voice over one microphone; not what is said.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from melcli.audio.pitch import PitchGrid, track_many
from melcli.audio.resample import resample

RATE = 16000  # at which everything is measured
HOP, WINDOW = 160, 512  # samples: 10 and 32 ms
SILENT = 35.0  # dB that a frame of silence is below the loudest of its stretch, all but the loudest twentieth
FLOOR = -60.0  # dB of full scale below which everything is silent
BANDS = 18  # thirds of an octave, centred on 100 Hz to 5 kHz: what telephones, codecs and small models leave of a voice
LOWEST = 100.0  # Hz, centre of the first
LEAST_VOICED = 10  # frames, below which a median pitch says nothing
GRID = PitchGrid()


@dataclass(frozen=True, slots=True)
class Timbre:
    """pitch: median fundamental frequency of the voiced frames in Hz, None where there are hardly any. voiced: their share of the frames that are no
    silence; silence: share of all frames, both 0 to 1. level: dB of full scale of the frames that are no silence. ltas: mean power of these in each
    band, in dB, less the mean over bands, so that loudness is not in it. The last two are None where all is silence."""

    pitch: float | None
    voiced: float
    silence: float
    level: float | None
    ltas: tuple[float, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Rounded, for rows of results; without the spectrum."""
        found = asdict(self)
        del found["ltas"]
        places = {"pitch": 1, "voiced": 4, "silence": 4, "level": 1}
        return {name: None if value is None else round(value, places[name]) for name, value in found.items()}


def timbre(wave_S: Tensor, rate: int) -> Timbre:
    """The numbers of a waveform in [-1, 1]; of nothing, and of what is shorter than a window, as of silence."""
    if rate != RATE:
        wave_S = resample(wave_S, rate, RATE)
    if len(wave_S) < WINDOW:
        return Timbre(None, 0.0, 1.0, None, None)
    window_W = torch.hann_window(WINDOW)
    frames_TW = wave_S.float().unfold(0, WINDOW, HOP)
    power_TF = torch.fft.rfft(frames_TW * window_W).abs().square() / window_W.square().sum()
    level_T = 10 * (frames_TW.square().mean(1) + 1e-12).log10()
    speech_T = level_T > max(float(level_T.quantile(0.95)) - SILENT, FLOOR)
    silence = 1 - float(speech_T.float().mean())
    if not speech_T.any():
        return Timbre(None, 0.0, 1.0, None, None)
    pitch_N, voiced_N = track_many([wave_S], RATE, HOP, GRID)[0]  # centred on multiples of the hop, and so the middles of the windows above
    middle = round(WINDOW / 2 / HOP)
    pitch_T, voiced_T = (each[middle : middle + len(speech_T)] for each in (pitch_N, voiced_N))
    voiced_T = voiced_T & speech_T
    hertz = float(pitch_T[voiced_T].median()) if int(voiced_T.sum()) >= LEAST_VOICED else None
    level = 10 * math.log10(float(frames_TW[speech_T].square().mean()) + 1e-12)
    return Timbre(hertz, float(voiced_T.sum() / speech_T.sum()), silence, level, _bands(power_TF[speech_T].mean(0)))


def ltas_distance(one: Timbre, other: Timbre) -> float | None:
    """Root of the mean squared difference of two long-term average spectra over the bands, in dB; None where one is silent."""
    if one.ltas is None or other.ltas is None:
        return None
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one.ltas, other.ltas, strict=True)) / BANDS)


def semitones(one: Timbre, other: Timbre) -> float | None:
    """How far the first's pitch is above the other's; None where one has none."""
    return None if one.pitch is None or other.pitch is None else 12 * math.log2(one.pitch / other.pitch)


def _bands(power_F: Tensor) -> tuple[float, ...]:
    """dB of the power in thirds of an octave, less their mean. Bins count by the part of theirs that lies in a band."""
    width = RATE / WINDOW
    low_F = (torch.arange(len(power_F)) - 0.5) * width
    found = []
    for band in range(BANDS):
        centre = LOWEST * 2 ** (band / 3)
        low, high = centre * 2 ** (-1 / 6), centre * 2 ** (1 / 6)
        part_F = ((low_F + width).clamp(max=high) - low_F.clamp(min=low)).clamp_min(0) / width
        found.append(10 * math.log10(float((power_F * part_F).sum()) + 1e-12))
    mean = sum(found) / BANDS
    return tuple(value - mean for value in found)
