"""Error rates of parts of a set: by how long the utterances are, how fast they are spoken and how noisy they are."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from melcli.scoring.bootstrap import Interval, blocks, intervals
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run
from melcli.scoring.wer import ErrorCounts

SECONDS = (0, 2, 5, 10, 15, 20, 30, math.inf)
WORDS_PER_SECOND = (0, 1, 1.5, 2, 2.5, 3, 3.5, 4, math.inf)
DECIBELS = (-math.inf, 5, 10, 15, 20, 25, 30, 40, math.inf)


@dataclass(frozen=True, slots=True)
class Bin:
    """The errors of the utterances whose value is at least low and less than high. interval: of the WER, 95 %."""

    low: float
    high: float
    counts: ErrorCounts
    interval: Interval | None

    @property
    def label(self) -> str:
        """Such as "5-10", "< 2" or "30 +"."""
        if self.low in (0, -math.inf):
            return f"< {self.high:g}"
        return f"{self.low:g} +" if self.high == math.inf else f"{self.low:g}-{self.high:g}"


def by_duration(runs: Sequence[Run]) -> list[Bin]:
    """WER by seconds of audio."""
    return by_values(runs, [[row.duration for row in run.rows] for run in runs], SECONDS)


def by_speaking_rate(runs: Sequence[Run]) -> list[Bin]:
    """WER by reference words per second of audio, pauses included."""
    values = [[c.words / row.duration if row.duration else None for row, c in zip(run.rows, run.counts, strict=True)] for run in runs]
    return by_values(runs, values, WORDS_PER_SECOND)


def by_snr(runs: Sequence[Run], decibels: Sequence[Sequence[float | None]]) -> list[Bin]:
    """WER by estimated signal-to-noise ratio in dB. decibels: of each utterance of each run, None where it could not be read."""
    return by_values(runs, decibels, DECIBELS)


def by_values(runs: Sequence[Run], values: Sequence[Sequence[float | None]], edges: Sequence[float]) -> list[Bin]:
    """WER by any value of an utterance: the bins between edges that hold some; none where no value is known."""
    inside: list[list[tuple[ResultRow, ErrorCounts]]] = [[] for _ in pairwise(edges)]
    for run, of_run in zip(runs, values, strict=True):
        for row, counts, value in zip(run.rows, run.counts, of_run, strict=True):
            if value is not None and math.isfinite(value):
                inside[min(bisect_right(edges, max(value, edges[0])), len(inside)) - 1].append((row, counts))
    found = []
    for (low, high), members in zip(pairwise(edges), inside, strict=True):
        if members:
            counts = [c for _, c in members]
            found.append(Bin(low, high, sum(counts, ErrorCounts()), intervals(counts, blocks([row for row, _ in members]))[0]))
    return found
