"""Protocols: what each makes of the pairs in pairs/*.tsv, and that its counts, alignments and stamps agree with each other."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldialign import batch_error_rate

from melcli.errors import RegistryError, UsageError
from melcli.scoring import protocol
from melcli.scoring.protocol import Protocol
from melcli.scoring.wer import ErrorCounts

NAMES = ("none", "openasr-2026", "openasr-classic", "openasr-ml", "plain")
TABLES = sorted((Path(__file__).parent / "pairs").glob("*.tsv"))


def rows() -> Iterator[tuple[str, ...]]:
    """protocol, reference, hypothesis, both normalised, and "sub del ins" or "dropped". The values were reasoned from the public rules."""
    for table in TABLES:
        with table.open(encoding="utf-8", newline="") as lines:
            _, *pairs = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        for names, *rest in pairs:
            yield from ((name, *rest) for name in names.split())


ROWS = list(rows())


def test_there_are_enough_pairs() -> None:
    assert len(ROWS) >= 300 and {name for name, *_ in ROWS} == set(NAMES)


@pytest.mark.parametrize(("name", "reference", "hypothesis", "said", "heard", "errors"), ROWS)
def test_pairs(name: str, reference: str, hypothesis: str, said: str, heard: str, errors: str) -> None:
    chosen = protocol.get(name)
    assert (chosen.normalise(reference), chosen.normalise(hypothesis)) == (said, heard)
    (counts,) = chosen.score_each([reference], [hypothesis])
    if errors == "dropped":
        assert counts is None
        return
    assert counts is not None
    assert (counts.sub + counts.del_ + counts.ins, counts.words) == (sum(map(int, errors.split())), len(said.split()))
    assert f"{counts.sub} {counts.del_} {counts.ins}" == errors


WORDS = "white paper whitepaper book bookstore store a b the ice cream icecream um 20 twenty mr colour it's".split()
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=5)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(texts=PAIRS)
def test_counts_are_kaldialigns(name: str, texts: list[tuple[str, str]]) -> None:
    chosen = protocol.get(name)
    each = chosen.score_each(*zip(*texts, strict=True))
    kept = [(chosen.normalise(r).split(), chosen.normalise(h).split()) for (r, h), found in zip(texts, each, strict=True) if found is not None]
    whole = batch_error_rate([r for r, _ in kept], [h for _, h in kept], merge_compounds=chosen.merge_compounds)
    summed = sum((found for found in each if found is not None), ErrorCounts())
    assert (summed.utterances, summed.words) == (len(kept), whole["ref_len"])
    assert summed.sub + summed.del_ + summed.ins == whole["total"]
    if chosen.merge_compounds:
        assert (summed.sub, summed.del_, summed.ins) == (whole["sub"], whole["del"], whole["ins"])


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None)
@given(reference=SENTENCES, hypothesis=SENTENCES)
def test_alignments_hold_the_words_and_the_errors(name: str, reference: str, hypothesis: str) -> None:
    chosen = protocol.get(name)
    pairs = chosen.align(reference, hypothesis)
    assert " ".join(said for said, _ in pairs if said is not None) == chosen.normalise(reference)
    assert " ".join(heard for _, heard in pairs if heard is not None) == chosen.normalise(hypothesis)
    (counts,) = chosen.score_each([reference], [hypothesis])
    if counts is None:
        return
    missed, invented = sum(heard is None for _, heard in pairs), sum(said is None for said, _ in pairs)
    other = sum(said is not None and heard is not None and said.replace(" ", "") != heard.replace(" ", "") for said, heard in pairs)
    assert other + missed + invented == counts.sub + counts.del_ + counts.ins


def test_alignment_by_hand() -> None:
    assert protocol.get("openasr-2026").align("the White Paper is um here", "a whitepaper is") == [
        ("the", "a"),
        ("white paper", "whitepaper"),
        ("is", "is"),
        ("here", None),
    ]
    assert protocol.get("plain").align("a b c", "x b c d") == [("a", "x"), ("b", "b"), ("c", "c"), (None, "d")]


def test_characters_are_compared_after_normalisation() -> None:
    (counts,) = protocol.get("openasr-2026").score_each(["Twenty white papers!"], ["20 whitepapers"])
    assert counts == ErrorCounts(utterances=1, words=3, chars=15, char_errors=1)


def test_pairs_must_match_up() -> None:
    with pytest.raises(ValueError):
        protocol.get("plain").score_each(["a"], [])


def test_rounding_comes_before_averaging() -> None:
    chosen = protocol.get("openasr-2026")
    assert chosen.rounded(12.346) == 12.35 and chosen.rounded(None) is None
    assert chosen.average([1.006, 1.006, 1.003]) == 1.01  # of 1.01, 1.01 and 1.0
    assert chosen.average([]) is None and chosen.average([1.0, None]) is None


def test_stamps_differ_and_last() -> None:
    stamps = {name: protocol.get(name).digest for name in NAMES}
    assert len(set(stamps.values())) == len(NAMES)
    assert all(protocol.get(name).digest == stamp and len(stamp) == 12 for name, stamp in stamps.items())


def test_a_stamp_changes_with_rules_tables_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"rules": {"names": {"jon": "john"}}}
    one = Protocol("x", "1", str.lower, rules=lambda: tables)
    before = one.digest
    assert Protocol("x", "2", str.lower, rules=lambda: tables).digest != before
    assert Protocol("x", "1", str.lower, merge_compounds=True, rules=lambda: tables).digest != before
    tables["rules"]["names"]["sara"] = "sarah"
    after = one.digest
    assert after != before
    monkeypatch.setattr(protocol, "version", lambda library: "99")
    assert one.digest != after


def test_an_unknown_name_says_which_exist() -> None:
    with pytest.raises(RegistryError, match=r"no protocol is called 'openasr'\. Did you mean 'openasr-ml'\? There is: none, openasr-2026"):
        protocol.get("openasr")


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(library: str) -> str:
        raise protocol.PackageNotFoundError(library)

    monkeypatch.setattr(protocol, "version", absent)
    with pytest.raises(UsageError, match=r"protocol 'plain' needs rapidfuzz, which is not installed: pip install 'melcli\[score\]'\."):
        protocol.get("plain")
