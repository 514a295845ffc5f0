"""Where training features come from: waveforms decoded and augmented on the fly, or feature shards.

Shapes: T mel frames, M mel bins, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.utterance import Utterance
from melcli.errors import AudioError

if TYPE_CHECKING:
    from melcli.audio.augment import Augment, SpecAugment
    from melcli.data.shards import FeatureShards


BLOCK = 256  # utterances that are read together where no shard says which are


class FeatureSource(Protocol):
    """Utterances and their features. `frames[i]` is what the batch plan counts with; `get` may differ from it by augmentation of speed.

    `block(i)` numbers the shard that an utterance is in; sources that are not in shards have none.
    """

    utterances: Sequence[Utterance]
    frames: Sequence[int]

    def get(self, index: int, generator: torch.Generator | None) -> Tensor: ...


class WaveFeatures:
    """Features from audio files, decoded when they are asked for.

    reads: `mel` gives [T, M] by `spec`; `wave` gives [S, 1] at the spec's rate. augment applies only where a generator is given.
    """

    def __init__(self, utterances: Sequence[Utterance], spec: MelSpec, *, augment: Augment | None = None, reads: str = "mel") -> None:
        self.utterances = utterances
        self.spec = spec
        self.augment = augment
        self.reads = reads
        self.samples = [round(_seconds(u) * spec.rate) for u in utterances]
        self.frames = [max(1, spec.frames(n)) if reads == "mel" else max(1, n) for n in self.samples]

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        return self.features(self.wave(index), generator)

    def wave(self, index: int) -> Tensor:
        """wave_S of an utterance at the spec's rate."""
        from melcli.data.load import load_utterance

        return load_utterance(self.utterances[index], self.spec.rate)

    def features(self, wave_S: Tensor, generator: torch.Generator | None) -> Tensor:
        """What `get` gives of a waveform, augmented where a generator is given."""
        if self.augment is not None and generator is not None:
            wave_S = self.augment.apply(wave_S, self.spec.rate, generator)
        return self.mel(self.spec, wave_S) if self.reads == "mel" else _filled(self.spec, wave_S)[:, None]

    @staticmethod
    def mel(spec: MelSpec, wave_S: Tensor) -> Tensor:
        """mel_TM of a waveform; what is shorter than a window is filled with zeros."""
        from melcli.audio.mel import log_mel

        return log_mel(spec, _filled(spec, wave_S))


def _filled(spec: MelSpec, wave_S: Tensor) -> Tensor:
    short = spec.span - len(wave_S)
    return torch.nn.functional.pad(wave_S, (0, short)) if short > 0 else wave_S


def _seconds(utterance: Utterance) -> float:
    """Seconds of an utterance; 0 for one that cannot be read, which is left out and named when its turn comes."""
    from melcli.data.load import seconds_of

    try:
        return seconds_of(utterance)
    except AudioError:
        return 0.0


class ShardFeatures:
    """Features from a folder that `melcli featurize` wrote. kept: indices of the utterances taken from it, `utterances` their rows."""

    def __init__(self, shards: FeatureShards, kept: Sequence[int], utterances: Sequence[Utterance]) -> None:
        self.shards = shards
        self.kept = kept
        self.utterances = utterances
        self.frames = [shards.frames[i] for i in kept]

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        return self.shards.mel(self.kept[index])

    def block(self, index: int) -> int:
        return self.shards.shard_of(self.kept[index])

    def ahead(self, indices: Iterable[int]) -> None:
        self.shards.ahead(self.kept[i] for i in indices)


class TextFeatures:
    """Utterances of which only the text is read."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = utterances
        self.frames = [0] * len(utterances)

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        raise TypeError("text has no features")


class Joined:
    """Several sources behind one index, with SpecAugment over all of them."""

    def __init__(self, sources: Sequence[FeatureSource], spec_augment: SpecAugment | None = None) -> None:
        self.sources = sources
        self.spec_augment = spec_augment
        self._where = [(s, i) for s, source in enumerate(sources) for i in range(len(source.utterances))]
        self.utterances = [u for source in sources for u in source.utterances]
        self.frames = [n for source in sources for n in source.frames]
        self.said = [n for source in sources for n in getattr(source, "said", [0] * len(source.utterances))]  # where speech is heard as well

    def pair(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """What is heard and what is said after it, of a source that has both; see replies.py."""
        source, at = self._where[index]
        heard, said = self.sources[source].pair(at, generator)
        return self._masked(heard, generator), said

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        source, at = self._where[index]
        return self._masked(self.sources[source].get(at, generator), generator)

    def _masked(self, mel_TM: Tensor, generator: torch.Generator | None) -> Tensor:
        from melcli.audio.augment import spec_augment

        if self.spec_augment is None or generator is None or not mel_TM.is_floating_point():  # text is not masked
            return mel_TM
        return spec_augment(mel_TM.float(), self.spec_augment, generator)

    def blocks(self) -> np.ndarray:
        """A number for each utterance, the same for those that are stored together: of its shard, or of some hundreds that follow each other."""
        numbers: list[int] = []
        for source in self.sources:
            block = getattr(source, "block", lambda i: i // BLOCK)
            first = max(numbers, default=-1) + 1
            numbers += [first + block(i) for i in range(len(source.utterances))]
        return np.asarray(numbers, dtype=np.int64)

    def ahead(self, indices: Iterable[int]) -> None:
        """Say which utterances will soon be wanted, so that what is behind an address can be fetched meanwhile."""
        by_source: dict[int, list[int]] = {}
        for index in indices:
            source, at = self._where[index]
            by_source.setdefault(source, []).append(at)
        for source, found in by_source.items():
            if hasattr(self.sources[source], "ahead"):
                self.sources[source].ahead(found)
