"""A run: what one system heard in one set, with the errors of each utterance. Everything that explains a score starts from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.wer import ErrorCounts


@dataclass(frozen=True)
class Run:
    """The scored utterances of one system in one set.

    rows, counts: one each an utterance that the protocol counts, in order. left_out: how many it does not count. folder: where relative audio paths
    start. rtfx: seconds of audio per second of decoding. about: what else is known of the system, such as its device, in words.
    """

    system: str
    set_name: str
    rows: Sequence[ResultRow]
    counts: Sequence[ErrorCounts]
    left_out: int = 0
    folder: Path | None = None
    rtfx: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def total(self) -> ErrorCounts:
        """The errors of all utterances together."""
        return sum(self.counts, ErrorCounts())

    @cached_property
    def keys(self) -> list[tuple[str, int]]:
        """What each utterance is known by: its name, and how many before it in the file have the same name."""
        seen: dict[str, int] = {}
        found = []
        for row in self.rows:
            found.append((row.audio_filepath, seen.get(row.audio_filepath, 0)))
            seen[row.audio_filepath] = found[-1][1] + 1
        return found

    @property
    def seconds(self) -> float | None:
        """Seconds of audio; None where a row does not say."""
        known = [row.duration for row in self.rows if row.duration is not None]
        return sum(known) if len(known) == len(self.rows) else None


def score_rows(
    protocol: Protocol,
    system: str,
    set_name: str,
    rows: Sequence[ResultRow],
    *,
    folder: Path | None = None,
    rtfx: float | None = None,
    about: Mapping[str, str] | None = None,
) -> Run:
    """The run that rows make under a protocol."""
    counts = protocol.score_each([row.text for row in rows], [row.pred_text for row in rows])
    kept = [(row, c) for row, c in zip(rows, counts, strict=True) if c is not None]
    left_out = len(rows) - len(kept)
    return Run(system, set_name, [row for row, _ in kept], [c for _, c in kept], left_out, folder, rtfx, about or {})
