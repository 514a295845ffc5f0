"""The paired bootstrap: a real difference, none, and files that cannot be compared."""

from __future__ import annotations

import random

import pytest

from melcli.errors import UsageError
from melcli.scoring.compare import compare
from tests.scoring.handmade import PLAIN, row, run


def heard(seed: int, rates: list[float], hard: float = 0.0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join("x" if generator.random() < rate + hard * (i % 10 == 0) else f"w{k}" for k in range(10)) for i, rate in enumerate(rates)]


TEXT = " ".join(f"w{k}" for k in range(10))


def test_a_difference_is_found() -> None:
    a = run([row(str(i), TEXT, h) for i, h in enumerate(heard(1, [0.20] * 300))], "a")
    b = run([row(str(i), TEXT, h) for i, h in enumerate(heard(2, [0.14] * 300))], "b")
    found = compare(a, b, PLAIN)
    assert found.difference == pytest.approx(found.wer_b - found.wer_a) and found.difference < -3
    assert found.interval is not None and found.interval.low < found.difference < found.interval.high < 0
    assert found.p_value < 0.01 and found.b_better > 0.99 and found.verdict == "b is better than a"
    turned = compare(b, a, PLAIN)
    assert turned.difference == -found.difference and turned.b_better == 1 - found.b_better and turned.verdict == "b is better than a"


def test_chance_is_not_taken_for_one() -> None:
    p_values = []
    for seed in range(60):
        a = run([row(str(i), TEXT, h) for i, h in enumerate(heard(2 * seed, [0.1] * 60))], "a")
        b = run([row(str(i), TEXT, h) for i, h in enumerate(heard(2 * seed + 1, [0.1] * 60))], "b")
        p_values.append(compare(a, b, PLAIN, draws=500).p_value)
    assert sum(p < 0.05 for p in p_values) <= 8 and 15 <= sum(p < 0.5 for p in p_values) <= 45


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """Utterances that are hard for both widen each system's interval, not that of their difference."""
    rows_a = [row(str(i), TEXT, "x " * 9 + "w9" if i % 4 == 0 else TEXT) for i in range(80)]
    rows_b = [row(str(i), TEXT, "x " * 8 + "w8 w9" if i % 4 == 0 else TEXT) for i in range(80)]
    found = compare(run(rows_a, "a"), run(rows_b, "b"), PLAIN)
    assert found.p_value < 0.01 and (found.fewer, found.more) == (20, 0)


def test_the_same_system_twice() -> None:
    one = run([row(str(i), TEXT, h) for i, h in enumerate(heard(1, [0.2] * 20))])
    found = compare(one, one, PLAIN)
    assert (found.difference, found.p_value, found.b_better) == (0, 1, 0.5) and found.verdict.startswith("no difference")


def test_order_does_not_matter_and_names_may_repeat() -> None:
    rows = [row("same", "a b", "a b"), row("same", "c d", "c x"), row("other", "e", "e")]
    found = compare(run(rows, "a"), run([rows[2], rows[0], rows[1]], "b"), PLAIN)
    assert found.difference == 0 and found.utterances == 3


def test_one_utterance_shows_nothing() -> None:
    found = compare(run([row("1", "a b", "a x")]), run([row("1", "a b", "a b")], "b"), PLAIN)
    assert found.interval is None and found.p_value == 1 and found.as_dict()["interval"] is None and found.row()[5] == "-"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([("1", "x")], [("1", "x"), ("2", "y")], "a and b do not hold the same utterances: 1 only in b (2)."),
        (
            [(str(i), "x") for i in range(9)],
            [("3", "x"), ("z", "x")],
            "a and b do not hold the same utterances: 8 only in a (0, 1, 2, …), 1 only in b (z).",
        ),
        ([("1", "x"), ("1", "x")], [("1", "x")], "a and b do not hold the same utterances: 1 only in a (1)."),
        ([("1", "one"), ("2", "x")], [("1", "other"), ("2", "X!")], "a and b have other references for 1 utterances (1)."),
        ([("1", "")], [("1", "")], "a and b: their references hold no words to compare on."),
    ],
)
def test_what_cannot_be_compared(a: list[tuple[str, str]], b: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        compare(run([row(name, text, "x") for name, text in a], "a"), run([row(name, text, "x") for name, text in b], "b"), PLAIN)
    assert str(raised.value) == message
