"""Augmentation does what its names say, repeatably, and cheaply."""

from __future__ import annotations

import itertools
import math
import time

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from melcli.audio.augment import (
    Augment,
    SpecAugment,
    add_noise,
    band_limit,
    convolve,
    frequency_warp,
    gain,
    quantise,
    room_response,
    spec_augment,
    speed,
)
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset

RATE = 16000
EVERYTHING = Augment(speed_probability=1, gain_probability=1, noise_probability=1, room_probability=1, band_probability=1, quantise_probability=1)


def tone(hertz: float, seconds: float = 2.0) -> Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(seconds: float = 2.0) -> Tensor:
    return 0.1 * torch.randn(int(seconds * RATE), generator=generator(5))


def loudest_hertz(wave_S: Tensor) -> float:
    return float(torch.fft.rfft(wave_S).abs().argmax()) * RATE / len(wave_S)


def decibel(wave_S: Tensor) -> float:
    return 10 * math.log10(float(wave_S.square().mean()) + 1e-20)


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.1, 1.25])
def test_speed_changes_duration_and_pitch(factor: float):
    wave_S = speed(tone(440), factor)
    assert len(wave_S) == math.ceil(2 * RATE / factor - 1e-9)
    assert loudest_hertz(wave_S) == pytest.approx(440 * factor, abs=1)


def test_gain_is_in_decibels_and_never_clips():
    wave_S = tone(440)
    assert decibel(gain(wave_S, -12)) - decibel(wave_S) == pytest.approx(-12, abs=0.01)
    assert decibel(gain(wave_S, 6)) - decibel(wave_S) == pytest.approx(6, abs=0.01)
    assert float(gain(wave_S, 40).abs().max()) <= 1
    loud_S = 2 * noise()  # what is beyond full scale already is not made louder
    assert torch.equal(gain(loud_S * 10, 6), loud_S * 10)


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_has_the_level_and_the_colour_asked_for(slope: float, snr: float):
    speech_S = torch.cat([tone(440, 10), torch.zeros(5 * RATE)])  # the pause must not count as speech
    added_S = add_noise(speech_S, snr, slope, RATE, generator()) - speech_S
    assert decibel(tone(440, 10)) - decibel(added_S) == pytest.approx(snr, abs=1.0)
    power_F = torch.fft.rfft(added_S).abs().square()
    hertz_F = torch.fft.rfftfreq(len(added_S), 1 / RATE)

    def density(low: float, high: float) -> float:
        return 10 * math.log10(float(power_F[(hertz_F >= low) & (hertz_F < high)].mean()))

    octaves = math.log2(4000 / 250)
    assert (density(3900, 4100) - density(240, 260)) / octaves == pytest.approx(-3.01 * slope, abs=0.5)


def test_noise_leaves_silence_and_fits_any_length():
    assert not add_noise(torch.zeros(RATE), 10, 1, RATE, generator()).any()
    for samples in (1, 100, 30 * RATE):
        assert len(add_noise(torch.ones(samples), 10, 0, RATE, generator())) == samples


def test_convolution_is_a_convolution():
    wave_S, response_S = noise(), room_response(RATE, 0.1, 1.0, generator())
    padded_S = torch.nn.functional.pad(wave_S, (len(response_S) - 1, 0))
    expected_S = torch.nn.functional.conv1d(padded_S[None, None].double(), response_S.flip(0)[None, None].double())[0, 0].float()
    wet_S = convolve(wave_S, response_S)
    assert len(wet_S) == len(wave_S)
    assert decibel(wet_S) == pytest.approx(decibel(wave_S), abs=0.01)
    torch.testing.assert_close(wet_S / wet_S.std(), expected_S / expected_S.std(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("rt60", [0.2, 0.6])
def test_rooms_decay_as_asked_and_start_with_the_voice(rt60: float):
    response_S = room_response(RATE, rt60, 1.0, generator(2))
    assert float(response_S[0]) == 1.0 and len(response_S) == int(rt60 * RATE)
    # Schroeder's backward integral: from -5 to -25 dB of the tail, times three
    energy_S = response_S[RATE // 20 :].square().flip(0).cumsum(0).flip(0)
    level_S = 10 * torch.log10(energy_S / energy_S[0])
    seconds = (int((level_S < -25).nonzero()[0]) - int((level_S < -5).nonzero()[0])) / RATE
    assert 3 * seconds == pytest.approx(rt60, rel=0.25)
    near, far = (room_response(RATE, rt60, metres, generator(2))[1:].square().sum() for metres in (0.2, 2.0))
    assert far > 20 * near


def test_band_limit_keeps_the_band_in_its_place():
    wave_S = tone(1000)
    torch.testing.assert_close(band_limit(wave_S, 300, 3400, RATE)[200:-200], wave_S[200:-200], atol=2e-3, rtol=0)
    for stopped in (60, 5000):
        assert decibel(band_limit(tone(stopped), 300, 3400, RATE)[200:-200]) < decibel(wave_S) - (10 if stopped < 300 else 50)
    assert decibel(band_limit(tone(60), 0, 3400, RATE)[200:-200]) == pytest.approx(decibel(tone(60)), abs=0.2)


def test_quantisation_is_mu_law():
    wave_S = torch.linspace(-1, 1, 1001)
    rounded_S = quantise(wave_S)
    assert len(rounded_S.unique()) <= 257
    assert float((rounded_S - wave_S).abs().max()) < 0.03
    assert torch.equal(quantise(-wave_S), -rounded_S)
    assert decibel(quantise(noise()) - noise()) < decibel(noise()) - 30


def test_the_same_seed_gives_the_same_sound_and_another_another():
    wave_S = noise(3)
    copy_S = wave_S.clone()
    first_S, again_S, other_S = (EVERYTHING.apply(wave_S, RATE, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first_S, again_S)
    assert len(first_S) != len(other_S) or not torch.equal(first_S, other_S)
    assert torch.equal(wave_S, copy_S)


def test_many_draws_stay_sound():
    for seed in range(60):
        samples = (2, 50, 4000, 31999)[seed % 4]
        wave_S = EVERYTHING.apply(noise()[:samples], RATE, generator(seed))
        assert wave_S.isfinite().all() and float(wave_S.abs().max()) <= 1.0
        assert math.floor(samples / 1.11) <= len(wave_S) <= math.ceil(samples / 0.89)
    assert not EVERYTHING.apply(torch.zeros(RATE), RATE, generator()).any()
    assert len(EVERYTHING.apply(torch.zeros(0), RATE, generator())) == 0


def test_switched_off_changes_nothing_and_still_copies():
    off = Augment(speed_probability=0, gain_probability=0, noise_probability=0, room_probability=0, band_probability=0)
    wave_S = noise()
    same_S = off.apply(wave_S, RATE, generator())
    assert torch.equal(same_S, wave_S) and same_S.data_ptr() != wave_S.data_ptr()


@pytest.mark.parametrize("change", [{"speed": (1.1, 0.9)}, {"speed": (0.0, 1.0)}, {"noise_probability": 1.5}, {"speeds": (1, 1)}])
def test_impossible_settings_are_refused(change: dict[str, object]):
    with pytest.raises(ValidationError):
        Augment(**change)


def test_everything_at_once_is_cheap():
    wave_S = noise(10)
    EVERYTHING.apply(wave_S, RATE, generator())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = math.inf
        for seed in range(10):
            began = time.process_time()
            EVERYTHING.apply(wave_S, RATE, generator(seed))
            best = min(best, time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
    assert 10 / best > 300, f"{10 / best:.0f} seconds of audio a second"


def test_spec_augment_masks_as_much_as_asked():
    mel_TM = torch.randn(1000, 80, generator=generator())
    config = SpecAugment(frequency_masks=2, frequency_width=20, time_masks_per_second=0.5, time_width=0.3)
    shares = []
    for seed in range(50):
        masked_TM = spec_augment(mel_TM, config, generator(seed))
        changed_TM = masked_TM != mel_TM
        bins, frames = changed_TM.all(0).sum(), changed_TM.all(1).sum()
        assert bins <= 40 and frames <= 5 * 30
        # nothing but whole bins and whole frames
        assert torch.equal(changed_TM, changed_TM.all(0)[None] | changed_TM.all(1)[:, None])
        assert torch.all(masked_TM[changed_TM] == mel_TM.mean())
        shares.append(float(changed_TM.float().mean()))
    assert 0.1 < sum(shares) / len(shares) < 0.4


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_frequency_warp_moves_a_tone_as_another_throat_would(factor: float):
    spec = preset("phi4mm")
    heard, meant = (log_mel(spec, tone(hertz)) for hertz in (1500.0, 1500.0 * factor))
    warped = frequency_warp(heard, factor)
    assert warped.shape == heard.shape
    assert abs(int(warped.mean(0).argmax()) - int(meant.mean(0).argmax())) <= 1
    if factor == 1.0:
        torch.testing.assert_close(warped, heard, atol=1e-3, rtol=1e-3)


def test_spec_augment_warps_where_asked():
    mel_TM = torch.randn(200, 80, generator=generator())
    only = SpecAugment(frequency_warp=0.1, frequency_masks=0, time_masks_per_second=0)
    warped = [spec_augment(mel_TM, only, generator(seed)) for seed in range(8)]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(warped))
    assert torch.equal(warped[0], spec_augment(mel_TM, only, generator(0)))
    with pytest.raises(ValueError, match="frequency_warp"):
        SpecAugment(frequency_warp=0.5)


def test_spec_augment_spares_short_utterances_and_repeats():
    config = SpecAugment()
    short_TM = torch.randn(30, 80, generator=generator())
    for seed in range(20):
        changed_TM = spec_augment(short_TM, config, generator(seed)) != short_TM
        assert changed_TM.all(1).sum() <= 1
    mel_TM = torch.randn(500, 80, generator=generator())
    assert torch.equal(spec_augment(mel_TM, config, generator(3)), spec_augment(mel_TM, config, generator(3)))
    assert not torch.equal(spec_augment(mel_TM, config, generator(3)), spec_augment(mel_TM, config, generator(4)))
    off = SpecAugment(frequency_masks=0, time_masks_per_second=0)
    assert torch.equal(spec_augment(mel_TM, off, generator()), mel_TM)
    assert spec_augment(torch.empty(0, 80), config, generator()).shape == (0, 80)
