"""What kind of errors a run has: words confused, missed and invented, utterances with invented passages, and the worst utterances side by side.

There is no standard for what a hallucination is in speech recognition (papers judge by hand, or by how far a text is from its reference). Here an
utterance counts as hallucinated where one of three things that need no judgement holds: the reference is empty and the hypothesis is not; LONG_RUN
words or more in a row are insertions; or the hypothesis has more than TOO_LONG times the reference's words, and LONG_RUN more than it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import groupby

from melcli.scoring.protocol import Pair, Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run
from melcli.scoring.wer import ErrorCounts

LONG_RUN = 5  # words
TOO_LONG = 2


@dataclass(frozen=True, slots=True)
class Aligned:
    """One utterance of a run, word by word. position: which of the run's rows it is."""

    position: int
    row: ResultRow
    counts: ErrorCounts
    pairs: Sequence[Pair]

    @property
    def errors(self) -> int:
        """How many words are wrong."""
        return self.counts.sub + self.counts.del_ + self.counts.ins


@dataclass
class Breakdown:
    """Errors by kind.

    substitutions: how often each reference word was replaced by which. deletions, insertions: how often each word was missed or invented.
    hallucinated: utterances that count as such; silent, runs, too_long: how many for which reason (one utterance may have several).
    dropped: utterances with LONG_RUN missed words or more in a row. empty: utterances in which nothing was heard although something is said.
    finish_reasons: why decoding stopped, where known. Those of several runs can be added.
    """

    utterances: int = 0
    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    deletions: Counter[str] = field(default_factory=Counter)
    insertions: Counter[str] = field(default_factory=Counter)
    hallucinated: int = 0
    silent: int = 0
    runs: int = 0
    too_long: int = 0
    dropped: int = 0
    empty: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)

    @property
    def hallucination_rate(self) -> float | None:
        """Hallucinated utterances in percent of all."""
        return 100 * self.hallucinated / self.utterances if self.utterances else None

    def __add__(self, other: Breakdown) -> Breakdown:
        return Breakdown(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


def worst(run: Run, protocol: Protocol, count: int) -> list[Aligned]:
    """The `count` utterances with the most wrong words, of equal ones those with the highest rate; none that are right."""

    def badness(position: int) -> tuple[int, float]:
        c = run.counts[position]
        return c.sub + c.del_ + c.ins, c.wer if c.wer is not None else float("inf")

    order = sorted(range(len(run.rows)), key=badness, reverse=True)[:count]
    return [align(run, protocol, position) for position in order if badness(position)[0]]


def align(run: Run, protocol: Protocol, position: int) -> Aligned:
    """One utterance of a run, word by word."""
    row = run.rows[position]
    return Aligned(position, row, run.counts[position], protocol.align(row.text, row.pred_text))


def breakdown(run: Run, protocol: Protocol) -> Breakdown:
    """The errors of a run by kind. Only utterances with errors are aligned."""
    found = Breakdown(utterances=len(run.rows))
    for position, (row, counts) in enumerate(zip(run.rows, run.counts, strict=True)):
        if row.finish_reason is not None:
            found.finish_reasons[row.finish_reason] += 1
        if counts.sub or counts.del_ or counts.ins:
            _add(found, counts, align(run, protocol, position).pairs)
    return found


def _add(found: Breakdown, counts: ErrorCounts, pairs: Sequence[Pair]) -> None:
    kinds = [kind_of(pair) for pair in pairs]
    for kind, (said, heard) in zip(kinds, pairs, strict=True):
        if kind == "sub":
            found.substitutions[said, heard] += 1
        elif kind == "del":
            found.deletions[said] += 1
        elif kind == "ins":
            found.insertions[heard] += 1
    longest = {kind: 0 for kind in ("ins", "del", "sub", "")}
    for kind, run in groupby(kinds):
        longest[kind] = max(longest[kind], len(list(run)))
    heard_words = counts.words - counts.del_ + counts.ins
    silent, run = counts.words == 0 and heard_words > 0, longest["ins"] >= LONG_RUN
    too_long = counts.words > 0 and heard_words > TOO_LONG * counts.words and heard_words >= counts.words + LONG_RUN
    found.silent, found.runs, found.too_long = found.silent + silent, found.runs + run, found.too_long + too_long
    found.hallucinated += silent or run or too_long
    found.dropped += longest["del"] >= LONG_RUN
    found.empty += counts.words > 0 and heard_words == 0


def kind_of(pair: Pair) -> str:
    """What happened to a word: "sub", "del", "ins", or "" where it was right. A merged compound differs only by its spaces and is right."""
    said, heard = pair
    if said is None:
        return "ins"
    if heard is None:
        return "del"
    return "" if said.replace(" ", "") == heard.replace(" ", "") else "sub"
