"""How words sound, as CTC is taught it."""

from __future__ import annotations

from pathlib import Path

import pytest

from melcli.data import sounds
from melcli.data.sounds import ALPHABET, Sounds, words_of
from melcli.errors import CheckpointError

FEW = Sounds({"a": ("ʌ", "A"), "cat": ("kæt",), "walk": ("wɔk",), "fire": ("fIɝ",), "place": ("plAs",)})


def test_each_phone_has_a_character_of_its_own() -> None:
    assert len(set(ALPHABET)) == len(sounds.PHONES) == 39


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Where's the CAT?", ["where's", "the", "cat"]),
        ("I’ve 2 dogs.", ["i've", "two", "dogs"]),
        ("Café, naïve", ["café", "naïve"]),
        ("", []),
        ("...", []),
    ],
)
def test_words_as_they_are_said(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_the_usual_pronunciation_is_written() -> None:
    assert FEW.write("A cat.") == "ʌkæt"
    assert FEW.of("a") == ("ʌ", "A")


@pytest.mark.parametrize(
    ("word", "sound"),
    [("cats", "kætz"), ("walking", "wɔkɪŋ"), ("cat's", "kætz"), ("fireplace", "fIɝplAs"), ("vex", "vɛks"), ("café", "kæfɛ"), ("猫", "")],
)
def test_unknown_words_are_guessed(word: str, sound: str) -> None:
    assert FEW.of(word) == (sound,)


def test_the_cmu_dictionary() -> None:
    words = sounds.cmudict()
    assert words.of("the")[:2] == ("ðʌ", "ði")
    assert words.write("Hello, world!") == "hʌlOwɝld"
    assert set("".join(one for many in words.words.values() for one in many)) == set(ALPHABET)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dictionary.txt"
    path.write_text(sounds.dump(FEW.words), encoding="utf-8")
    assert sounds.read(path, CheckpointError) == FEW.words


@pytest.mark.parametrize("text", ["", "cat", "cat\t", "cat\tkæt\ncat\tkæt\n", "\tkæt"])
def test_what_is_no_dictionary_is_an_error_of_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dictionary.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"dictionary\.txt") as raised:
        sounds.read(path, CheckpointError)
    assert "\n" not in str(raised.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="cannot be read"):
        sounds.read(path, CheckpointError)
