"""Damaged audio files of every format, to the readers that the commands use."""

from __future__ import annotations

import functools
import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import strategies as st

from melcli.audio import io as audio_io
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset
from tests.fuzz.confined import fuzz
from tests.fuzz.damage import damaged

RATE = 16000
LIBSNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "ulaw.wav": ("WAV", "ULAW"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "extensible.wav": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
}
FFMPEG = {
    "m4a": ("mp4", "aac"),
    "mp4": ("mp4", "aac"),
    "webm": ("webm", "libopus"),
    "mka": ("matroska", "flac"),
    "aac": ("adts", "aac"),
    "wma": ("asf", "wmav1"),
}
SECONDS = 0.3


@functools.lru_cache
def valid(kind: str) -> bytes:
    """A third of a second of a tone in one format."""
    wave = (0.3 * np.sin(np.arange(int(SECONDS * RATE)) * 0.2)).astype(np.float32)
    out = io.BytesIO()
    if kind in LIBSNDFILE:
        container, coding = LIBSNDFILE[kind]
        soundfile.write(out, wave, RATE, format=container, subtype=coding)
        return out.getvalue()
    container, codec = FFMPEG[kind]
    with av.open(out, "w", format=container) as opened:
        stream = opened.add_stream(codec, rate=48000 if codec == "libopus" else RATE, layout="mono")
        if kind == "wma":
            stream.bit_rate = 32000  # its encoder refuses the default
        samples = (wave * 32767).astype(np.int16)[None] if codec == "flac" else wave[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16p" if codec == "flac" else "fltp", layout="mono")
        frame.rate, frame.pts = stream.rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            opened.mux(packet)
    return out.getvalue()


def decode(folder: Path, data: bytes, name: str = "a.wav") -> None:
    """As `transcribe` reads a file: what its header says, its samples in blocks, and log-mel frames of them, which must be numbers."""
    path = folder / name
    path.write_bytes(data)
    info = audio_io.probe(path)
    assert info.rate > 0 and (info.duration is None or info.duration >= 0)
    count = 0
    for wave_S in audio_io.stream(path, RATE, block_seconds=5.0):
        assert wave_S.dtype == torch.float32 and wave_S.dim() == 1 and bool(wave_S.isfinite().all())
        count += len(wave_S)
        if count < 10 * RATE and len(wave_S) >= 400:
            assert bool(log_mel(preset("phi4mm"), wave_S).isfinite().all())
        if count > 3600 * RATE:
            raise AssertionError(f"an hour of audio out of {len(data)} bytes")


@pytest.mark.parametrize("kind", sorted({*LIBSNDFILE, *FFMPEG}))
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    decode(tmp_path, valid(kind), f"a.{kind}")


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "m4a", "webm"])
def test_formats_that_people_have(kind: str) -> None:
    assert fuzz(damaged(st.just(valid(kind))), lambda folder, data: decode(folder, data, f"a.{kind}")).ends.total() > 1


def test_all_other_formats() -> None:
    rest = sorted({*LIBSNDFILE, *FFMPEG} - {"wav", "flac", "ogg", "mp3", "m4a", "webm"})
    assert fuzz(st.sampled_from(rest).flatmap(lambda kind: damaged(st.just(valid(kind)))), decode, examples=20).ends.total() > 1


def test_a_stretch_of_a_damaged_file() -> None:
    times = st.sampled_from((0.0, 0.1, 0.25, 0.3, 1.0, 1e9, 1e300))

    def part(folder: Path, given: tuple[bytes, float, float]) -> Any:
        (folder / "a").write_bytes(given[0])
        return audio_io.load(folder / "a", RATE, start=given[1], end=given[1] + given[2])

    fuzz(st.tuples(damaged(st.sampled_from(sorted({*LIBSNDFILE, *FFMPEG})).map(valid), most=1), times, times), part)


def wav(rate: int, channels: int, bits: int, form: int, claimed: int, data: bytes) -> bytes:
    """A wav file whose header says what it is told to."""
    block = (channels * bits // 8) & 0xFFFF
    head = struct.pack("<HHIIHH", form, channels & 0xFFFF, rate & 0xFFFFFFFF, (rate * block) & 0xFFFFFFFF, block, bits & 0xFFFF)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(data))
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + head
        + b"data"
        + struct.pack("<I", claimed & 0xFFFFFFFF)
        + data
    )


def test_headers_at_their_extremes() -> None:
    rates = st.sampled_from((0, 1, 2, 7, 50, 8000, 11025, 44099, 96000, 192000, 655350, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF))
    sizes = st.sampled_from((0, 1, 2, 400, 0x7FFFEFFF, 0x7FFFFFFF, 0xFFFFFFFF))
    headers = st.builds(
        wav,
        rates,
        st.sampled_from((0, 1, 2, 6, 255, 1024, 1025, 65535)),
        st.sampled_from((0, 1, 4, 8, 12, 16, 24, 32, 64, 65535)),
        st.sampled_from((0, 1, 2, 3, 6, 7, 17, 0x55, 0xFFFE, 0xFFFF)),
        sizes,
        st.sampled_from((b"", b"\0", bytes(400), bytes(4000), b"\x7f" * 4001, b"\xff" * 800, b"\0\0\x80\x7f" * 300)),
    )
    fuzz(headers, decode, examples=20)


def test_noise_and_text() -> None:
    begun = st.sampled_from(
        (
            b"",
            b"RIFF",
            b"fLaC",
            b"OggS",
            b"ID3\x04",
            b"\xff\xfb\x90",
            b"#EXTM3U\n",
            b"ffconcat version 1.0\n",
            b"\x1aE\xdf\xa3",
            b"\0\0\0\x18ftyp",
            b"FORM",
            b"v=0\r\n",
        )
    )
    fuzz(st.tuples(begun, st.binary(max_size=300)).map(b"".join), decode)
