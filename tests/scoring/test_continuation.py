"""The measures of continued speech, told by hand."""

from __future__ import annotations

import pytest

from melcli.scoring.continuation import of_rows
from melcli.scoring.results import ResultRow


def row(heard: str, **reply: object) -> ResultRow:
    return ResultRow("a", 2.0, 0.1, "what was written", heard, reply=reply)


def test_a_set() -> None:
    rows = [
        row("two words", sim_prompt=0.9, seconds=1.0, stopped="stop"),
        row("", seconds=0.0, stopped="silence"),
        row("three more words", sim_prompt=0.5, seconds=3.0, stopped="length"),
    ]
    found = of_rows(rows, [(6.0, 3), (0.0, 0), (24.0, 7)])
    assert found["log_perplexity"] == 3.0 and found["per_word"] == 6.0 and found["sim_prompt"] == pytest.approx(0.7)
    assert (found["continuations"], found["silent"], found["loops"], found["seconds"]) == (3, 1, 2, 1.0)
    low, high = found["sim_prompt_interval"]
    assert low == 0.5 and high == 0.9


def test_what_nobody_measured_is_null() -> None:
    found = of_rows([row("two words"), row("more")])
    assert found["log_perplexity"] is found["log_perplexity_interval"] is found["sim_prompt"] is found["seconds"] is None
    assert of_rows([], [])["continuations"] == 0
