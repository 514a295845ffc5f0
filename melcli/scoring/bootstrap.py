"""How sure an error rate is: the bootstrap, which scores a set again and again with its utterances drawn anew.

Each draw takes as many utterances as there are, with replacement (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
evaluation", ICASSP 2004). Utterances of one speaker or one call err together, so where these are known whole blocks are drawn (Liu et al.,
arXiv 1912.09508); drawing single utterances would make the interval too narrow. Memory does not grow with the number of draws.

Shapes: U utterances, G blocks, D draws, K kinds of counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melcli.scoring.results import ResultRow
from melcli.scoring.wer import ErrorCounts

DRAWS = 2000
LEVEL = 0.95
FEWEST_BLOCKS = 10  # an interval over fewer speakers or calls says next to nothing
CELLS = 1 << 20  # of the weights that are held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true rate is in 95 of 100 sets like this one; in percent, or points for a difference."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """What is drawn as a whole. unit: "call", "speaker" or "utterance". index_U: the block of each utterance, from 0. count: blocks there are."""

    unit: str
    index_U: np.ndarray
    count: int


def blocks(rows: Sequence[ResultRow]) -> Blocks:
    """The calls, or else the speakers, where every row names one and there are at least FEWEST_BLOCKS; or else single utterances."""
    for unit, names in (("call", [row.parent_id for row in rows]), ("speaker", [row.speaker for row in rows])):
        if None not in names and len(set(names)) >= FEWEST_BLOCKS:
            known, index_U = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
            return Blocks(unit, index_U, len(known))
    return Blocks("utterance", np.arange(len(rows)), len(rows))


def draw_sums(table_UK: np.ndarray, drawn: Blocks, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """sums_DK: the sum of each column of table_UK in each draw. Columns that belong to one utterance are always drawn together."""
    table_GK = np.zeros((drawn.count, table_UK.shape[1]))
    np.add.at(table_GK, drawn.index_U, table_UK)
    generator = np.random.default_rng(seed)
    size = max(1, CELLS // max(1, drawn.count))
    sums = []
    for first in range(0, draws, size):
        now = min(size, draws - first)
        picked = generator.integers(drawn.count, size=(now, drawn.count)) + drawn.count * np.arange(now)[:, None]
        weights_DG = np.bincount(picked.ravel(), minlength=now * drawn.count).reshape(now, drawn.count)
        sums.append(weights_DG @ table_GK)
    return np.concatenate(sums)


def rates(counts: Sequence[ErrorCounts], drawn: Blocks, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """wer_D and cer_D: both rates in each draw, in percent; NaN where a draw holds no reference words."""
    table_UK = np.array([(c.sub + c.del_ + c.ins, c.words, c.char_errors, c.chars) for c in counts], dtype=float).reshape(-1, 4)
    errors_D, words_D, char_errors_D, chars_D = draw_sums(table_UK, drawn, draws, seed).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return (
            np.where(words_D > 0, 100 * errors_D / words_D, np.nan),
            np.where(chars_D > 0, 100 * char_errors_D / chars_D, np.nan),
        )


def interval(values_D: np.ndarray) -> Interval | None:
    """The middle 95 % of what was drawn; None where a draw had no value."""
    if not len(values_D) or np.isnan(values_D).any():
        return None
    low, high = np.quantile(values_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def intervals(counts: Sequence[ErrorCounts], drawn: Blocks, draws: int = DRAWS, seed: int = 0) -> tuple[Interval | None, Interval | None]:
    """The intervals of WER and CER; None where there are fewer than two blocks to draw from."""
    if drawn.count < 2:
        return None, None
    wer_D, cer_D = rates(counts, drawn, draws, seed)
    return interval(wer_D), interval(cer_D)
