"""The batch plan: which utterances stand in which row of which batch, as a pure function of what is trained on.

Utterances are drawn, laid end to end in rows of bounded length (first fit, longest first, within pools of a few batches, so that padding
stays small and order stays random) and rows of like length are joined to batches. Nothing here depends on what was done before: the plan
of any epoch can be computed alone, so resuming is an index and every rank gets the same number of batches.

Where utterances lie in shards that have to be fetched, shards are shuffled first, then the utterances of a window of them: a batch touches few
shards, and each shard is wanted during one stretch of the epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

POOL_BATCHES = 16
WINDOW_SHARDS = 16  # shuffled together where shards are shuffled

Batch = tuple[tuple[int, ...], ...]  # rows of utterance indices


def balanced(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Indices in at most so many rows of like length: each, longest first, joins the row that is shortest so far."""
    filled: list[list[int]] = [[] for _ in range(rows)]
    used = [0] * rows
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = used.index(min(used))
        filled[row].append(index)
        used[row] += lengths[index]
    return [row for row in filled if row]


class BatchPlan:
    """lengths: positions of each utterance. repeats: how often each is drawn an epoch; a fraction is a chance, drawn anew each epoch.

    early: which utterances the first `early_epochs` epochs hold, for a curriculum that begins with short ones. world_size: batches of one
    optimiser step; an epoch has a multiple of it. shards: the number of the shard of each utterance, to shuffle shards and windows of them.
    added: positions that utterances take more in an epoch, where it brings each something of its own.

    `batches(epoch)` lists the epoch's batches; `locate(step)` finds batch number `step` counted from the start of training.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        fingerprint: str,
        seed: int = 0,
        world_size: int = 1,
        tokens_per_batch: int = 8192,
        row_tokens: int = 512,
        repeats: Sequence[float] | None = None,
        early: Sequence[bool] | None = None,
        early_epochs: int = 0,
        shards: Sequence[int] | None = None,
        added: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.repeats = np.ones(len(self.lengths)) if repeats is None else np.asarray(repeats, dtype=np.float64)
        self.early = None if early is None else np.asarray(early, dtype=bool)
        self.early_epochs = early_epochs
        self.shards = None if shards is None else np.asarray(shards, dtype=np.int64)
        self.added = added
        self.row_tokens = row_tokens
        self.tokens_per_batch = max(tokens_per_batch, row_tokens)
        self.world_size = world_size
        key = hashlib.sha256(f"{fingerprint}/{world_size}/{self.tokens_per_batch}/{row_tokens}".encode()).digest()
        self._entropy = [seed, int.from_bytes(key[:8], "little")]
        self._planned: dict[int, list[Batch]] = {}
        self._longer: dict[int, np.ndarray] = {}
        self._counts: list[int] = []

    def lengths_of(self, epoch: int) -> np.ndarray:
        """Positions of each utterance in an epoch. Those of the last two are kept."""
        if self.added is None:
            return self.lengths
        if epoch not in self._longer:
            self._longer = dict(list(self._longer.items())[-1:]) | {epoch: self.lengths + self.added(epoch)}
        return self._longer[epoch]

    def batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch. The last two asked for are kept."""
        if epoch not in self._planned:
            self._planned = dict(list(self._planned.items())[-1:]) | {epoch: self._plan(epoch)}
        return self._planned[epoch]

    def _plan(self, epoch: int) -> list[Batch]:
        rng, lengths = np.random.default_rng([*self._entropy, epoch]), self.lengths_of(epoch)
        whole = np.floor(self.repeats).astype(np.int64)
        times = whole + (rng.random(len(self.lengths)) < self.repeats - whole)
        if self.early is not None and epoch < self.early_epochs:
            times *= self.early
        drawn = np.repeat(np.arange(len(self.lengths)), times)
        batches: list[Batch] = []
        for draws in self._windows(rng.permutation(drawn), rng):
            batches += self._shuffled(draws, lengths, rng)
        if not batches:
            return []
        short = -len(batches) % self.world_size
        return batches + [batches[i % len(batches)] for i in range(short)]

    def _windows(self, draws: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """All draws at once; or those of a window of shuffled shards after those of another, in the order given. A shard that is drawn from
        several times has so many places in the order."""
        if self.shards is None:
            return [draws]
        by_index = np.argsort(draws, kind="stable")
        ordered = draws[by_index]
        firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
        times = np.empty(len(draws), dtype=np.int64)  # which of its utterance's draws each is
        times[by_index] = np.arange(len(draws)) - np.repeat(firsts, np.diff(firsts, append=len(draws)))
        _, place = np.unique(self.shards[draws] * (times.max(initial=0) + 1) + times, return_inverse=True)
        window = rng.permutation(int(place.max(initial=-1)) + 1)[place] // WINDOW_SHARDS
        by_window = np.argsort(window, kind="stable")
        return np.split(draws[by_window], np.flatnonzero(np.diff(window[by_window])) + 1)

    def _shuffled(self, draws: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> list[Batch]:
        """Draws in batches, in random order."""
        pool_of = np.cumsum(lengths[draws]) // (POOL_BATCHES * self.tokens_per_batch)
        batches: list[Batch] = []
        for pool in np.split(draws, np.flatnonzero(np.diff(pool_of)) + 1):
            batches += self._group(self._rows(pool, lengths))
        return [batches[i] for i in rng.permutation(len(batches))]

    def _rows(self, pool: np.ndarray, lengths: np.ndarray) -> list[tuple[int, list[int]]]:
        """First fit, longest first: (positions used, utterances) of each row."""
        order = pool[np.argsort(-lengths[pool], kind="stable")]
        free = np.zeros(len(order), dtype=np.int64)
        rows: list[list[int]] = []
        for index in order:
            need = int(lengths[index])
            fits = np.flatnonzero(free[: len(rows)] >= need)
            if len(fits):
                row = int(fits[0])
                rows[row].append(int(index))
            else:
                row = len(rows)
                rows.append([int(index)])
                free[row] = max(self.row_tokens, need)
            free[row] -= need
        return [(int(lengths[row].sum()), row) for row in rows]

    def _group(self, rows: list[tuple[int, list[int]]]) -> list[Batch]:
        """Rows of like length joined to batches within the token budget."""
        rows = sorted(rows, key=lambda row: -row[0])
        batches: list[Batch] = []
        start = 0
        while start < len(rows):
            count = max(1, self.tokens_per_batch // max(rows[start][0], 1))
            batches.append(tuple(tuple(row) for _, row in rows[start : start + count]))
            start += count
        return batches

    def locate(self, step: int) -> tuple[int, Batch]:
        """The epoch that batch number `step` of the whole training falls into, and the batch."""
        epoch = 0
        while True:
            if epoch == len(self._counts):
                self._counts.append(len(self.batches(epoch)))
                if not self._counts[-1] and epoch > 1000:
                    raise ValueError("the plan holds no utterances")
            if step < self._counts[epoch]:
                return epoch, self.batches(epoch)[step]
            step -= self._counts[epoch]
            epoch += 1

    def steps(self, epochs: float) -> int:
        """Batches in so many epochs."""
        whole = sum(len(self.batches(epoch)) for epoch in range(int(epochs)))
        rest = epochs - int(epochs)
        return whole + (round(rest * len(self.batches(int(epochs)))) if rest else 0)

    def positions(self, batches: int) -> int:
        """Positions of utterances, padding left out, in the first so many batches of the training."""
        found = (self.locate(number) for number in range(batches))
        return sum(int(self.lengths_of(epoch)[list(row)].sum()) for epoch, batch in found for row in batch)

    def largest(self, epoch: int = 0) -> Batch:
        """The batch with the most positions after padding, to try memory with."""
        lengths = self.lengths_of(epoch)
        return max(self.batches(epoch), key=lambda batch: len(batch) * max(lengths[list(row)].sum() for row in batch))

    def padding(self, epoch: int = 0) -> float:
        """Share of positions that are padding."""
        used, total, lengths = 0, 0, self.lengths_of(epoch)
        for batch in self.batches(epoch):
            widths = [int(lengths[list(row)].sum()) for row in batch]
            used += sum(widths)
            total += len(batch) * max(widths)
        return 1 - used / max(total, 1)
