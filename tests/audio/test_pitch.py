"""The pitch of signals that have one, and of those that have none."""

from __future__ import annotations

import math

import pytest
import torch

from melcli.audio.io import load
from melcli.audio.pitch import PitchGrid, track_many
from melcli.registry import PACKAGE

RATE, HOP = 16000, 256
GRID = PitchGrid()


def voice(hertz: float, seconds: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Harmonics with a gliding pitch, and the pitch of each frame."""
    time_S = torch.arange(int(seconds * RATE)) / RATE
    hertz_S = hertz * (1 + 0.08 * torch.sin(2 * math.pi * time_S))
    turns_S = (hertz_S.double() / RATE).cumsum(0)
    wave_S = sum(torch.cos(2 * math.pi * k * turns_S) / k for k in range(1, int(3500 / hertz)))
    return 0.1 * wave_S.float(), hertz_S[::HOP]


@pytest.mark.parametrize("hertz", [75.0, 110.0, 210.0, 330.0, 480.0])
def test_a_gliding_voice_is_followed(hertz):
    wave_S, truth_T = voice(hertz)
    noise_S = 0.002 * torch.randn(len(wave_S), generator=torch.Generator().manual_seed(0))
    pitch_T, voiced_T = track_many([wave_S + noise_S], RATE, HOP, GRID)[0]
    inner = slice(3, len(truth_T) - 3)
    cents_T = 1200 * (pitch_T[: len(truth_T)][inner] / truth_T[inner]).log2().abs()
    assert float(cents_T.max()) < 25
    assert bool(voiced_T[inner].all())


def test_noise_and_silence_have_no_pitch():
    noise_S = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(0))
    for _, voiced_T in track_many([noise_S, torch.zeros(RATE)], RATE, HOP, GRID):
        assert float(voiced_T.float().mean()) < 0.05


def test_a_track_does_not_depend_on_its_batch():
    waves = [voice(120.0)[0], voice(240.0, 0.4)[0], torch.zeros(3000)]
    alone = [track_many([wave_S], RATE, HOP, GRID)[0] for wave_S in waves]
    for (pitch_T, voiced_T), (pitch, voiced) in zip(track_many(waves, RATE, HOP, GRID), alone, strict=True):
        assert torch.equal(voiced_T, voiced)
        assert torch.allclose(pitch_T, pitch)


@pytest.mark.parametrize(("clip", "low", "high"), [("garden-rms", 75, 130), ("digits-slt", 140, 220)])
def test_the_voices_of_the_clips(clip, low, high):
    pitch_T, voiced_T = track_many([load(PACKAGE / "assets" / "clips" / f"{clip}.wav", RATE)], RATE, HOP, GRID)[0]
    inside_T = (pitch_T[voiced_T] > low) & (pitch_T[voiced_T] < high)
    assert float(inside_T.float().mean()) > 0.95
    assert float(voiced_T.float().mean()) > 0.4
