"""Audio written while it is made: to a file under a temporary name, or as WAV into a pipe.

Shapes: S samples.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import soundfile
from torch import Tensor

from melcli.audio.io import WRITTEN
from melcli.errors import UsageError, nearest
from melcli.files import failure, replacing

UNKNOWN = 0xFFFFFFFF
"""The sizes in the header of a WAV that is not over yet, as ffmpeg and sox write them and read them: go on to the end of the pipe."""


class AudioWriter(Protocol):
    """Takes mono audio piece by piece."""

    def write(self, wave_S: Tensor) -> None:
        """The next samples, float in [-1, 1]; those outside are clipped."""
        ...


def check_suffix(path: Path, flag: str = "-o") -> None:
    """Raises UsageError where the suffix is none that can be written."""
    if path.suffix.lower().lstrip(".") not in WRITTEN:
        known = ["." + name for name in WRITTEN]
        raise UsageError(f"{flag} {path}: the suffix says the format; valid are {', '.join(known)}.{nearest(path.suffix.lower(), known)}")


@contextmanager
def file_writer(path: Path, rate: int) -> Iterator[AudioWriter]:
    """A file that grows under a temporary name beside `path` and takes that name when it is whole; where anything fails, nothing is left.

    The suffix says the format; WAV and FLAC have 16 bits. Raises UsageError for another suffix or a rate the format has not, WriteError.
    """
    check_suffix(path)
    form, coding = WRITTEN[path.suffix.lower().lstrip(".")]
    if not soundfile.check_format(form, coding) or (coding == "OPUS" and rate not in (8000, 12000, 16000, 24000, 48000)):
        raise UsageError(f"-o {path}: {path.suffix} cannot hold {rate} Hz; .wav and .flac can.")
    with replacing(path) as temporary:
        try:
            with soundfile.SoundFile(temporary, "w", samplerate=rate, channels=1, format=form, subtype=coding) as file:
                yield _Whole(file)
        except (soundfile.LibsndfileError, AssertionError) as error:  # the latter where not all of the samples went in
            raise failure(path, error) from None


class _Whole:
    def __init__(self, file: soundfile.SoundFile) -> None:
        self._file = file

    def write(self, wave_S: Tensor) -> None:
        self._file.write(wave_S.detach().clamp(-1.0, 1.0).float().cpu().numpy())


class WavPipe:
    """A WAV of 16 bits into a binary stream, flushed piece by piece. The header goes out with the first samples; its sizes say `until the end`."""

    def __init__(self, stream: IO[bytes], rate: int) -> None:
        self._stream = stream
        block = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)  # PCM, mono, rate, bytes a second, bytes a sample, bits a sample
        unknown = struct.pack("<I", UNKNOWN)
        self._header = b"RIFF" + unknown + b"WAVEfmt " + struct.pack("<I", len(block)) + block + b"data" + unknown

    def write(self, wave_S: Tensor) -> None:
        samples_S = (wave_S.detach().clamp(-1.0, 1.0).float().cpu() * 32767).round().short()
        if len(samples_S):
            self._stream.write(self._header + samples_S.numpy().astype("<i2").tobytes())
            self._stream.flush()
            self._header = b""
