"""Error counts against an edit distance written down here, and by hand."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaldialign import batch_error_rate

from melcli.scoring import wer
from melcli.scoring.protocol import PLAIN
from melcli.scoring.wer import ErrorCounts


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Levenshtein distance, the textbook way."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def test_by_hand() -> None:
    counts = wer.score(["a b c d", "one two"], ["a x c", "one two three"])
    assert (counts.utterances, counts.words, counts.sub, counts.del_, counts.ins) == (2, 6, 1, 1, 1)
    assert counts.wer == pytest.approx(50.0)
    assert (counts.chars, counts.char_errors) == (14, 9)
    assert counts.cer == pytest.approx(100 * 9 / 14)


@pytest.mark.parametrize(("errors", "words"), [(23, 160), (49, 160), (87, 160), (1, 3)])
def test_ties_round_as_on_the_leaderboard(errors: int, words: int) -> None:
    """100 * 23 / 160 is 14.38, rounded; the public scorer multiplies a rate that was divided before, and has 14.37."""
    theirs = batch_error_rate([["a"] * words], [["b"] * errors + ["a"] * (words - errors)])
    assert PLAIN.rounded(ErrorCounts(words=words, sub=errors).wer) == round(100 * theirs["err_rate"], 2)


def test_text_where_nothing_was_said_counts_as_invented() -> None:
    assert wer.score(["", "a"], ["oh no", "a"]) == ErrorCounts(utterances=2, words=1, ins=2, chars=1, char_errors=5)


def test_nothing_to_divide_by_is_no_rate() -> None:
    counts = wer.score([""], [""])
    assert counts.utterances == 1 and counts.wer is None and counts.cer is None
    assert wer.score([], []) == ErrorCounts()


def test_counts_need_pairs() -> None:
    with pytest.raises(ValueError, match="1 references and 2 hypotheses"):
        wer.score(["a"], ["a", "b"])


sentences = st.lists(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), min_size=1, max_size=4)


@given(references=sentences, data=st.data())
def test_errors_are_the_edit_distance_and_add_up(references: list[str], data: st.DataObject) -> None:
    hypotheses = [data.draw(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join)) for _ in references]
    counts = wer.score(references, hypotheses)
    pairs = list(zip(references, hypotheses, strict=True))
    assert counts.sub + counts.del_ + counts.ins == sum(distance(r.split(), h.split()) for r, h in pairs)
    assert counts.char_errors == sum(distance(r, h) for r, h in pairs)
    assert counts.words - counts.del_ + counts.ins == sum(len(h.split()) for h in hypotheses)
    parts = ErrorCounts()
    for reference, hypothesis in pairs:
        parts = parts + wer.score([reference], [hypothesis])
    assert (parts.utterances, parts.words, parts.chars, parts.char_errors) == (counts.utterances, counts.words, counts.chars, counts.char_errors)
    assert parts.sub + parts.del_ + parts.ins == counts.sub + counts.del_ + counts.ins


@given(references=sentences, data=st.data())
def test_counts_are_jiwers(references: list[str], data: st.DataObject) -> None:
    hypotheses = [data.draw(st.lists(st.sampled_from("abc"), max_size=6).map(" ".join)) for _ in references]
    pairs = [(r, h) for r, h in zip(references, hypotheses, strict=True) if r]  # jiwer takes no empty reference
    if pairs:
        theirs, counts = jiwer.process_words(*map(list, zip(*pairs, strict=True))), wer.score(*zip(*pairs, strict=True))
        assert (counts.sub, counts.del_, counts.ins) == (theirs.substitutions, theirs.deletions, theirs.insertions)
