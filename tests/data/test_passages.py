"""Sentences told from abbreviations, long ones cut at clauses, and texts put into a voice's own letters."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melcli.data.passages import PAUSES, cut, paragraphs, sentences
from melcli.data.speakable import fit, passages

ALPHABET = "abcdefghijklmnopqrstuvwxyz' ,.;:!?"


@pytest.mark.parametrize(
    "written",  # the sentences, told apart by |
    [
        "He paid $3.50.|Dr. Smith left at 5 p.m.|Then he came back.",
        "U.S. troops left.|I live in the U.S.|It is big.|Washington, D.C. is bigger.",
        "\"Stop!\" he cried.|'No?' she asked.|What?!|No...|Yes… maybe.",
        "Mr. J. R. R. Tolkien wrote it.|See p. 5, e.g. the first.|J.K. Rowling is a Ph.D. student.",
        "Version 2.0 is out.|visit example.com.|Or e-mail a.b@c.org.|Then go.",
        "I have approx. 3 kg. of it.|Gen. Lee vs. Col. Smith at No. 5.|On Jan. 5 they came, etc.|Then they left.",
        "Mix 2 tbsp. of oil.|St. John went.|On Main St.|He stood.",
        "he said no.|then he left.|He went.|(He went.)|Plan B.|Then C.",
        "1. Do this.|2. Do that.",
        "Wow... okay ... fine.|Yes!!!",
        "Apple Inc. said so.|Apple Inc.|The end.|It's 5 a.m.|I'm up.",
        "I never said that",
        "",
    ],
)
def test_sentences(written: str) -> None:
    expected = [sentence for sentence in written.split("|") if sentence]
    assert [passage.text for passage in sentences(written.replace("|", " "))] == expected


def test_paragraphs_pause_longer() -> None:
    text = "A heading\n\nOne line\nand another. More.\n \n\nThe end."
    found = [(passage.text, passage.end) for passage in sentences(text)]
    assert found == [
        ("A heading", "paragraph"),
        ("One line and another.", "sentence"),
        ("More.", "paragraph"),
        ("The end.", "paragraph"),
    ]
    assert [paragraph.split() for paragraph in paragraphs(text.splitlines(keepends=True))] == [
        paragraph.split() for paragraph in text.replace(" \n", "\n").split("\n\n")
    ]
    assert PAUSES["paragraph"] > PAUSES["sentence"] > PAUSES["clause"] > 0


def test_spread_dots_are_an_ellipsis() -> None:
    assert [passage.text for passage in sentences("well . . . yes.")] == ["well ... yes."]


def test_a_long_sentence_is_cut_at_its_clauses() -> None:
    sentence = "when the sun had set, the old man closed the door; he lit a lamp and sat down at the table by the window, and began to read."
    assert list(cut(sentence, 70)) == [
        ("when the sun had set, the old man closed the door;", "clause"),
        ("he lit a lamp and sat down at the table by the window,", "clause"),
        ("and began to read.", ""),
    ]
    assert list(cut("he went out to the garden and he sat down", 30)) == [("he went out to the garden", "word"), ("and he sat down", "")]
    assert [len(part) for part, _ in cut("x" * 250, 100)] == [100, 100, 50]


@settings(max_examples=50)
@given(st.text(alphabet="ab ,;.!", max_size=200), st.integers(3, 40))
def test_cut_loses_nothing(text: str, longest: int) -> None:
    parts = [part for part, _ in cut(text, longest)]
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(len(part) <= longest for part in parts)


def test_passages_are_in_the_voices_letters() -> None:
    said = list(passages("Café naïve 😀👍🏽 costs $5 你好, für Łódź — “Straße”!\n\nAt 5 p.m.\n\nA heading", ALPHABET))
    assert [one.text for one in said] == ["cafe naive costs five dollars, fur lodz, strasse!", "at five p m.", "a heading."]
    assert said[0].left_out == ("😀👍🏽", "你好")
    assert said[0].pause == PAUSES["paragraph"]


@pytest.mark.parametrize("text", ["😀", "你好。", "... !!! ???", "—", "Ωμέγα", "\n \n", "👨‍👩‍👧"])
def test_nothing_to_say(text: str) -> None:
    assert not [one.text for one in passages(text, ALPHABET) if one.text]


def test_the_letter_a_is_called_by_its_name() -> None:
    text = "A U.S.A. plan A, an API, a PhD, a TV and AIDS at 5 a.m. or 5:30 AM."
    (said,) = passages(text, ALPHABET)
    assert said.text == "a u s eigh plan eigh, an eigh p i, a p h d, a t v and aids at five eigh m or five thirty eigh m."
    (said,) = passages(text, ALPHABET + ALPHABET.upper())
    assert said.text == "A u s A plan A, an A p i, a p h d, a t v and AIDS at five A m or five thirty A m."


def test_what_is_left_out_is_named_whole() -> None:
    assert [one.left_out for one in passages("Go 👨‍👩‍👧 to 東京 now.", ALPHABET)] == [("👨‍👩‍👧", "東京")]


@pytest.mark.parametrize(
    ("alphabet", "said"),
    [
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ '", "HELLO WORLD IT'S FINE WELL KNOWN OK YES"),
        ("abcdefghijklmnopqrstuvwxyz", "helloworlditsfinewellknownokyes"),
        ("abcdefghijklmnopqrstuvwxyz ,.", "hello, world. its fine, well known, ok. yes."),
        ("abcdefghijklmnopqrstuvwxyzHWI ,.!?-'\"();", 'Hello, World! It\'s "fine", well-known; ok? (yes).'),
    ],
)
def test_alphabets(alphabet: str, said: str) -> None:
    assert fit('Hello, World! It’s "fine": well-known; ok? (yes).'.replace(":", ","), alphabet)[0].replace(" " * (" " not in alphabet), "") == said


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_becomes_the_alphabet_alone(text: str) -> None:
    for one in passages(text, ALPHABET):
        assert set(one.text) <= set(ALPHABET)


def test_a_long_text_comes_sentence_by_sentence() -> None:
    lines = (f"Sentence number {i} was said at {i % 12}:30 p.m. on Oct. {i % 28 + 1}.\n\n" for i in itertools.count(1))
    said = (
        one for paragraph in paragraphs(line for both in lines for line in both.splitlines(keepends=True)) for one in passages(paragraph, ALPHABET)
    )
    first = [one.text for one in itertools.islice(said, 50)]  # of an endless text
    assert first[4] == "sentence number five was said at five thirty p m on october sixth."
    assert not any(re.search(r"\d", text) for text in first)
