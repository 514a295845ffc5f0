"""The waveform of an utterance: a file, a stretch of one, several joined with pauses, or speech synthesised on the spot.

Shapes: S samples.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import torch
from torch import Tensor

from melcli.audio import io as audio_io
from melcli.audio.resample import resample
from melcli.data.durations import probe_utterance
from melcli.data.embedded import EMBEDDED, load_bytes
from melcli.data.utterance import MICROPHONE, Utterance
from melcli.errors import AudioError, MelcliError


def load_part(address: str, rate: int, start: float | None = None, end: float | None = None) -> Tensor:
    """wave_S float32 mono at `rate` of one entry of `Utterance.audio`: a path, or an address of ADDRESSES."""
    if address.startswith("synth:"):
        from melcli.data.synth import speak

        return resample(*speak(address), rate)
    if address.startswith(EMBEDDED):
        try:
            return audio_io.load(io.BytesIO(load_bytes(address)), rate, start=start, end=end)
        except MelcliError as error:
            raise AudioError(f"{address}: {error}") from None
    return audio_io.load(address, rate, start=start, end=end)


def load_utterance(utterance: Utterance, rate: int) -> Tensor:
    """wave_S float32 mono at `rate` of an utterance; its parts joined with `gap` seconds of silence between them.

    Raises AudioError with the file's name for what cannot be decoded.
    """
    if len(utterance.audio) == 1:
        return load_part(utterance.audio[0], rate, utterance.start, utterance.end)
    if not utterance.audio:
        raise AudioError(f"{utterance.id}: an utterance without audio")
    silence_S = torch.zeros(round(utterance.gap * rate))
    pieces: list[Tensor] = []
    for address in utterance.audio:
        if pieces and len(silence_S):
            pieces.append(silence_S)
        pieces.append(load_part(address, rate))
    return torch.cat(pieces)


def stream_utterance(utterance: Utterance, rate: int, block_seconds: float = 30.0) -> Iterator[Tensor]:
    """The samples of `load_utterance` in blocks, so that hours of a file need little memory; joins and synthetic speech in one.

    Raises AudioError as it does.
    """
    if utterance.audio == (MICROPHONE,):
        from melcli.audio import microphone

        yield from microphone.blocks(rate)
        return
    address = utterance.audio[0] if len(utterance.audio) == 1 else "synth:"
    if address.startswith(("synth:", *EMBEDDED)):
        yield load_utterance(utterance, rate)
    else:
        yield from audio_io.stream(address, rate, block_seconds, start=utterance.start, end=utterance.end)


def seconds_of(utterance: Utterance) -> float:
    """Seconds of an utterance: what its source says, else what its file's header says, else found by decoding or speaking it.

    Raises AudioError where it cannot be used.
    """
    if utterance.duration is not None:
        return utterance.duration
    seconds = probe_utterance(utterance)
    return seconds if seconds is not None else len(load_utterance(utterance, 16000)) / 16000
