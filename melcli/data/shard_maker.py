"""Making one feature shard out of utterances, and cutting a set of utterances into shards.

What a shard holds depends on its utterances and the options alone: not on the other shards, the number of jobs, or what ran before.

Shapes: S samples, T mel frames, M mel bins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from melcli.audio.mel import log_mel_many
from melcli.audio.mel_spec import MelSpec
from melcli.data.load import load_utterance
from melcli.data.shards import DTYPES, shard_path, write_shard
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, MelcliError

if TYPE_CHECKING:
    from melcli.audio.augment import Augment

SHARD_SECONDS = 2000.0
SHARD_UTTERANCES = 500
FEWEST_SHARDS = 32  # of a small set, so that a few jobs share it evenly to the end
SHORTEST_SHARD_SECONDS = 100.0
TYPICAL_SECONDS = 7.0  # stands in for an unknown duration when shards are cut
BATCH_SECONDS = 60.0  # of audio per call of the mel, a few megabytes


@dataclass(frozen=True)
class Options:
    """What a shard is made with. copies: how often each utterance is stored, each time augmented with a generator of its own."""

    spec: MelSpec
    dtype: str = "float16"
    augment: Augment | None = None
    copies: int = 1
    seed: int = 0
    device: str = "cpu"

    def describe(self) -> dict[str, Any]:
        """What decides the values, as JSON: the device is left out, it must not change what a set is."""
        augment = self.augment.model_dump(mode="json") if self.augment is not None else None
        return {"mel": self.spec.model_dump(mode="json"), "dtype": self.dtype, "augment": augment, "copies": self.copies, "seed": self.seed}


@dataclass(frozen=True)
class Failure:
    """An utterance that could not be used, and why."""

    id: str
    audio: str
    error: str


@dataclass(frozen=True)
class ShardDone:
    """One shard finished, or found finished. utterances counts those in it, without the failed ones."""

    index: int
    utterances: int
    seconds: float
    size: int
    failures: tuple[Failure, ...]
    skipped: bool


def cut(utterances: Sequence[Utterance], copies: int = 1) -> list[list[tuple[int, int]]]:
    """The shards, each a list of (index of the utterance, copy): at most SHARD_SECONDS or SHARD_UTTERANCES, smaller ones for a small set."""
    seconds = [utterance.duration if utterance.duration is not None else TYPICAL_SECONDS for utterance in utterances]
    most = min(SHARD_SECONDS, max(SHORTEST_SHARD_SECONDS, sum(seconds) * copies / FEWEST_SHARDS))
    shards: list[list[tuple[int, int]]] = []
    filled = most
    for copy in range(copies):
        for index, length in enumerate(seconds):
            if filled + length > most or len(shards[-1]) >= SHARD_UTTERANCES:
                shards.append([])
                filled = 0.0
            shards[-1].append((index, copy))
            filled += length
    return shards


def _generator(seed: int, utterance: Utterance, copy: int) -> torch.Generator:
    """Random numbers that depend on the utterance and the copy alone, not on what was done before."""
    named = hashlib.blake2b(f"{seed}\0{utterance.id}\0{copy}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(named, "big") >> 1)


def _waveform(utterance: Utterance, copy: int, options: Options) -> Tensor:
    wave_S = load_utterance(utterance, options.spec.rate)
    if options.augment is not None:
        wave_S = options.augment.apply(wave_S, options.spec.rate, _generator(options.seed, utterance, copy))
    if options.spec.frames(len(wave_S)) < 1:
        length, least = 1000 * len(wave_S) / options.spec.rate, 1000 * options.spec.win_length / options.spec.rate
        raise AudioError(f"{utterance.audio[0]}: {length:.0f} ms of audio, shorter than one window ({least:.0f} ms)")
    return wave_S


def make_shard(folder: Path, index: int, items: Sequence[tuple[Utterance, int]], options: Options, stamp: dict[str, Any]) -> ShardDone:
    """Decode, transform and write one shard. `stamp` goes into its metadata beside the failures. An utterance that fails is left out."""
    spec, rate = options.spec, options.spec.rate
    kept: list[Utterance] = []
    frames: list[int] = []
    failures: list[Failure] = []
    blocks: list[Tensor] = []
    sums_2M = torch.zeros(2, spec.n_mels, dtype=torch.float64)
    waves: list[Tensor] = []

    def flush() -> None:
        if not waves:
            return
        mels = log_mel_many(spec, [wave_S.to(options.device) for wave_S in waves])
        mel_TM = torch.cat(mels).cpu()
        sums_2M[0] += mel_TM.sum(0)  # a batch in float32, batches in float64
        sums_2M[1] += mel_TM.square().sum(0)
        frames.extend(map(len, mels))
        blocks.append(mel_TM.to(DTYPES[options.dtype]))
        waves.clear()

    filled = 0
    for utterance, copy in items:
        try:
            wave_S = _waveform(utterance, copy, options)
        except MelcliError as error:
            failures.append(Failure(utterance.id, utterance.audio[0] if utterance.audio else "", str(error)))
            continue
        row = replace(utterance, duration=len(wave_S) / rate)
        if options.augment is not None:  # at another speed words have other times
            row = replace(row, extra={key: value for key, value in row.extra.items() if key != "words"})
        kept.append(row if options.copies == 1 else replace(row, id=f"{row.id}#{copy}", extra={**row.extra, "copy": copy}))
        waves.append(wave_S)
        filled += len(wave_S)
        if filled >= BATCH_SECONDS * rate:
            flush()
            filled = 0
    flush()
    mel_TM = torch.cat(blocks) if blocks else torch.zeros(0, spec.n_mels, dtype=DTYPES[options.dtype])
    listed = [[failure.id, failure.audio, failure.error] for failure in failures]
    size = write_shard(shard_path(folder, index), mel_TM, frames, kept, sums_2M, {**stamp, "failed": listed})
    return ShardDone(index, len(kept), sum(row.duration or 0.0 for row in kept), size, tuple(failures), skipped=False)
