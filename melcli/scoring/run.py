"""A run: what one system heard in one set, with the errors of each utterance. Everything that explains a score starts from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from melcli.data.utterance import Utterance
from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.wer import ErrorCounts


@dataclass(frozen=True)
class Run:
    """The scored utterances of one system in one set.

    rows, counts: one each an utterance that the protocol counts, in order. left_out: how many it does not count. folder: where relative audio paths
    start. utterances: what rows are of, by name, where the set was read. about: what else is known of the system, such as its device, in words.
    """

    system: str
    set_name: str
    rows: Sequence[ResultRow]
    counts: Sequence[ErrorCounts]
    left_out: int = 0
    folder: Path | None = None
    utterances: Mapping[str, Utterance] = field(default_factory=dict)
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
        return total([row.duration for row in self.rows])

    @property
    def wall_seconds(self) -> float | None:
        """Seconds that the utterances took; None where a row does not say."""
        return total([row.time for row in self.rows])


def total(values: Sequence[float | None]) -> float | None:
    """The sum; None where one is not known or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def rtfx(runs: Sequence[Run]) -> float | None:
    """All seconds of audio by all seconds of features, generation and detokenising; loading the model and decoding audio are left out."""
    audio, wall = total([run.seconds for run in runs]), total([run.wall_seconds for run in runs])
    return audio / wall if audio and wall else None


def score_rows(
    protocol: Protocol,
    system: str,
    set_name: str,
    rows: Sequence[ResultRow],
    *,
    folder: Path | None = None,
    utterances: Mapping[str, Utterance] | None = None,
    about: Mapping[str, str] | None = None,
) -> Run:
    """The run that rows make under a protocol."""
    counts = protocol.score_each([row.text for row in rows], [row.pred_text for row in rows])
    kept = [(row, c) for row, c in zip(rows, counts, strict=True) if c is not None]
    left_out = len(rows) - len(kept)
    return Run(system, set_name, [row for row, _ in kept], [c for _, c in kept], left_out, folder, utterances or {}, about or {})
