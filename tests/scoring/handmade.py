"""Hand-made rows and runs for the tests of what explains a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from melcli.scoring.protocol import PLAIN
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run, score_rows

__all__ = ["PLAIN", "row", "run"]


def row(name: str, text: str, heard: str, **more: Any) -> ResultRow:
    """A row of two seconds."""
    return ResultRow(name, **{"duration": 2.0, "time": 0.1, "text": text, "pred_text": heard} | more)


def run(rows: Sequence[ResultRow], system: str = "a", set_name: str = "dev", **more: Any) -> Run:
    """Rows scored by PLAIN."""
    return score_rows(PLAIN, system, set_name, rows, **more)
