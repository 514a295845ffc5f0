"""Recordings that were cut into pieces: the pieces' transcripts joined, to be scored against the text of the whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from melcli.errors import ManifestError
from melcli.scoring.results import ResultRow, finish_reason


def join_chunks(rows: Sequence[ResultRow], where: str, expected: Sequence[tuple[str, int]] | None = None) -> tuple[list[ResultRow], list[str]]:
    """One row a recording, where the rows are pieces of recordings, and the recordings of which pieces are missing.

    Pieces do not overlap and `chunk_index` counts them from 0; they may come in any order. Durations and times are added up. expected: the
    (recording, index) of every piece of the set, where that is known; otherwise only a gap is seen, not a missing end.
    Rows that are no pieces are kept as they are. Raises ManifestError where pieces of one recording disagree.
    """
    pieces: dict[str, list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.parent_id is not None:
            pieces[row.parent_id].append(row)
    wanted: dict[str, set[int]] = defaultdict(set)
    for parent, index in expected or ():
        wanted[parent].add(index)
    whole: list[ResultRow] = [row for row in rows if row.parent_id is None]
    incomplete = [parent for parent in wanted if parent not in pieces]
    for parent, parts in pieces.items():
        parts.sort(key=lambda row: row.chunk_index or 0)
        indices = [row.chunk_index or 0 for row in parts]
        if len(set(indices)) < len(indices):
            raise ManifestError(f"{where}: two pieces of {parent} have the same chunk_index ({', '.join(map(str, indices))}).")
        if len({row.text for row in parts}) > 1:
            raise ManifestError(f"{where}: the pieces of {parent} have different reference texts; each must have that of the whole recording.")
        if (wanted[parent] - set(indices)) if expected is not None else indices != list(range(len(indices))):
            incomplete.append(parent)
        whole.append(_join(parent, parts))
    return whole, incomplete


def _join(parent: str, parts: Sequence[ResultRow]) -> ResultRow:
    text = " ".join(row.pred_text.strip() for row in parts if row.pred_text.strip())
    duration, time = (_sum([getattr(row, key) for row in parts]) for key in ("duration", "time"))
    reason = finish_reason([row.finish_reason for row in parts])
    return replace(
        parts[0], audio_filepath=parent, duration=duration, time=time, pred_text=text, parent_id=None, chunk_index=None, finish_reason=reason
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
