"""Training-time distortions of waveforms and of log-mels: one recording heard as many others.

Shapes: S samples, T mel frames, M mel bins. Everything is drawn from the generator that is passed in and from nothing else, so the same
seed gives the same sound on every machine.

Order on a waveform: speed, room, noise, band limit, quantisation, gain: what happens in a throat, in a room, in a microphone, on a line.
"""

from __future__ import annotations

import functools
import math
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from melcli.audio.resample import resample

SPEED_STEPS = 100  # a speed factor is a whole number of these: resampling filters are made once each and then kept
NOISE_SECONDS = 8.0  # of noise of each colour are made once and then read from random places
SOUND_METRES = 343.0  # a second
TELEPHONE_HERTZ = (300.0, 3400.0)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _integer(high: int, generator: torch.Generator) -> int:
    """0 to high - 1."""
    return int(torch.randint(max(1, high), (), generator=generator))


def _fft_length(samples: int) -> int:
    """The next length that the FFT is fast at: 2, 3 or 5 times a power of two."""
    return min(m << max(0, math.ceil(math.log2(samples / m))) for m in (2, 3, 5))


def speed(wave_S: Tensor, factor: float) -> Tensor:
    """Played `factor` times as fast, by resampling: duration, pitch and formants change together. Factors are rounded to a hundredth."""
    steps = max(1, round(factor * SPEED_STEPS))
    return resample(wave_S, steps, SPEED_STEPS)


def gain(wave_S: Tensor, decibel: float) -> Tensor:
    """Louder by so many decibels, but never beyond full scale."""
    peak = float(wave_S.abs().amax()) if len(wave_S) else 0.0
    factor = 10.0 ** (decibel / 20.0)
    return wave_S * (min(factor, max(1.0, 0.999 / peak)) if peak > 0 and factor > 1 else factor)


@functools.lru_cache(maxsize=32)
def _colour(slope: float, rate: int) -> Tensor:
    """Noise of unit power whose power falls with the frequency to the power `slope`: 0 white, 1 pink, 2 brown. Made once a rate."""
    samples = _fft_length(int(NOISE_SECONDS * rate))
    spectrum_F = torch.fft.rfft(torch.randn(samples, generator=torch.Generator().manual_seed(round(slope * 1000))))
    hertz_F = torch.fft.rfftfreq(samples, 1 / rate)
    spectrum_F *= hertz_F.clamp_min(50.0) ** (-slope / 2)  # flat below 50 Hz, or brown noise would be nothing but rumble
    noise_S = torch.fft.irfft(spectrum_F, samples)
    return noise_S / noise_S.square().mean().sqrt()


def add_noise(wave_S: Tensor, snr: float, slope: float, rate: int, generator: torch.Generator) -> Tensor:
    """Noise of a colour (slope 0 white, 1 pink, 2 brown) so many decibels below the speech.

    The level of the speech is that of its louder half, so that pauses do not count. Silence stays as it is.
    """
    colour_S = _colour(slope, rate)
    first = _integer(len(colour_S), generator)
    last = first + len(wave_S)
    noise_S = colour_S.repeat(-(-last // len(colour_S)))[first:last]
    frame = max(1, rate // 50)
    power_T = wave_S[: len(wave_S) // frame * frame].view(-1, frame).square().mean(1) if len(wave_S) >= frame else wave_S.square()
    level = float(power_T[power_T >= power_T.median()].mean()) if len(power_T) else 0.0
    return torch.add(wave_S, noise_S, alpha=math.sqrt(level * 10.0 ** (-snr / 10.0)))


def room_response(rate: int, rt60: float, metres: float, generator: torch.Generator) -> Tensor:
    """A simulated room's impulse response: direct sound, a few early reflections, an exponentially decaying diffuse tail.

    rt60: seconds until the tail has fallen by 60 dB. metres: from mouth to microphone, which sets direct against reverberant sound.
    The direct sound comes first and is 1, so that speech stays aligned with its text.
    """
    samples = max(2, int(rt60 * rate))
    time_S = torch.arange(samples) / rate
    tail_S = torch.randn(samples, generator=generator) * torch.exp(-math.log(1000.0) * time_S / rt60)
    # walls and air swallow high frequencies first: neighbouring samples are averaged
    tail_S[1:] += 0.6 * tail_S[:-1].clone()
    onset = int(_uniform(0.004, 0.015, generator) * rate)
    tail_S[:onset] = 0.0
    # beyond the critical distance (about a metre in a living room) the tail is louder than the direct sound
    tail_S *= metres / (tail_S.square().sum().sqrt() + 1e-9) * 0.7
    for _ in range(6):
        delay = int(_uniform(0.001, 0.03, generator) * rate)
        if 0 < delay < samples:
            sign = 1.0 if _integer(4, generator) else -1.0
            tail_S[delay] += sign * _uniform(0.1, 0.5, generator) * metres / (metres + delay / rate * SOUND_METRES)
    tail_S[0] = 1.0
    return tail_S


def convolve(wave_S: Tensor, response_S: Tensor) -> Tensor:
    """The waveform in a room, as long and as loud (in power) as before. Blocks of FFTs (overlap-add), so its cost grows with S only."""
    size = _fft_length(max(4 * len(response_S), 4096))
    hop = size - len(response_S) + 1
    blocks = -(-len(wave_S) // hop)
    blocks_BS = torch.nn.functional.pad(wave_S, (0, blocks * hop - len(wave_S))).view(blocks, hop)
    wet_BS = torch.fft.irfft(torch.fft.rfft(blocks_BS, size) * torch.fft.rfft(response_S, size), size)
    out_S = torch.zeros(blocks * hop + size)
    out_S[: blocks * hop].view(blocks, hop).copy_(wet_BS[:, :hop])
    out_S[hop : (blocks + 1) * hop].view(blocks, hop)[:, : size - hop] += wet_BS[:, hop:]
    out_S = out_S[: len(wave_S)]
    return out_S * torch.sqrt(wave_S.square().mean() / (out_S.square().mean() + 1e-12))


@functools.lru_cache(maxsize=256)
def _band_filter(low: float, high: float, rate: int) -> Tensor:
    """A linear-phase windowed-sinc band-pass of 127 taps, centred."""
    taps = torch.arange(-63, 64, dtype=torch.float64)
    sinc = 2 * high / rate * torch.sinc(2 * high / rate * taps) - 2 * low / rate * torch.sinc(2 * low / rate * taps)
    return (sinc * torch.blackman_window(127, periodic=False, dtype=torch.float64)).float()


def band_limit(wave_S: Tensor, low: float, high: float, rate: int) -> Tensor:
    """Only what is between `low` and `high` Hz, as a telephone (300 to 3400) or a low bit rate would leave it. Not shifted in time."""
    filter_K = _band_filter(low, high, rate)
    size = 1024
    hop = size - len(filter_K) + 1
    reach = len(filter_K) // 2
    blocks = -(-(len(wave_S) + reach) // hop)
    padded_S = torch.nn.functional.pad(wave_S, (len(filter_K) - 1, blocks * hop - len(wave_S)))
    # overlap-save: each block reads the taps before it, and its first, wrapped, samples are dropped
    blocks_BS = torch.fft.irfft(torch.fft.rfft(padded_S.unfold(0, size, hop)) * torch.fft.rfft(filter_K, size), size)
    return blocks_BS[:, len(filter_K) - 1 :].reshape(-1)[reach : reach + len(wave_S)]


def quantise(wave_S: Tensor, levels: int = 256) -> Tensor:
    """Mu-law companding to so many levels and back, as on a digital telephone line."""
    mu = levels - 1
    companded_S = torch.log1p(mu * wave_S.abs().clamp_max(1.0)) / math.log1p(mu)
    rounded_S = torch.round(companded_S * (mu / 2)) / (mu / 2)
    return torch.copysign(torch.expm1(rounded_S * math.log1p(mu)) / mu, wave_S)


class Augment(BaseModel):
    """Which distortions, how strong, how often. Ranges are (low, high), drawn evenly; a probability of 0 switches one off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speed: tuple[float, float] = Field((0.9, 1.1), description="factor; pitch and formants move with it; in steps of 0.01")
    speed_probability: float = Field(0.7, ge=0, le=1)
    gain_db: tuple[float, float] = Field((-12.0, 6.0), description="decibel; full scale is never passed")
    gain_probability: float = Field(1.0, ge=0, le=1)
    snr_db: tuple[float, float] = Field((5.0, 40.0), description="decibel of speech over noise; colours from white to brown")
    noise_probability: float = Field(0.5, ge=0, le=1)
    rt60: tuple[float, float] = Field((0.1, 0.7), description="seconds of reverberation")
    distance: tuple[float, float] = Field((0.2, 2.0), description="metres from mouth to microphone")
    room_probability: float = Field(0.3, ge=0, le=1)
    lowpass_hertz: tuple[float, float] = Field((2800.0, 7000.0), description="upper edge; edges above half the rate do nothing")
    band_probability: float = Field(0.2, ge=0, le=1)
    telephone_probability: float = Field(0.25, ge=0, le=1, description="share of the band-limited that are a telephone, 300 to 3400 Hz")
    quantise_probability: float = Field(0.0, ge=0, le=1, description="mu-law, 8 bit")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("speed", "gain_db", "snr_db", "rt60", "distance", "lowpass_hertz"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"{name} ({low:g}, {high:g}) must be (low, high)")
            if name not in ("gain_db", "snr_db") and low <= 0:
                raise ValueError(f"{name} ({low:g}, {high:g}) must be above 0")
        return self

    @torch.no_grad()
    def apply(self, wave_S: Tensor, rate: int, generator: torch.Generator) -> Tensor:
        """A distorted copy of wave_S (float32 mono on the CPU); its length changes with the speed only. wave_S itself is left as it is."""
        if len(wave_S) < 2:
            return wave_S.clone()

        def draw(bounds: tuple[float, float]) -> float:
            return _uniform(*bounds, generator)

        def happens(probability: float) -> bool:
            return float(torch.rand((), generator=generator)) < probability

        source_S = wave_S
        if happens(self.speed_probability):
            wave_S = speed(wave_S, draw(self.speed))
        if happens(self.room_probability):
            wave_S = convolve(wave_S, room_response(rate, draw(self.rt60), draw(self.distance), generator))
        if happens(self.noise_probability):
            slope = _integer(5, generator) / 2  # 0, 0.5, 1, 1.5, 2
            wave_S = add_noise(wave_S, draw(self.snr_db), slope, rate, generator)
        if happens(self.band_probability):
            low, high = TELEPHONE_HERTZ if happens(self.telephone_probability) else (0.0, 100.0 * round(draw(self.lowpass_hertz) / 100.0))
            if high < rate / 2:
                wave_S = band_limit(wave_S, low, high, rate)
        if happens(self.quantise_probability):
            wave_S = quantise(wave_S)
        if happens(self.gain_probability):
            wave_S = gain(wave_S, draw(self.gain_db))
        return wave_S.clone() if wave_S is source_S else wave_S


class SpecAugment(BaseModel):
    """Masks on log-mels (Park et al., 2019, arXiv 1904.08779), with the adaptive number and size of time masks of arXiv 1912.05533; and, where
    asked for, other vocal tracts (Jaitly and Hinton 2013, "Vocal Tract Length Perturbation improves speech recognition")."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frequency_warp: float = Field(0.0, ge=0, lt=0.5, description="formants go up or down by this share at most; 0.1 is about what speakers differ by")

    frequency_masks: int = Field(2, ge=0, description="masks over mel bins")
    frequency_width: int = Field(27, ge=0, description="bins of the widest, for 80 mel bins; scaled for other numbers of bins")
    time_masks_per_second: float = Field(0.5, ge=0, description="masks over frames grow with the utterance")
    max_time_masks: int = Field(10, ge=0)
    time_width: float = Field(0.3, ge=0, description="seconds of the widest time mask")
    max_time_share: float = Field(0.05, ge=0, le=1, description="of the utterance that one time mask may cover")


def frequency_warp(mel_TM: Tensor, factor: float) -> Tensor:
    """What was at a frequency f is at factor * f, as from a throat of another length. Harmonics that the bins
    tell apart move too; the length stays. The top bin fills what nothing reaches.

    Bins are taken as evenly spaced on the HTK mel scale up to 8 kHz, which is near enough for a random change.
    """
    bins = mel_TM.shape[1]
    top = math.log1p(8000.0 / 700.0)
    hertz_M = 700.0 * torch.expm1(torch.arange(1, bins + 1) * (top / (bins + 1)))
    source_M = (torch.log1p(hertz_M / (700.0 * factor)) * ((bins + 1) / top) - 1).clamp(0, bins - 1)
    below_M = source_M.long().clamp_max(max(0, bins - 2))
    above_M = (below_M + 1).clamp_max(bins - 1)
    return torch.lerp(mel_TM[:, below_M], mel_TM[:, above_M], (source_M - below_M).to(mel_TM))


@torch.no_grad()
def spec_augment(mel_TM: Tensor, config: SpecAugment, generator: torch.Generator, frame_rate: float = 100.0) -> Tensor:
    """A copy of mel_TM, warped along frequency, with bands of bins and stretches of frames replaced by the utterance's mean. frame_rate: frames a
    second."""
    frames, bins = mel_TM.shape
    if frames == 0:
        return mel_TM.clone()
    if config.frequency_warp:
        mel_TM = frequency_warp(mel_TM, 1.0 + _uniform(-config.frequency_warp, config.frequency_warp, generator))
    else:
        mel_TM = mel_TM.clone()
    mean = mel_TM.mean()
    widest = round(config.frequency_width * bins / 80)
    for _ in range(config.frequency_masks):
        width = _integer(min(widest, bins) + 1, generator)
        first = _integer(bins - width + 1, generator)
        mel_TM[:, first : first + width] = mean
    longest = min(int(config.time_width * frame_rate), int(config.max_time_share * frames))
    for _ in range(min(config.max_time_masks, round(config.time_masks_per_second * frames / frame_rate))):
        length = _integer(longest + 1, generator)
        first = _integer(frames - length + 1, generator)
        mel_TM[first : first + length] = mean
    return mel_TM
