"""Recordings of given lengths, for the tests of commands that reply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def recording(name: str, seconds: float, level: float = 0.1) -> Path:
    """Noise of so many seconds; silence at level 0."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    return path


def seconds_of(path: str | Path) -> float:
    wave, rate = soundfile.read(path)
    return len(wave) / rate
