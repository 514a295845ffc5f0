"""Is one system better than another? The paired bootstrap over the same utterances.

Both systems are scored on the same draws, so that what is hard for both does not blur the difference (Bisani and Ney, ICASSP 2004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from melcli.errors import UsageError
from melcli.scoring.bootstrap import DRAWS, Interval, blocks, draw_sums, interval
from melcli.scoring.protocol import Protocol
from melcli.scoring.run import Run
from melcli.scoring.wer import ErrorCounts

SHOWN = 3
CERTAIN = 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """System b against system a. Rates in percent; difference is b's WER minus a's in points, so that below zero b is better.

    interval: 95 % of the difference; None where there is one block only. p_value: how likely a difference at least as far from zero is where there
    is none, two-sided. b_better: the share of draws in which b makes fewer errors, draws that tie counting half. fewer, more: utterances in which b
    makes fewer and more errors than a. unit, blocks: what was drawn, and how many there are.
    """

    a: str
    b: str
    set_name: str
    wer_a: float
    wer_b: float
    difference: float
    interval: Interval | None
    p_value: float
    b_better: float
    utterances: int
    fewer: int
    more: int
    unit: str
    blocks: int

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        if self.p_value >= CERTAIN:
            return f"no difference between {self.a} and {self.b} that could not be chance"
        better, worse = (self.b, self.a) if self.difference < 0 else (self.a, self.b)
        return f"{better} is better than {worse}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data, with the verdict; numbers rounded to 4 places, the interval a pair or None."""
        found = {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()}
        between = None if self.interval is None else [round(self.interval.low, 4), round(self.interval.high, 4)]
        return found | {"interval": between, "verdict": self.verdict}

    def row(self) -> list[str]:
        """One row of a table: both rates, the difference, its interval, p, the share of draws, utterances."""
        between = "-" if self.interval is None else f"{self.interval.low:+.2f}..{self.interval.high:+.2f}"
        rates = [f"{self.wer_a:.2f}", f"{self.wer_b:.2f}", f"{self.difference:+.2f}", between, f"{self.p_value:.4f}", f"{100 * self.b_better:.1f}"]
        return [self.a, self.b, *rates, str(self.utterances)]


def compare(a: Run, b: Run, protocol: Protocol, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """Two runs of the same utterances, in any order. Raises UsageError where they are not the same, or hold no reference words."""
    counts_b = _matched(a, b, protocol)
    table_UK = np.array([(_errors(x), _errors(y), x.words) for x, y in zip(a.counts, counts_b, strict=True)], dtype=float).reshape(-1, 3)
    errors_a, errors_b, words = table_UK.sum(axis=0)
    if not words:
        raise UsageError(f"{a.system} and {b.system}: their references hold no words to compare on.")
    drawn = blocks(a.rows)
    sums_DK = draw_sums(table_UK, drawn, draws, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference_D = np.where(sums_DK[:, 2] > 0, 100 * (sums_DK[:, 1] - sums_DK[:, 0]) / sums_DK[:, 2], np.nan)
    below, above = int((sums_DK[:, 1] < sums_DK[:, 0]).sum()), int((sums_DK[:, 1] > sums_DK[:, 0]).sum())
    ties = draws - below - above
    p_value = min(1.0, 2 * (min(below, above) + ties + 1) / (draws + 1)) if drawn.count > 1 else 1.0
    return Comparison(
        a=a.system,
        b=b.system,
        set_name=a.set_name,
        wer_a=float(100 * (errors_a / words)),
        wer_b=float(100 * (errors_b / words)),
        difference=float(100 * (errors_b - errors_a) / words),
        interval=interval(difference_D) if drawn.count > 1 else None,
        p_value=p_value,
        b_better=(below + ties / 2) / draws,
        utterances=len(a.rows),
        fewer=int((table_UK[:, 1] < table_UK[:, 0]).sum()),
        more=int((table_UK[:, 1] > table_UK[:, 0]).sum()),
        unit=drawn.unit,
        blocks=drawn.count,
    )


def same_utterances(a: Run, b: Run, protocol: Protocol) -> bool:
    """Whether two runs can be compared: they hold the same names with the same references."""
    return set(a.keys) == set(b.keys) and not _differing(a, b, protocol)


def _matched(a: Run, b: Run, protocol: Protocol) -> list[ErrorCounts]:
    """b's counts in the order of a's utterances."""
    at, in_a = {key: position for position, key in enumerate(b.keys)}, set(a.keys)
    only_a = [key[0] for key in a.keys if key not in at]
    only_b = [key[0] for key in b.keys if key not in in_a]
    if only_a or only_b:
        parts = [f"{len(names)} only in {run.system} ({_some(names)})" for run, names in ((a, only_a), (b, only_b)) if names]
        raise UsageError(f"{a.system} and {b.system} do not hold the same utterances: {', '.join(parts)}.")
    if differing := _differing(a, b, protocol):
        raise UsageError(f"{a.system} and {b.system} have other references for {len(differing)} utterances ({_some(differing)}).")
    return [b.counts[at[key]] for key in a.keys]


def _differing(a: Run, b: Run, protocol: Protocol) -> list[str]:
    """Of utterances that are in both, those with another reference."""
    texts = dict(zip(b.keys, (row.text for row in b.rows), strict=True))
    pairs = [(row, texts[key]) for key, row in zip(a.keys, a.rows, strict=True)]
    return [row.audio_filepath for row, text in pairs if row.text != text and protocol.normalise(row.text) != protocol.normalise(text)]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _errors(counts: ErrorCounts) -> int:
    return counts.sub + counts.del_ + counts.ins
