"""The measures of continued speech, told by hand."""

from __future__ import annotations

import pytest

from melcli.scoring.continuation import of_rows, voices
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


def test_voices() -> None:
    def voice(pitch: float | None, voiced: float) -> dict[str, float | None]:
        return {"pitch": pitch, "voiced": voiced, "silence": 0.25, "level": -20.0}

    rows = [
        row("a", voice=voice(100.0, 0.5), prompt_voice=voice(110.0, 0.6), semitones=-1.65, ltas=4.0, semitones_other=3.0, ltas_other=9.0),
        row("b", voice=voice(None, 0.0), prompt_voice=voice(200.0, 0.6), semitones=None, ltas=6.0),
        row("c"),
    ]
    found = voices(rows)
    assert (found["pitch"], found["prompt_pitch"], found["voiced"], found["prompt_voiced"]) == (100.0, 155.0, 25.0, 60.0)
    assert (found["semitones"], found["ltas"], found["ltas_other"], found["level"]) == (1.65, 5.0, 9.0, -20.0)
    assert found["ltas_interval"] == [4.0, 6.0] and found["semitones_interval"] is None
    assert set(voices([row("c")]).values()) == {None}
