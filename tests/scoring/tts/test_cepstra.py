"""Mel-cepstral distortion against its formula, and the warping against a plain table."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from melcli.scoring.tts import cepstra
from melcli.scoring.tts.cepstra import DECIBELS, SPEC, mel_cepstra, mel_cepstral_distortion, warped_distance


def vowel(seconds: float = 0.6, f0: float = 120.0, formants: tuple[float, ...] = (700.0, 1200.0), seed: int = 0) -> torch.Tensor:
    """A steady buzz through resonances, with a little noise."""
    time_S = torch.arange(round(seconds * SPEC.rate)) / SPEC.rate
    wave_S = 0.001 * torch.randn(len(time_S), generator=torch.Generator().manual_seed(seed))
    for harmonic in range(1, int(7000 / f0)):
        gain = sum(1 / (1 + ((harmonic * f0 - formant) / 150) ** 2) for formant in formants) + 0.01
        wave_S += 0.05 * gain * torch.sin(2 * math.pi * harmonic * f0 * time_S)
    return wave_S


def test_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envelopes that differ by a cos(pi d (m + 1/2) / M) in their natural logarithm lie 10 / ln 10 * sqrt(2) * a apart, which is their RMS in dB."""
    bins, a = np.arange(SPEC.n_mels) + 0.5, 0.3
    ripple_M = a * np.cos(np.pi * 3 * bins / SPEC.n_mels)
    monkeypatch.setattr(cepstra, "log_mel", lambda spec, wave_S: wave_S)
    flat_TM = torch.zeros(4, SPEC.n_mels)
    one_TD, other_TD = mel_cepstra(flat_TM), mel_cepstra(flat_TM + torch.from_numpy(ripple_M))
    expected = 10 / math.log(10) * math.sqrt(2) * a
    assert DECIBELS * warped_distance(one_TD, other_TD) == pytest.approx(expected)
    assert expected == pytest.approx(np.sqrt(np.mean((20 / math.log(10) * ripple_M) ** 2)))
    assert np.allclose(mel_cepstra(flat_TM + 5), 0)  # the level is c_0, which does not count


def test_level_and_outer_silence_do_not_count() -> None:
    wave_S = vowel()
    assert mel_cepstral_distortion(wave_S, wave_S) == 0
    assert mel_cepstral_distortion(wave_S, 0.1 * wave_S) == pytest.approx(0, abs=1e-3)
    # trimming goes by frames of 20 ms, so the frames of the mel fall elsewhere
    shifted = torch.nn.functional.pad(wave_S, (8000, 4000))
    assert mel_cepstral_distortion(wave_S, shifted) == pytest.approx(0, abs=1e-3)


def test_another_vowel_is_further_than_another_pitch() -> None:
    same = mel_cepstral_distortion(vowel(), vowel(f0=126, seed=1))
    other = mel_cepstral_distortion(vowel(), vowel(formants=(300.0, 2300.0)))
    assert same is not None and other is not None and 0 < same < 3 < other


def test_silence_has_no_distortion() -> None:
    assert mel_cepstral_distortion(vowel(), torch.zeros(16000)) is None
    assert mel_cepstral_distortion(torch.zeros(0), vowel()) is None


def table_distance(a_TD: np.ndarray, b_TD: np.ndarray) -> float:
    """Cost of the cheapest path by the textbook's table."""
    cost = np.full((len(a_TD) + 1, len(b_TD) + 1), np.inf)
    cost[0, 0] = 0
    for i in range(len(a_TD)):
        for j in range(len(b_TD)):
            cost[i + 1, j + 1] = np.linalg.norm(a_TD[i] - b_TD[j]) + min(cost[i, j], cost[i, j + 1], cost[i + 1, j])
    return float(cost[-1, -1])


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_warping_finds_the_cheapest_path(n: int, m: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    a_TD, b_TD = generator.normal(size=(n, 2)), generator.normal(size=(m, 2))
    found = warped_distance(a_TD, b_TD)
    steps = table_distance(a_TD, b_TD) / found
    assert steps == pytest.approx(round(steps)) and max(n, m) - 1e-6 <= steps <= n + m - 1 + 1e-6


def test_slower_speech_is_no_further() -> None:
    frames_TD = np.random.default_rng(0).normal(size=(50, 13))
    assert warped_distance(frames_TD, np.repeat(frames_TD, 2, axis=0)) == 0
    assert warped_distance(frames_TD, frames_TD[::-1]) > 1
