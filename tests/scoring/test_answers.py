"""Right and wrong answers, shares and their intervals, told by hand."""

from __future__ import annotations

import numpy as np
import pytest

from melcli.errors import ManifestError
from melcli.scoring import bootstrap
from melcli.scoring.answers import accepted, contained, exact, of_rows, share, words
from melcli.scoring.results import ResultRow


@pytest.mark.parametrize(
    ("reply", "right", "inside", "same"),
    [
        ("It is the Amazon river.", ["Amazon"], True, False),
        ("amazon", ["The Amazon"], True, True),
        ("the party", ["art"], False, False),  # letters inside a word are no answer
        ("in nineteen sixty-nine", ["1969"], True, False),
        ("7", ["seven"], True, True),
        ("Sao Paulo", ["São Paulo"], True, True),
        ("new and york", ["New York"], False, False),  # in a row
        ("Jamaican English", ["Jamaican Creole English Language", "jamaican english!"], True, True),
        ("", ["Paris"], False, False),
        ("the", ["a"], False, False),
        ("a", ["a"], True, True),
        ("東京です 東京", ["東京"], True, False),
        ("Paris", [], False, False),
        ("Paris", ["", "  ", "..."], False, False),
    ],
)
def test_right_and_wrong(reply: str, right: list[str], inside: bool, same: bool) -> None:
    assert (contained(reply, right), exact(reply, right)) == (inside, same)


def test_words_once_put_stay() -> None:
    for text in ("The 3rd of May, 1990", "Dr. O'Neil's $5", "a", "ÀÉÎ"):
        assert words(" ".join(words(text))) == words(text)


def test_accepted() -> None:
    assert accepted({"answer": "Paris"}, "m:1") == ["Paris"] and accepted({"answers": ["a", " b "], "answer": "c"}, "m:1") == ["a", "b"]
    assert accepted({"answer": 7}, "m:1") == ["7"] and accepted({"answers": [], "answer": "c"}, "m:1") == ["c"]
    for nothing in ({}, {"answer": None}, {"answer": " "}, {"answers": []}):
        assert accepted(nothing, "m:1") == []
    for wrong in ({"answer": {"text": "x"}}, {"answers": [["x"]]}, {"answer": True}):
        with pytest.raises(ManifestError, match=r"^m:1: 'answers?' is .*, expected a text or a list of texts$"):
            accepted(wrong, "m:1")


def row(answer: str, right: list[str], heard: str | None = None, name: str = "q") -> ResultRow:
    reply = {"answer": answer, "accepted": right} | ({} if heard is None else {"heard_answer": heard})
    return ResultRow(name, 1.0, 0.1, "who", "who", reply=reply)


def test_a_set() -> None:
    rows = [row("it is Paris", ["Paris"]), row("Rome", ["Rome"]), row("Oslo", ["Bergen"]), row("", ["Bonn"])]
    found = of_rows([*rows, ResultRow("asr", 1.0, 0.1, "who", "who")])
    assert (found["questions"], found["accuracy"], found["exact"]) == (4, 50.0, 25.0) and "spoken_accuracy" not in found
    assert found["accuracy_interval"][0] < 50 < found["accuracy_interval"][1]
    heard = of_rows([row("Paris", ["Paris"], "paris"), row("Rome", ["Rome"], "room"), row("Bonn", ["Bonn"])])
    assert (heard["accuracy"], heard["spoken_accuracy"], heard["spoken_exact"]) == (100.0, 33.33, 33.33)
    assert of_rows([]) == {"questions": 0, "accuracy": None, "accuracy_interval": None, "exact": None, "exact_interval": None}
    assert of_rows(rows[:1])["accuracy_interval"] is None  # nothing to draw from


def test_intervals_are_those_of_shares() -> None:
    """Of many questions the bootstrap comes near to the binomial distribution's normal approximation."""
    right = [i % 4 == 0 for i in range(400)]
    percent, between = share(right, bootstrap.Blocks("utterance", np.arange(400), 400))
    spread = 100 * 1.96 * (0.25 * 0.75 / 400) ** 0.5
    assert percent == 25.0 and between is not None
    assert between.low == pytest.approx(25 - spread, abs=0.6) and between.high == pytest.approx(25 + spread, abs=0.6)
