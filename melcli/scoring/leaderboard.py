"""The leaderboard's table as CSV: a line a model, in the order and with the headings of the public one, as far as scoring knows the values."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from melcli.scoring.sets import SETS, leaderboard_of
from melcli.scoring.tally import Report


def to_csv(reports: Sequence[Report]) -> str:
    """Heading and one line a report: model, average WER, RTFx, and the WER of each set.

    Where all sets are those of one leaderboard its columns are written, empty where a set was not scored; the average is then empty too, since
    one over other sets would be another number. For other sets the columns are theirs.
    """
    names = list(dict.fromkeys(name for report in reports for name in report.sets))
    board = leaderboard_of(names)
    members = list(board.members) if board else names
    headings = [_heading(name) if board else f"{name} WER" for name in members]
    lines: list[Sequence[object]] = [["model", board.average if board else "avg", "RTFx", *headings]]
    for report in reports:
        sets = report.as_dict()["sets"]
        rates = [sets[name]["wer"] if name in sets else None for name in members]
        average = None if None in rates else report.average_wer()
        lines.append([report.model or "", *("" if cell is None else cell for cell in (average, report.average_rtfx(), *rates))])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _heading(name: str) -> str:
    return getattr(SETS[name.replace(".", "_")], "column", None) or f"{name} WER"
