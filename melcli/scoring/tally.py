"""From result rows to error rates: of each set, and over sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.wer import ErrorCounts


@dataclass(frozen=True)
class SetScore:
    """One set's errors. audio_seconds, wall_seconds: of the utterances that were scored, and spent on them; None where their rows do not say."""

    counts: ErrorCounts
    audio_seconds: float | None
    wall_seconds: float | None = None

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio per second of features, generation and detokenising; loading the model and decoding audio are left out."""
        return self.audio_seconds / self.wall_seconds if self.audio_seconds and self.wall_seconds else None


@dataclass
class Report:
    """What one model (None: nobody knows which) scored on each set. failures: (utterance, reason) of what could not be scored."""

    protocol: str
    model: str | None
    sets: dict[str, SetScore] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, rows: Sequence[ResultRow], protocol: Protocol) -> None:
        """Count the errors and seconds of a set, over the rows that the protocol counts."""
        each = protocol.score_each([row.text for row in rows], [row.pred_text for row in rows])
        scored = [(row, counts) for row, counts in zip(rows, each, strict=True) if counts is not None]
        audio, time = (_sum([getattr(row, key) for row, _ in scored]) for key in ("duration", "time"))
        self.sets[name] = SetScore(sum((counts for _, counts in scored), ErrorCounts()), audio, time)

    def as_dict(self) -> dict[str, Any]:
        """The object of `score -f json`: rates in percent, unknown values null.

        The average WER is the plain mean over sets of their rounded rates, as the leaderboard counts it; the average RTFx is all audio by all time.
        """
        sets = {}
        for name, score in self.sets.items():
            c = score.counts
            sets[name] = {"wer": _round(c.wer), "cer": _round(c.cer), "ins": c.ins, "del": c.del_, "sub": c.sub, "words": c.words}
            sets[name] |= {"utterances": c.utterances, "audio_seconds": _round(score.audio_seconds), "rtfx": _round(score.rtfx)}
        return {"protocol": self.protocol, "model": self.model, "sets": sets, "average": {"wer": self.average_wer(), "rtfx": self.average_rtfx()}}

    def average_wer(self) -> float | None:
        """The mean over sets, each counting the same; None where a set has no rate."""
        rates = [_round(score.counts.wer) for score in self.sets.values()]
        known = [rate for rate in rates if rate is not None]
        return round(sum(known) / len(known), 2) if known and len(known) == len(rates) else None

    def average_rtfx(self) -> float | None:
        """All seconds of audio by all seconds that they took."""
        audio, time = (_sum([getattr(score, key) for score in self.sets.values()]) for key in ("audio_seconds", "wall_seconds"))
        return _round(audio / time) if audio and time else None

    def rows(self) -> list[list[str]]:
        """The rows of the table that COLUMNS heads."""
        found = []
        for name, s in self.as_dict()["sets"].items():
            cells = [s[key] for key in ("wer", "cer", "sub", "del", "ins", "words", "utterances", "audio_seconds", "rtfx")]
            found.append([self.model or "-", name, *("-" if cell is None else str(cell) for cell in cells)])
        if len(found) > 1:
            averages = ["-" if value is None else str(value) for value in (self.average_wer(), self.average_rtfx())]
            found.append([self.model or "-", "average", averages[0], *["-"] * 7, averages[1]])
        return found


COLUMNS = ("model", "set", "WER %", "CER %", "sub", "del", "ins", "words", "utterances", "audio s", "RTFx")


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
