"""Reading audio of any format, rate and channel count as mono float32, whole or block by block, and writing it.

Shapes: S samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from melcli.audio.decode import END_SLACK_SECONDS, AudioInfo, Decoder, Source, name_of, open_audio, probe
from melcli.audio.resample import Resampler
from melcli.errors import AudioError, WriteError
from melcli.files import replacing

__all__ = ["AudioInfo", "load", "probe", "save", "stream"]

LOUDEST = 1e6  # of a sample: integers kept as floats reach 32768, and squares of much larger ones are not numbers any more

WRITTEN = {  # suffix: libsndfile's container and coding
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def load(source: Source, rate: int, *, start: float | None = None, end: float | None = None) -> Tensor:
    """wave_S: float32 mono at `rate` Hz, of the seconds from `start` to `end`; only these are decoded where the format can seek.

    source: a path, or an open binary file such as standard input. Channels are averaged.
    Raises AudioError, one line with the name, where it is missing, a directory, empty, unreadable, truncated, not audio, has no samples or
    has NaN or infinite samples, or where start and end are not inside it.
    """
    with open_audio(source) as decoder:
        resampler = Resampler(decoder.rate, rate)
        parts = [resampler.push(wave_S) for wave_S in _mono(decoder, name_of(source), start, end)]
        parts.append(resampler.finish())
    return torch.cat(parts) if len(parts) > 2 or len(parts[1]) else parts[0]


def stream(source: Source, rate: int, block_seconds: float = 30.0, *, start: float | None = None, end: float | None = None) -> Iterator[Tensor]:
    """The samples of `load`, in blocks of `block_seconds` (the last one shorter), for files too long to hold. Raises AudioError as it does."""
    size = max(1, round(block_seconds * rate))
    with open_audio(source) as decoder:
        resampler = Resampler(decoder.rate, rate)
        held: list[Tensor] = []
        count = 0
        for wave_S in _resampled(_mono(decoder, name_of(source), start, end), resampler):
            held.append(wave_S)
            count += len(wave_S)
            if count >= size:
                *blocks, rest_S = torch.cat(held).split(size)
                # the last piece may be whole, but is then a block like the others once more samples come
                yield from blocks
                held, count = [rest_S], len(rest_S)
        if count:
            yield from torch.cat(held).split(size)


def _resampled(waves: Iterator[Tensor], resampler: Resampler) -> Iterator[Tensor]:
    for wave_S in waves:
        yield resampler.push(wave_S)
    yield resampler.finish()


def _mono(decoder: Decoder, name: str, start: float | None, end: float | None) -> Iterator[Tensor]:
    """The decoder's blocks between two times as mono tensors at the file's rate, with every check on the samples."""
    rate, frames = decoder.rate, decoder.frames
    if frames == 0:
        raise AudioError(f"{name}: holds no samples")
    first, last = round((start or 0.0) * rate), None if end is None else round(end * rate)
    if first < 0 or (last is not None and last <= first):
        raise AudioError(f"{name}: start {start or 0:g} s and end {'open' if end is None else f'{end:g} s'} are not 0 <= start < end")
    if frames is not None and (first >= frames or (last is not None and last > frames + END_SLACK_SECONDS * rate)):
        asked = f"start {start:g} s" if first >= frames else f"end {end:g} s"
        raise AudioError(f"{name}: {asked} is after its end at {frames / rate:.2f} s")
    weights = np.full(decoder.channels, 1.0 / decoder.channels, dtype=np.float32)
    empty = True
    for block in decoder.blocks(first, last):
        wave_S = torch.from_numpy(block[:, 0] if block.shape[1] == 1 else block @ weights)
        low, high = map(float, torch.aminmax(wave_S)) if len(wave_S) else (0.0, 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise AudioError(f"{name}: holds NaN or infinite samples")
        if max(-low, high) > LOUDEST:
            raise AudioError(f"{name}: damaged, or not audio: holds samples of {max(-low, high):.0e}, where full scale is 1")
        empty = False
        yield wave_S
    if empty:
        raise AudioError(f"{name}: holds no samples" + (f" after {start:g} s" if start else ""))


def save(path: str | os.PathLike[str], wave_S: Tensor, rate: int) -> None:
    """Writes mono audio in the format of the suffix (wav: 16 bit), under a temporary name first so that no half file is ever seen.

    Samples outside [-1, 1] are clipped. Raises AudioError where the samples are not finite or the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in WRITTEN:
        raise AudioError(f"{path}: cannot write '{path.suffix}'; valid are {', '.join('.' + name for name in WRITTEN)}")
    wave_S = wave_S.detach().to("cpu", torch.float32).reshape(-1)
    if not math.isfinite(float(wave_S.sum())):
        raise AudioError(f"{path}: not written: NaN or infinite samples")
    try:
        with replacing(path) as temporary:
            soundfile.write(temporary, wave_S.clamp(-1.0, 1.0).numpy(), rate, format=WRITTEN[kind][0], subtype=WRITTEN[kind][1])
    except (WriteError, soundfile.LibsndfileError, AssertionError) as error:  # the last where not all of the samples went in
        said = str(error) if isinstance(error, WriteError) else f"{path}: cannot be written: {error or 'the disk is full'}"
        raise AudioError(said) from None
