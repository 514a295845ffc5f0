"""Kinds of errors, bins and noise on utterances made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from melcli.scoring.bins import by_duration, by_snr, by_speaking_rate
from melcli.scoring.breakdown import Breakdown, breakdown, kind_of, worst
from melcli.scoring.diff import MOST_PIECES, lines, pieces
from melcli.scoring.snr import estimate_snr
from tests.scoring.handmade import PLAIN, row, run


def test_words() -> None:
    rows = [row("1", "the cat sat", "the hat sat"), row("2", "a cat is a cat", "a hat is cat"), row("3", "so", "so it is"), row("4", "Fine", "fine.")]
    found = breakdown(run(rows), PLAIN)
    assert found.substitutions == {("cat", "hat"): 2} and found.deletions == {"a": 1} and found.insertions == {"it": 1, "is": 1}
    assert found.utterances == 4


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("", "thank you", (1, 1, 0, 0)),
        ("", "", (0, 0, 0, 0)),
        ("one two", "one a b c d e two", (1, 0, 1, 1)),
        ("one two", "one a b c d two", (0, 0, 0, 0)),
        ("one two three four five six", "one a b c d e two three four five six", (1, 0, 1, 0)),
        ("one two three", "a one b two c three d e", (1, 0, 0, 1)),  # five more than three, but nowhere five in a row
        ("a", "x y z", (0, 0, 0, 0)),  # three times as many, but only two more
    ],
)
def test_hallucinated(said: str, heard: str, expected: tuple[int, ...]) -> None:
    found = breakdown(run([row("1", said, heard)]), PLAIN)
    assert (found.hallucinated, found.silent, found.runs, found.too_long) == expected


def test_missed() -> None:
    found = breakdown(run([row("1", "a b c d e f", "f"), row("2", "a b", ""), row("3", "a b c d e", "c")]), PLAIN)
    assert (found.dropped, found.empty, found.hallucination_rate) == (1, 1, 0)
    assert Breakdown().hallucination_rate is None


def test_finish_reasons_and_sums() -> None:
    one = breakdown(run([row("1", "a", "a", finish_reason="eos"), row("2", "a", "b", finish_reason="length")]), PLAIN)
    both = one + breakdown(run([row("1", "a", "b", finish_reason="eos"), row("2", "a", "a")]), PLAIN)
    assert both.finish_reasons == {"eos": 2, "length": 1} and both.utterances == 4 and both.substitutions == {("a", "b"): 2}


def test_a_merged_compound_is_no_error() -> None:
    assert [kind_of(pair) for pair in (("white paper", "whitepaper"), ("a", "b"), (None, "b"), ("a", None))] == ["", "sub", "ins", "del"]


def test_the_worst_come_first() -> None:
    one = run([row("right", "a", "a"), row("one of two", "a b", "a x"), row("two", "a b c", "x y c"), row("one of one", "a", "x")])
    assert [each.row.audio_filepath for each in worst(one, PLAIN, 9)] == ["two", "one of one", "one of two"]
    assert len(worst(one, PLAIN, 1)) == 1


def test_side_by_side() -> None:
    pairs = [("a", "a"), ("cat", "elephant"), ("sat", None), (None, "on")]
    shown = ["".join(text for text, _ in line).rstrip() for line in lines(pieces(pairs), 100)]
    assert shown == ["REF: a CAT      SAT **", "HYP: a ELEPHANT *** ON", "       S        D   I"]
    assert all(len(text) <= 20 for text in ("".join(text for text, _ in line).rstrip() for line in lines(pieces(pairs), 20)))


def test_long_right_passages_are_left_out() -> None:
    shown = pieces([("x", "y"), *[(str(i), str(i)) for i in range(100)], ("x", None)])
    assert [p.said for p in shown][10:13] == ["9", "… 80 right …", "90"] and len(shown) == 23
    assert pieces([(None, "x")] * (MOST_PIECES + 5))[-1].said == "… 5 more …"


def test_bins() -> None:
    rows = [row("1", "a b", "a x", duration=1.0), row("2", "a b c d", "a b c d", duration=5.0), row("3", "a", "b", duration=7.0)]
    one = run([*rows, row("4", "a", "a", duration=None), row("5", "a", "b", duration=400.0)])
    found = by_duration([one])
    assert [(b.label, b.counts.wer, b.counts.utterances) for b in found] == [("< 2", 50, 1), ("5-10", 20, 2), ("30 +", 100, 1)]
    assert [(b.label, b.counts.utterances) for b in by_speaking_rate([one])] == [("< 1", 3), ("2-2.5", 1)]
    noise = by_snr([one], [[-3.0, 12.0, None, 55.0, 12.5]])
    assert [(b.label, b.counts.utterances) for b in noise] == [("< 5", 1), ("10-15", 2), ("40 +", 1)]
    assert found[1].interval is not None and by_snr([one], [[None] * 5]) == []


@pytest.mark.parametrize("decibels", [0, 10, 20, 30])
def test_noise_of_a_known_level_is_estimated(decibels: int) -> None:
    """A tone that is on half of the time, in white noise."""
    generator = np.random.default_rng(0)
    seconds = np.arange(5 * 16000) / 16000
    tone = np.sqrt(2) * 0.1 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 1 < 0.5)
    noise = generator.normal(size=len(seconds)) * 0.1 * 10 ** (-decibels / 20)
    assert estimate_snr(tone + noise, 16000) == pytest.approx(decibels, abs=2)


def test_noise_of_nothing() -> None:
    assert estimate_snr(np.zeros(16000), 16000) is None and estimate_snr(np.ones(100), 16000) is None
    assert 75 < estimate_snr(np.concatenate([np.zeros(8000), 0.5 * np.sin(np.arange(8000))]), 16000) < 90
    steady = estimate_snr(np.random.default_rng(0).normal(size=16000) * 0.1, 16000)
    assert steady is not None and -11 < steady < 0
