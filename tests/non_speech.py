"""A hundred clips that hold no speech: silence, noises, hum, clicks, tones, chords and signals of telephones. The same ones every time."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

RATE = 16000
DIAL = {"US dial": (350, 440), "EU dial": (425,), "busy": (480, 620), "ring": (440, 480)}
KEYS = {"1": (697, 1209), "5": (770, 1336), "9": (852, 1477), "0": (941, 1336)}


def clips() -> Iterator[tuple[str, Tensor]]:
    """(name, wave_S at 16 kHz), 100 of them, 1 to 10 seconds long, at levels from -50 to -6 dBFS."""
    g = torch.Generator().manual_seed(7)
    for i in range(10):
        yield f"silence {i}", torch.zeros(RATE * (i + 1)) if i < 5 else _level(torch.randn(RATE * (i - 3), generator=g), -75 + i)
    for i in range(15):
        yield f"white noise {i}", _level(torch.randn(_samples(i), generator=g), -50 + 3 * i)
    for i in range(15):
        yield f"coloured noise {i}", _level(_coloured(_samples(i), 0.5 + 0.1 * i, g), -45 + 2.5 * i)
    for i in range(12):
        hum = sum(torch.sin(_phase(_samples(i), (50 if i % 2 else 60) * k)) / k for k in (1, 2, 3, 5))
        yield f"hum {i}", _level(hum + 0.05 * torch.randn(_samples(i), generator=g), -40 + 2 * i)
    for i in range(12):
        clicks = torch.zeros(_samples(i))
        at = torch.randint(0, len(clicks) - 200, (4 * (i + 1),), generator=g)
        for start in at.tolist():
            clicks[start : start + 80] += torch.exp(-torch.arange(80) / (5.0 + i)) * torch.randn(80, generator=g)
        yield f"clicks {i}", 0.5 * clicks / clicks.abs().max()
    for i in range(8):
        yield f"tone {i}", _level(torch.sin(_phase(_samples(i), 110 * 2 ** (i / 2))), -30 + 2 * i)
    for i in range(12):
        yield f"chords {i}", _level(_chords(_samples(i), i, g), -30 + 2 * i)
    for i in range(8):
        tones = list(DIAL.values())[i % 4]
        on = (torch.arange(_samples(i)) // (RATE // 2)) % 2 == 0 if i % 4 >= 2 else torch.ones(_samples(i), dtype=torch.bool)
        yield f"{list(DIAL)[i % 4]} {i}", _level(sum(torch.sin(_phase(_samples(i), f)) for f in tones) * on, -20 + i)
    for i in range(4):
        keys = [torch.cat([sum(torch.sin(_phase(1600, f)) for f in pair), torch.zeros(1600)]) for pair in KEYS.values()]
        yield f"keys {i}", _level(torch.cat(keys * (i + 1)), -18)
    for i in range(4):
        sweep = torch.sin(torch.cumsum(2 * math.pi * torch.linspace(200, 2000 + 1000 * i, _samples(i)) / RATE, 0))
        yield f"sweep {i}", _level(sweep, -20)


def _samples(i: int) -> int:
    return RATE * (1 + 3 * i % 10)


def _phase(samples: int, frequency: float) -> Tensor:
    return 2 * math.pi * frequency * torch.arange(samples) / RATE


def _level(wave_S: Tensor, dbfs: float) -> Tensor:
    return (wave_S * (10 ** (dbfs / 20) / wave_S.square().mean().sqrt().clamp_min(1e-9))).clamp(-1, 1)


def _coloured(samples: int, slope: float, g: torch.Generator) -> Tensor:
    """Noise whose amplitude falls with frequency to the power of `slope`: 0.5 is pink, 1 brown."""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=g))
    return torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1) ** slope, samples)


def _chords(samples: int, number: int, g: torch.Generator) -> Tensor:
    """Chords of decaying notes with overtones, one every half second or so, with vibrato in every second clip."""
    wave_S = torch.zeros(samples)
    step = RATE // 2 + 1000 * (number % 4)
    for start in range(0, samples, step):
        length = min(2 * step, samples - start)
        t = torch.arange(length) / RATE
        for semitone in (0, 4, 7):
            base = 130.8 * 2 ** ((int(torch.randint(0, 12, (1,), generator=g)) + semitone) / 12)
            wobble = 0.3 * torch.sin(2 * math.pi * 5 * t) if number % 2 else 0.0
            for overtone in range(1, 6):
                wave_S[start : start + length] += torch.sin(2 * math.pi * base * overtone * t + wobble) / overtone * torch.exp(-2 * t)
    return wave_S
