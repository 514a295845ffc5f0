"""Silences, lengths and what went wrong, and the summary of a set."""

from __future__ import annotations

import pytest
import torch

from melcli.scoring import protocol
from melcli.scoring.protocol import PLAIN
from melcli.scoring.results import ResultRow, read, to_line
from melcli.scoring.tally import Report
from melcli.scoring.tts import summary
from melcli.scoring.tts.measures import RATE, length_ratio, looped, measure, stopped_early
from melcli.scoring.tts.pauses import measure as pauses
from melcli.scoring.tts.pauses import trimmed
from melcli.scoring.tts.words import SPOKEN, said


def sound(*parts: tuple[float, float]) -> torch.Tensor:
    """(seconds, level) after each other, of noise."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([level * torch.randn(round(seconds * RATE), generator=generator) for seconds, level in parts])


def test_pauses() -> None:
    wave_S = sound((0.2, 0.0), (1.0, 0.1), (0.4, 0.0002), (0.5, 0.05), (0.1, 0.0), (0.4, 0.1), (0.3, 0.0))
    found = pauses(wave_S, RATE)
    assert (found.lead, found.tail, found.longest) == pytest.approx((0.2, 0.3, 0.4), abs=0.021)
    assert found.speech == pytest.approx(2.4, abs=0.04) and found.share == pytest.approx(1.0 / 2.9, abs=0.02)
    assert len(trimmed(wave_S, RATE)) / RATE == pytest.approx(found.speech)


def test_pauses_do_not_depend_on_the_level() -> None:
    wave_S = sound((0.2, 0.0), (1.0, 0.5), (0.3, 0.0))
    assert pauses(0.01 * wave_S, RATE) == pauses(wave_S, RATE)


def test_no_sound_at_all() -> None:
    found = pauses(torch.zeros(RATE), RATE)
    assert (found.lead, found.share, found.speech) == (1.0, 1.0, 0.0) and len(trimmed(torch.zeros(RATE), RATE)) == 0
    assert pauses(torch.zeros(0), RATE).share == 1.0


def test_length_against_text_and_reference() -> None:
    spoken_S = sound((0.1, 0.0), (2.0, 0.1))
    against_text = measure(spoken_S, "Hello -- there, good people!")  # 23 characters in words
    assert against_text["against"] == "text" and length_ratio(against_text) == pytest.approx(2.0 / (23 / 15), abs=0.02)
    against_speech = measure(spoken_S, "x", sound((1.0, 0.1), (0.5, 0.0)))
    assert against_speech["against"] == "reference" and length_ratio(against_speech) == pytest.approx(2.0, abs=0.05) and against_speech["mcd"] > 0
    assert "mcd" not in measure(spoken_S, "x", torch.zeros(RATE)) and length_ratio(measure(spoken_S, "...")) is None


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        ({"speech": 2.0, "expected": 2.0}, False),
        ({"speech": 2.0, "expected": 2.0, "stopped": "stop"}, False),
        ({"speech": 2.0, "expected": 2.0, "stopped": "silence"}, True),
        ({"speech": 2.0, "expected": 2.0, "stopped": "length"}, True),
        ({"speech": 4.1, "expected": 2.0}, True),
    ],
)
def test_loops(speech: dict[str, object], expected: bool) -> None:
    assert looped(speech) is expected


@pytest.mark.parametrize(
    ("text", "heard", "ratio", "expected"),
    [
        ("one two three four five", "one two three four five", 1.0, False),
        ("one two three four five", "one two", 1.0, True),
        ("one two three four five", "one two three", 1.0, False),
        ("one two three four five", "one two three four five", 0.4, True),
        ("one two", "", 1.0, True),
        ("one two three four five", "two three four", 1.0, False),
        ("one two three four", "one and and and", 1.0, False),
    ],
)
def test_early_stops(text: str, heard: str, ratio: float, expected: bool) -> None:
    assert stopped_early({"speech": ratio, "expected": 1.0}, PLAIN.align(text, heard)) is expected


def row(name: str, text: str, heard: str, **speech: object) -> ResultRow:
    common = {"lead": 0.1, "tail": 0.2, "longest_pause": 0.3, "silence": 0.25, "speech": 1.0, "expected": 1.0, "against": "text"}
    return ResultRow(name, 2.0, 0.5, text, heard, speech=common | speech)


def test_rows_keep_what_was_measured(tmp_path) -> None:
    one = row("a", "x", "y", mcd=5.0)
    (tmp_path / "rows.jsonl").write_text(to_line(one))
    assert read(tmp_path / "rows.jsonl") == [one] and "speech" not in to_line(ResultRow("a", 1.0, None, "x", "y"))


def test_a_summary() -> None:
    report = Report(PLAIN, "voice")
    rows = [
        row("a", "one two three", "one two three", mcd=4.0, sim_prompt=0.5, speech=1.1, mos={"OVRL": 3.0}),
        row("b", "one two three", "one two free", mcd=6.0, sim_prompt=0.9, speech=2.3, longest_pause=0.9, mos={"OVRL": 4.0}),
        row("c", "one two three", "", sim_prompt=0.7, speech=0.9),
    ]
    report.add("set", rows)
    whole = summary.as_dict(report)
    found = whole["sets"]["set"]
    assert found["wer"] == pytest.approx(44.44) and found["rtfx"] == 4.0
    speech = found["speech"]
    assert (speech["mcd"], speech["sim_prompt"], speech["sim_reference"], speech["mos"]) == (5.0, 0.7, None, {"OVRL": 3.5})
    assert speech["mcd_interval"] is None  # some draws hold only the row that has none
    low, high = speech["sim_prompt_interval"]
    assert 0.5 <= low < 0.7 < high <= 0.9
    assert (speech["length"], speech["longest_pause"], speech["silence"], speech["against"]) == (1.1, 0.9, 25.0, "text")
    assert speech["characters_per_second"] == pytest.approx(3 * 13 / 4.3, abs=0.001)
    assert (speech["loops"], speech["cut_off"], speech["cut_off_rate"]) == (1, 1, 33.33)
    (line,) = summary.table([whole])
    cells = dict(zip(summary.COLUMNS, line, strict=True))
    assert (cells["WER %"], cells["SIM prompt"], cells["SIM ref"], cells["MOS"], cells["loops"]) == ("44.44", "0.70", "-", "OVRL 3.50", "1")
    assert "SIM ref" not in summary.to_markdown([line]) and "SIM prompt" in summary.to_markdown([line])


def test_rows_without_measures() -> None:
    report = Report(PLAIN, None)
    report.add("set", [ResultRow("a", 1.0, 0.1, "x", "x")])
    found = summary.as_dict(report)
    speech = found["sets"]["set"]["speech"]
    assert speech["utterances"] == 0 and speech["length"] is speech["silence"] is speech["loops_rate"] is None
    assert summary.table([found])[0][2] == "0.00"


@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("It cost $5.", "it cost five dollars"),
        ("Dr. Smith, at 10:30!", "doctor smith at ten thirty"),
        ("Don’t STOP.", "don't stop"),
        ("123 cats", "123 cats"),
    ],
)
def test_both_sides_are_put_in_words(text: str, heard: str) -> None:
    (counts,) = SPOKEN.score_each([text], [heard])
    assert counts is not None and counts.wer == 0 and protocol.get("spoken") is SPOKEN and said(said(text)) == said(text)
