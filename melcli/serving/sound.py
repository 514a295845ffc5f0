"""Samples to the formats that a client may ask for, while they are made where the format allows it.

Shapes: S samples.
"""

from __future__ import annotations

import io
from typing import Protocol

import soundfile
import torch
from torch import Tensor

from melcli.audio.io import WRITTEN
from melcli.audio.resample import Resampler
from melcli.audio.writer import WavPipe

PCM_RATE = 24000  # Hz; a client cannot be told another, and OpenAI's is this
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
MEDIA = {"mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm"}
STREAMED = ("wav", "pcm", "opus")  # the others' headers say how long they are, so that they go out when they are over


class Encoder(Protocol):
    """Takes wave_S, float in [-1, 1], piece by piece; gives the bytes that are ready."""

    def push(self, wave_S: Tensor) -> bytes: ...

    def finish(self) -> bytes: ...


def encoder(form: str, rate: int) -> Encoder:
    """An encoder to a format of MEDIA, for samples at `rate`."""
    if form == "wav":
        return _Wav(rate)
    return _Pcm(rate) if form == "pcm" else _File(form, rate)


class _Wav:
    """16 bits; the header's sizes say `until the end`, as `melcli synthesize -o -` writes them."""

    def __init__(self, rate: int) -> None:
        self._out = io.BytesIO()
        self._writer = WavPipe(self._out, rate)

    def push(self, wave_S: Tensor) -> bytes:
        self._writer.write(wave_S)
        return _taken(self._out)

    def finish(self) -> bytes:
        return b""


class _Pcm:
    """16 bits, little-endian, 24 kHz, without a header."""

    def __init__(self, rate: int) -> None:
        self._resampler = Resampler(rate, PCM_RATE)

    def push(self, wave_S: Tensor) -> bytes:
        return self._bytes(self._resampler.push(wave_S)) if len(wave_S) else b""

    def finish(self) -> bytes:
        return self._bytes(self._resampler.finish())

    @staticmethod
    def _bytes(wave_S: Tensor) -> bytes:
        return (wave_S.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes()


class _File:
    """What libsndfile writes. Bytes come at the end where it goes back to fill in the header."""

    def __init__(self, form: str, rate: int) -> None:
        self._early = form in STREAMED
        self._out = io.BytesIO()
        self._resampler = Resampler(rate, rate if form != "opus" or rate in OPUS_RATES else 48000)
        container, coding = WRITTEN[form]
        target = rate if self._resampler.same else 48000
        self._file = soundfile.SoundFile(self._out, "w", samplerate=target, channels=1, format=container, subtype=coding)

    def push(self, wave_S: Tensor) -> bytes:
        self._write(self._resampler.push(wave_S))
        return _taken(self._out) if self._early else b""

    def finish(self) -> bytes:
        self._write(self._resampler.finish())
        self._file.close()
        return _taken(self._out)

    def _write(self, wave_S: Tensor) -> None:
        if len(wave_S):
            self._file.write(wave_S.clamp(-1, 1).float().numpy())


def _taken(out: io.BytesIO) -> bytes:
    """What was written since the last time."""
    data = out.getvalue()
    out.seek(0)
    out.truncate()
    return data
