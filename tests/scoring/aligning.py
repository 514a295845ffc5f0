"""Hand-made protocols, rows and runs for the tests of what explains a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kaldialign
import pytest

from melcli.scoring import normalize
from melcli.scoring.protocol import Pair, Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run, score_rows

PLAIN = Protocol("plain", "1", normalize.plain)


def align(self: Protocol, reference: str, hypothesis: str) -> list[Pair]:
    """Stands in for Protocol.align until protocols have their own."""
    pairs = kaldialign.align(self.normalise(reference).split(), self.normalise(hypothesis).split(), "\0")
    return [(None if said == "\0" else said, None if heard == "\0" else heard) for said, heard in pairs]


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protocols that can align."""
    monkeypatch.setattr(Protocol, "align", align)


def row(name: str, text: str, heard: str, **more: Any) -> ResultRow:
    """A row of two seconds."""
    return ResultRow(name, **{"duration": 2.0, "time": 0.1, "text": text, "pred_text": heard} | more)


def run(rows: Sequence[ResultRow], system: str = "a", set_name: str = "dev", **more: Any) -> Run:
    """Rows scored by PLAIN."""
    return score_rows(PLAIN, system, set_name, rows, **more)
