"""Pairs of speech and text for the training of a unified encoder. Features are kept in memory as float16: ten hours of 80 bins are 0.6 GB.

Which pairs a step has is a pure function of the utterances, the seed and the step, so resuming is an index.
Shapes: T frames or positions of an utterance, M mel bins (or states' width).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from melcli import console
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ConfigError
from melcli.scoring import normalize
from melcli.steps_recipe import StepsSource
from melcli.training.setup import locate
from melcli.unified_recipe import UnifiedData

TRIES = 20  # steps in a row without two readable recordings, before a training gives up


@dataclass(frozen=True, slots=True)
class Pairs:
    """A batch: features [T, M] and text of each pair."""

    features: list[Tensor]
    texts: list[str]

    @property
    def same_BB(self) -> Tensor:
        """Where two pairs have the same text."""
        kinds = {text: i for i, text in enumerate(dict.fromkeys(self.texts))}
        of_B = torch.tensor([kinds[text] for text in self.texts])
        return of_B[:, None] == of_B


class PairSource:
    """Pairs drawn as often as their source's repeat says. read: features of an utterance's waveform, asked for once.

    A batch is a run of `size` neighbours by length out of `alike` x `size` drawn.
    """

    def __init__(self, utterances: Sequence[Utterance], repeats: Sequence[float], read: Callable[[Utterance], Tensor], alike: int, seed: int) -> None:
        self.utterances = utterances
        self.weights = torch.tensor(repeats, dtype=torch.float64)
        self.read, self.alike, self.seed = read, alike, seed
        self.kept: dict[int, Tensor | None] = {}

    def batch(self, step: int, size: int) -> Pairs:
        """The pairs of a step. Raises ConfigError where none can be read."""
        for following in range(TRIES):
            generator = torch.Generator().manual_seed((self.seed << 32) + step + (following << 24))
            drawn = torch.multinomial(self.weights, min(self.alike * size, len(self.weights)), generator=generator).tolist()
            drawn.sort(key=lambda i: (self.utterances[i].duration or 0.0, i))
            first = int(torch.randint(max(1, len(drawn) - size + 1), (), generator=generator))
            found = [(feature, self.utterances[i].text or "") for i in drawn[first : first + size] if (feature := self.features(i)) is not None]
            if len(found) > 1:
                return Pairs([feature.float() for feature, _ in found], [text for _, text in found])
        raise ConfigError(f"data.train: {TRIES} batches in a row held no two recordings that can be read")

    def features(self, index: int) -> Tensor | None:
        """What `read` gives of an utterance; None of one that cannot be read, which is said once."""
        if index not in self.kept:
            try:
                self.kept[index] = self.read(self.utterances[index]).half()
            except AudioError as error:
                console.warn(f"left out of training: {error}")
                self.kept[index] = None
        return self.kept[index]


def read_pairs(
    entries: Sequence[StepsSource], data: UnifiedData, offline: bool, limit: int | None = None
) -> tuple[list[Utterance], list[float], dict[str, int]]:
    """Utterances with their normalised text, how often each is drawn, and how many were left out for which reason. limit: so many, spread evenly."""
    clean = normalize.get(data.text)
    utterances: list[Utterance] = []
    repeats: list[float] = []
    left_out: dict[str, int] = {}
    for entry in entries:
        kept = []
        for u in read_source(locate(entry.source, Path(data.root)), root=Path(data.root), offline=offline):
            text, seconds = clean(u.text or ""), u.duration or 0.0
            reason = (
                "without text" if not text else "shorter than data.min_seconds" if u.duration is not None and seconds < data.min_seconds else None
            )
            reason = reason or (f"longer than data.max_seconds {data.max_seconds:g}" if seconds > data.max_seconds else None)
            if reason:
                left_out[reason] = left_out.get(reason, 0) + 1
            else:
                kept.append(replace(u, text=text))
        if limit is not None:
            kept = kept[:: max(1, len(kept) // limit)][:limit]
        utterances += kept
        repeats += [entry.repeat] * len(kept)
    if len(utterances) < 2:
        raise ConfigError("data: fewer than two pairs of speech and text; see data.min_seconds and data.max_seconds")
    return utterances, repeats, left_out


def waves_of(utterances: Sequence[Utterance], rate: int) -> list[tuple[Utterance, Tensor]]:
    """Each utterance with its waveform, but those that cannot be read, which are named."""
    found = []
    for u in utterances:
        try:
            found.append((u, load_utterance(u, rate)))
        except AudioError as error:
            console.warn(f"left out of the evaluation: {error}")
    return found
