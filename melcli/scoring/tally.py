"""From result rows to error rates: of each set, and over sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melcli.data.utterance import Utterance
from melcli.scoring import bootstrap
from melcli.scoring.bootstrap import Interval
from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run, rtfx, score_rows

UNNAMED = "transcripts"  # the system of result files that do not say which model made them
COLUMNS = ("model", "set", "WER %", "95 %", "CER %", "sub", "del", "ins", "words", "utterances", "audio s", "RTFx")


@dataclass
class Report:
    """What one model (None: nobody knows which) scored on each set. failures: (utterance, reason) of what could not be scored.

    sets: the utterances of each set with their errors. intervals: 95 % of each set's WER, None where there is too little to draw from.
    """

    protocol: Protocol
    model: str | None
    sets: dict[str, Run] = field(default_factory=dict)
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(
        self,
        name: str,
        rows: Sequence[ResultRow],
        *,
        folder: Path | None = None,
        utterances: Mapping[str, Utterance] | None = None,
        about: Mapping[str, str] | None = None,
    ) -> None:
        """Count the errors of a set, over the rows that the protocol counts. folder, utterances, about: see `Run`."""
        run = score_rows(self.protocol, self.model or UNNAMED, name, rows, folder=folder, utterances=utterances, about=about)
        self.sets[name] = run
        self.intervals[name] = bootstrap.intervals(run.counts, bootstrap.blocks(run.rows))[0]

    def as_dict(self) -> dict[str, Any]:
        """The object of `score -f json`: rates in percent, unknown values null.

        The average WER is the plain mean over sets of their rounded rates, as the leaderboard counts it; the average RTFx is all audio by all time.
        """
        sets = {}
        for name, run in self.sets.items():
            c, between = run.total, self.intervals[name]
            sets[name] = {
                "wer": self.protocol.rounded(c.wer),
                "cer": self.protocol.rounded(c.cer),
                "ins": c.ins,
                "del": c.del_,
                "sub": c.sub,
                "words": c.words,
            }
            sets[name] |= {"utterances": c.utterances, "audio_seconds": _round(run.seconds), "rtfx": _round(rtfx([run]))}
            sets[name]["wer_interval"] = None if between is None else [round(between.low, 2), round(between.high, 2)]
        return self.protocol.stamp() | {"model": self.model, "sets": sets, "average": {"wer": self.average_wer(), "rtfx": self.average_rtfx()}}

    def average_wer(self) -> float | None:
        """The mean over sets, each counting the same; None where a set has no rate."""
        return self.protocol.average([run.total.wer for run in self.sets.values()])

    def average_rtfx(self) -> float | None:
        """All seconds of audio by all seconds that they took."""
        return _round(rtfx(list(self.sets.values())))

    def rows(self) -> list[list[str]]:
        """The rows of the table that COLUMNS heads."""
        found = []
        for name, s in self.as_dict()["sets"].items():
            keys = ("wer", "wer_interval", "cer", "sub", "del", "ins", "words", "utterances", "audio_seconds", "rtfx")
            found.append([self.model or "-", name, *(cell(s[key]) for key in keys)])
        if len(found) > 1:
            found.append([self.model or "-", "average", cell(self.average_wer()), *["-"] * 8, cell(self.average_rtfx())])
        return found


def cell(value: float | str | Sequence[float] | None) -> str:
    """A table's: rates to two places, so that they stand below each other, intervals as low..high, and a dash for what is not known."""
    if isinstance(value, list | tuple):
        return "{:.2f}..{:.2f}".format(*value)
    return "-" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
