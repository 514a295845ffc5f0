"""Pitch, voiced share, silence, level and long-term spectrum of signals that are known, and of two voices."""

from __future__ import annotations

import math

import pytest
import torch

from melcli.audio.io import load
from melcli.audio.timbre import BANDS, RATE, ltas_distance, semitones, timbre
from melcli.registry import PACKAGE


def harmonic(hertz: float, seconds: float = 1.5, level: float = 0.1) -> torch.Tensor:
    """Harmonics up to 6 kHz, falling by 6 dB an octave."""
    time_S = torch.arange(int(seconds * RATE)) / RATE
    return level * sum(torch.cos(2 * math.pi * k * hertz * time_S) / k for k in range(1, int(6000 / hertz)))


def noise(seconds: float = 1.5, level: float = 0.1) -> torch.Tensor:
    return level * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hertz", [110.0, 220.0])
def test_a_voice_of_one_pitch(hertz):
    wave_S = harmonic(hertz)
    found = timbre(wave_S, RATE)
    assert found.pitch == pytest.approx(hertz, rel=0.01) and found.voiced > 0.95 and found.silence == 0.0
    assert found.level == pytest.approx(10 * math.log10(float(wave_S.square().mean())), abs=0.3)


def test_noise_is_flat_and_has_no_pitch():
    found = timbre(noise(6.0), RATE)
    assert found.pitch is None and found.voiced < 0.05 and found.level == pytest.approx(-20.0, abs=0.3)
    rise = [after - before for before, after in zip(found.ltas, found.ltas[1:], strict=False)]  # each is 1 dB wider
    assert len(found.ltas) == BANDS and sum(found.ltas) == pytest.approx(0, abs=1e-4)
    assert sum(rise) / len(rise) == pytest.approx(10 * math.log10(2 ** (1 / 3)), abs=0.15)


def test_pauses_are_silence_and_count_in_nothing_else():
    pause_S = torch.zeros(RATE)
    whole, found = timbre(harmonic(150.0, 2.0), RATE), timbre(torch.cat([harmonic(150.0), pause_S, harmonic(150.0, 0.5)]), RATE)
    assert found.silence == pytest.approx(1 / 3, abs=0.02) and found.voiced > 0.9 and found.pitch == pytest.approx(150, rel=0.01)
    assert found.level == pytest.approx(whole.level, abs=0.3) and ltas_distance(found, whole) < 1.0


@pytest.mark.parametrize("wave_S", [torch.zeros(0), torch.zeros(100), torch.zeros(RATE), 1e-4 * torch.ones(RATE)])
def test_of_silence_nothing_is_known(wave_S):
    found = timbre(wave_S, RATE)
    assert (found.pitch, found.voiced, found.silence, found.level, found.ltas) == (None, 0.0, 1.0, None, None)
    assert ltas_distance(found, timbre(noise(), RATE)) is None and semitones(found, found) is None


def test_loudness_and_rate_are_no_part_of_the_spectrum():
    wave_S, rate = load(PACKAGE / "assets" / "clips" / "garden-rms.wav", RATE), RATE
    quiet, fast = timbre(0.5 * wave_S, rate), timbre(load(PACKAGE / "assets" / "clips" / "garden-rms.wav", 24000), 24000)
    found = timbre(wave_S, rate)
    assert ltas_distance(found, quiet) < 0.05 and found.level - quiet.level == pytest.approx(6.02, abs=0.1)
    assert ltas_distance(found, fast) < 0.5 and abs(semitones(found, fast)) < 0.3


def test_two_halves_of_a_voice_are_nearer_than_two_voices():
    rms_S, slt_S = (load(PACKAGE / "assets" / "clips" / f"{name}.wav", RATE) for name in ("garden-rms", "digits-slt"))
    (rms, rms2), (slt, slt2) = ([timbre(half, RATE) for half in wave_S.chunk(2)] for wave_S in (rms_S, slt_S))
    assert semitones(slt, rms) > 7 and abs(semitones(rms, rms2)) < 3 and abs(semitones(slt, slt2)) < 3
    assert ltas_distance(rms, rms2) < 0.6 * min(ltas_distance(rms, slt), ltas_distance(rms2, slt2))  # a second of the other holds too few sounds


def test_as_a_row_has_it():
    assert timbre(harmonic(110.0), RATE).as_dict().keys() == {"pitch", "voiced", "silence", "level"}
    assert timbre(torch.zeros(9), RATE).as_dict() == {"pitch": None, "voiced": 0.0, "silence": 1.0, "level": None}
