"""Audio files to blocks of mono samples at the file's own rate.

libsndfile (wav, flac, ogg, opus, mp3, aiff, ...) is asked first; FFmpeg, through PyAV, reads what it does not know (m4a, mp4, webm, ...).
Whatever a header claims, memory is used only for samples that were really there. Every fault is an AudioError of one line with the name.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, Self

import numpy as np
import soundfile

from melcli.errors import AudioError

Source = str | os.PathLike[str] | BinaryIO

MOST_SEEK = 1 << 62  # microseconds: more is no place in a file, and no number to FFmpeg
BLOCK_VALUES = 1 << 20  # samples times channels that are decoded at once
END_SLACK_SECONDS = 0.5  # an utterance may end this much after its file: manifests round, encoders cut
RATES = (100, 10_000_000)  # samples a second that there are
SIZE_SLACK_BYTES = 1024  # by which a wav's data may be shorter than its header says: some programs count the header in
KNOWN = "wav, flac, ogg, opus, mp3, m4a, mp4, webm and what else libsndfile and FFmpeg read"


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says. rate in Hz, duration in seconds (None where only decoding would tell)."""

    rate: int
    channels: int
    duration: float | None


class Decoder(Protocol):
    """An opened audio file. rate in Hz; frames: samples a channel as the header says, or None where it does not say."""

    rate: int
    channels: int
    frames: int | None

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        """float32 [n, channels] from sample `first` up to, not including, `last`."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def name_of(source: Source) -> str:
    """What a source is called in messages."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "<stream>"


def open_audio(source: Source) -> Decoder:
    """A decoder of a path or of an open binary file. Raises AudioError for what is missing, empty, not readable or not audio."""
    name = name_of(source)
    file = _seekable(source, name)
    try:
        return _usual(_SoundFile(file, name), name)
    except soundfile.LibsndfileError:
        pass
    head = _head(file, name)
    if _is_text(head):
        raise AudioError(f"{name}: is text, not audio")
    return _usual(_FFmpeg(file, name), name)


def _usual(decoder: Decoder, name: str) -> Decoder:
    """The decoder, unless no sound is sampled so often or so seldom."""
    if not RATES[0] <= decoder.rate <= RATES[1]:
        decoder.close()
        raise AudioError(f"{name}: damaged, or not audio: claims {decoder.rate:,} samples a second")
    return decoder


def probe(source: Source) -> AudioInfo:
    """The rate, channels and duration of an audio file, without decoding it and without torch. Raises AudioError as `open_audio` does."""
    with open_audio(source) as decoder:
        if decoder.frames == 0:
            raise AudioError(f"{name_of(source)}: holds no samples")
        return AudioInfo(decoder.rate, decoder.channels, None if decoder.frames is None else decoder.frames / decoder.rate)


def _seekable(source: Source, name: str) -> str | BinaryIO:
    """A path of a regular file, or a file object one can seek in: pipes are read to their end first."""
    if isinstance(source, str | os.PathLike):
        try:
            name.encode()
        except UnicodeEncodeError:  # neither a decoder nor a result file takes it
            raise AudioError(f"{name}: its name is not UTF-8; rename the file") from None
        try:
            info = os.stat(source)
            if stat.S_ISDIR(info.st_mode):
                raise AudioError(f"{name}: is a directory, not an audio file")
            if stat.S_ISREG(info.st_mode):
                if info.st_size == 0:
                    raise AudioError(f"{name}: the file is empty")
                return os.fspath(source)
            if not stat.S_ISFIFO(info.st_mode):
                raise AudioError(f"{name}: is a device or socket, not an audio file")
            data = Path(source).read_bytes()
        except FileNotFoundError:
            raise AudioError(f"{name}: no such file") from None
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise _unreadable(name, error) from None
    else:
        try:
            if source.seekable():
                start = source.tell()
                if source.seek(0, io.SEEK_END) <= start:
                    raise AudioError(f"{name}: is empty")
                source.seek(start)
                if start == 0:
                    return source
            data = source.read()
        except OSError as error:
            raise _unreadable(name, error) from None
    if not data:
        raise AudioError(f"{name}: is empty")
    return io.BytesIO(data)


def _unreadable(name: str, error: Exception) -> AudioError:
    return AudioError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}")


def _head(file: str | BinaryIO, name: str, count: int = 1024) -> bytes:
    """The first bytes, read by ourselves because decoders do not say why they could not."""
    try:
        if isinstance(file, str):
            with open(file, "rb") as opened:
                return opened.read(count)
        file.seek(0)
        head = file.read(count)
        file.seek(0)
        return head
    except OSError as error:
        raise _unreadable(name, error) from None


def _tail(file: str | BinaryIO, name: str, count: int) -> bytes:
    try:
        if isinstance(file, str):
            with open(file, "rb") as opened:
                opened.seek(max(0, os.fstat(opened.fileno()).st_size - count))
                return opened.read()
        here = file.tell()
        file.seek(max(0, file.seek(0, io.SEEK_END) - count))
        tail = file.read()
        file.seek(here)
        return tail
    except OSError as error:
        raise _unreadable(name, error) from None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # anything else than a character cut at the end
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character.isspace() for character in text)


def _truncated(name: str, promised: float | None, there: float) -> AudioError:
    if promised is None:
        return AudioError(f"{name}: truncated or damaged: decoding stops after {there:.2f} s")
    return AudioError(f"{name}: truncated: its header promises {promised:.2f} s, {there:.2f} s are there")


class _Sound(soundfile.SoundFile):
    """A file that is read forward. soundfile seeks to where it already is after each read, which costs time and, in an mp3, samples."""

    def seekable(self) -> bool:
        return False


class _SoundFile:
    """libsndfile. Raises soundfile.LibsndfileError where the file is none of its formats."""

    def __init__(self, file: str | BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.sound = _Sound(file)
        self.rate, self.channels, self.frames = self.sound.samplerate, self.sound.channels, self.sound.frames
        try:
            self._check_length()
        except AudioError:
            self.sound.close()
            raise

    def _check_length(self) -> None:
        """libsndfile takes a cut wav or ogg for a shorter one; their own bookkeeping tells."""
        if self.sound.format in ("WAV", "WAVEX", "RF64", "W64", "AIFF"):
            # the parser's log; a size with the highest bit set, or none, is how streams say that they do not know
            said = re.search(r"^(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", self.sound.extra_info, re.MULTILINE)
            if said and 0 < int(said[2]) < int(said[1]) - SIZE_SLACK_BYTES and int(said[1]) < 0x7FFFF000 and self.frames > 0:
                there = self.frames / self.rate
                raise _truncated(self.name, there * int(said[1]) / int(said[2]), there)
        elif self.sound.format == "OGG":
            tail = _tail(self.file, self.name, 65307)  # the longest page there can be
            page = tail.rfind(b"OggS")
            if page >= 0 and (len(tail) < page + 27 or len(tail) < page + 27 + tail[page + 26] + sum(tail[page + 27 : page + 27 + tail[page + 26]])):
                raise AudioError(f"{self.name}: truncated: it ends inside an Ogg page, after {self.frames / self.rate:.2f} s")

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        end = self.frames if last is None else min(last, self.frames)
        # the first frames of an mp3 after a jump lack what earlier ones kept for them
        position = max(0, first - self.rate // 2) if self.sound.format == "MP3" else first
        try:
            if position:
                self.sound.seek(position)
            while position < end:
                block = self.sound.read(min(end - position, max(1, BLOCK_VALUES // self.channels)), dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                skipped = max(0, first - position)
                position += len(block)
                if skipped < len(block):
                    yield block[skipped:]
        except soundfile.LibsndfileError:
            raise _truncated(self.name, None, position / self.rate) from None
        missing = end - position
        if missing > 0 and (self.sound.format != "MP3" or self._promised(missing)):
            raise _truncated(self.name, self.frames / self.rate, position / self.rate)

    def _promised(self, missing: int) -> bool:
        """Whether an mp3 states its length: for one that does not, it is a guess from the bit rate of the first frame."""
        head = _head(self.file, self.name, 1 << 20)
        return missing > max(0.02 * self.frames, 0.2 * self.rate) and any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))

    def close(self) -> None:
        self.sound.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _FFmpeg:
    """The first audio stream of anything that FFmpeg reads. A seek is as exact as the container's clock: a millisecond in webm."""

    def __init__(self, file: str | BinaryIO, name: str) -> None:
        import av

        self.name = name
        self.error = av.error.FFmpegError
        # opened here and not by FFmpeg, which has no protocol then to follow a playlist to other files or addresses with
        self.opened = open(file, "rb") if isinstance(file, str) else None
        try:
            self.container = av.open(self.opened or file, mode="r", metadata_errors="ignore", options={"protocol_whitelist": "none"})
        except (self.error, OSError, ValueError):
            self._close_file()
            raise AudioError(f"{name}: cannot be decoded: truncated, damaged, or not audio ({KNOWN})") from None
        found = self.container.streams.audio[0] if self.container.streams.audio else None
        if not getattr(found, "rate", None) or not getattr(found, "channels", None):  # neither, where there is no decoder for it
            self.close()
            raise AudioError(f"{name}: holds no audio that can be decoded")
        self.stream = found
        self.stream.thread_type = "NONE"
        self.rate, self.channels = self.stream.rate, self.stream.channels
        seconds = None
        if self.stream.duration is not None and self.stream.time_base is not None:
            seconds = float(self.stream.duration * self.stream.time_base)
        elif self.container.duration is not None:
            seconds = self.container.duration / 1_000_000
        self.frames = round(seconds * self.rate) if seconds is not None else None

    def blocks(self, first: int, last: int | None) -> Iterator[np.ndarray]:
        import av

        planar = av.AudioResampler(format="fltp")
        position: int | None = None
        # where the first sample is, for recordings cut out of broadcasts; before zero is only what the codec drops
        origin = round(max(0.0, float((self.stream.start_time or 0) * (self.stream.time_base or 0))) * self.rate)
        try:
            if first:
                # half a second early: codecs need to run in before what they give is right
                self.container.seek(min(MOST_SEEK, int(max(0.0, (first + origin) / self.rate - 0.5) * 1_000_000)), backward=True)
            for frame in self.container.decode(self.stream):
                if position is None:
                    position = round(frame.time * self.rate) - origin if first and frame.time is not None else 0
                for part in planar.resample(frame):
                    block = part.to_ndarray().T
                    start, position = position, position + len(block)
                    block = block[max(0, first - start) : None if last is None else max(0, last - start)]
                    if len(block):
                        yield block
                if last is not None and position >= last:
                    return
        except (self.error, OSError):
            raise _truncated(self.name, None, (position or 0) / self.rate) from None
        if self.frames is not None and self.frames - (position or 0) > max(0.05 * self.frames, 0.5 * self.rate):
            raise _truncated(self.name, self.frames / self.rate, (position or 0) / self.rate)

    def close(self) -> None:
        self.container.close()
        self._close_file()

    def _close_file(self) -> None:
        if self.opened is not None:
            self.opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
