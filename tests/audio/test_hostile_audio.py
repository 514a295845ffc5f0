"""Audio files that were made to do harm, or that no microphone made. The fuzz tests found each of these."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcli.audio.io import load, probe
from melcli.errors import AudioError


def wav(rate: int, data: bytes) -> bytes:
    head = struct.pack("<HHIIHH", 1, 1, rate, rate & 0x7FFFFFFF, 2, 16)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize("rate", [1, 2, 15, 99, 2**24, 2**31 - 1])
def test_rates_that_no_sound_has(tmp_path: Path, rate: int) -> None:
    (tmp_path / "a.wav").write_bytes(wav(rate, bytes(1000)))
    for read in (probe, lambda path: load(path, 16000)):
        with pytest.raises(AudioError, match="samples a second"):
            read(tmp_path / "a.wav")


def test_samples_far_beyond_full_scale(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", np.array([32767.0, -32768.0] * 800, np.float32), 16000, subtype="FLOAT")
    assert len(load(tmp_path / "whole.wav", 16000)) == 1600  # integers kept as floats
    for loudest in (1e7, -1e20):
        soundfile.write(tmp_path / "loud.wav", np.array([0.0, loudest] * 800, np.float32), 16000, subtype="FLOAT")
        with pytest.raises(AudioError, match="where full scale is 1"):
            load(tmp_path / "loud.wav", 16000)


def test_playlists_open_nothing(tmp_path: Path) -> None:
    """FFmpeg's concat and HLS readers open what a file names, which may be anybody's; the control characters make them no text."""
    import av

    soundfile.write(tmp_path / "private.wav", np.zeros(16000, np.float32) + 0.1, 16000)
    playlist = b"ffconcat version 1.0\nfile private.wav\n#\x01\x02\n"
    (tmp_path / "a.m4a").write_bytes(playlist)
    with av.open(str(tmp_path / "a.m4a")) as opened:
        assert opened.streams.audio  # without our care it would be heard
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{tmp_path}/private.wav\n#EXT-X-ENDLIST\n\x01\x02".encode()
    for data in (playlist, hls):
        (tmp_path / "a.m4a").write_bytes(data)
        with pytest.raises(AudioError, match="cannot be decoded"):
            load(tmp_path / "a.m4a", 16000)


def test_devices_are_not_read() -> None:
    with pytest.raises(AudioError, match="is a device"):
        load("/dev/zero", 16000)
