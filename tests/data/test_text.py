"""Written English to words, sentences out of text collections, and the guard around the test texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import pytest

from melcli.data import prompts
from melcli.data.sentences import HeldOut, Sentence, held_out, read_source, sentences
from melcli.data.text import prompt, speakable, transcript
from melcli.errors import ManifestError


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("Dr. Who paid $3.50 at 5:05 p.m.", "doctor who paid three dollars and fifty cents at five oh five p m"),
        ("It cost $3 million, or £1, or $0.99.", "it cost three million dollars or one pound or ninety nine cents"),
        ("on May 2nd, 1905", "on may second nineteen oh five"),
        ("from 1914-1918 until 2009 and 2012", "from nineteen fourteen to nineteen eighteen until two thousand nine and twenty twelve"),
        ("the 1990s, the '80s", "the nineteen nineties the eighties"),
        ("1,250 men & 3.14 pies, 20%", "one thousand two hundred fifty men and three point one four pies twenty percent"),
        ("the 21st of Sept. at No. 5", "the twenty first of september at number five"),
        ("agent 007", "agent zero zero seven"),
        ("at 10:00, 12:30 AM and 5 pm", "at ten o'clock twelve thirty a m and five p m"),
        ("Mr. and Mrs. St. John of the U.S.A. vs. Ms. Lee", "mister and missus saint john of the u s a versus miss lee"),
        ("CDs on TV in this US state, OK?", "c d's on t v in this u s state okay"),
        ("H. G. Wells, e.g., and J.R.R. Tolkien", "h g wells for example and j r r tolkien"),
        ("5km & 10 lbs.", "five kilometers and ten pounds"),
        ("‘Tis Tom’s well-known café—_really_…", "'tis tom's well known cafe really"),
        ("'My dear fellow,' said he, 'what am I?'", "my dear fellow said he what am i"),
        ("", ""),
        ("NASA's HTTP API v2.0", "nasa's h t t p a p i v two point zero"),
        (
            "mail bob.j@example.co.uk, see https://www.bbc.co.uk/a-b/?page=2#top.",
            "mail bob dot j at example dot co dot u k see w w w dot b b c dot co dot u k slash a dash b",
        ),
        ("report.pdf and hello.world", "report dot p d f and hello world"),
        (
            "call 555-1234 or +1 (800) 555-0199, pages 100-1500",
            "call five five five one two three four or one eight zero zero five five five zero one nine nine pages one hundred to fifteen hundred",
        ),
        (
            "2024-03-15, 03/15/2024, 25/12/1999",
            "march fifteenth twenty twenty four march fifteenth twenty twenty four december twenty fifth nineteen ninety nine",
        ),
        ("May 2, 1905; 12 March 2020; Jan. 5; Oct 3", "may second nineteen oh five the twelfth of march twenty twenty january fifth october third"),
        ("in 3:45:12 or 1:05:00", "in three forty five twelve or one oh five zero"),
        ("3:30pm, 17:30, a 3:1 ratio", "three thirty p m seventeen thirty a three to one ratio"),
        ("1/2, 3/4, 2 1/2 and 2½ cups, 24/7", "one half three quarters two and a half and two and a half cups twenty four seven"),
        ("-5°C, 72°F, a 45° angle", "minus five degrees celsius seventy two degrees fahrenheit a forty five degrees angle"),
        ("1 km, 2 km/h, 5 m, $5m, 16 GB", "one kilometer two kilometers per hour five meters five million dollars sixteen gigabytes"),
        (
            "$1.01, $5-10, £1,250.99, 50¢",
            "one dollar and one cent five to ten dollars one thousand two hundred fifty pounds and ninety nine pence fifty cents",
        ),
        (
            "chapter IV, the part I mean, Part I. Henry VIII, Rocky III, World War II",
            "chapter four the part i mean part one henry the eighth rocky three world war two",
        ),
        ("MP3, COVID-19, a 3-year-old, 1.2.3, .5", "m p three covid nineteen a three year old one point two point three point five"),
        ("In St. Louis, on Main St. and 5th Ave., Mount St. Helens", "in saint louis on main street and fifth avenue mount saint helens"),
        ("see fig. 3, pp. 4-5; he ate the fig.", "see figure three pages four to five he ate the fig"),
        ("IT IS ON TV IN THE US", "it is on t v in the us"),
        ("E=mc², 2^3, 5x3, w/o", "e equals mc squared two to the power of three five times three without"),
        ("seven – or 7 - feet: 7'3\"", "seven or seven feet seven foot three"),
        ("The ﬁrst 5℃", "the first five degrees celsius"),
    ],
)
def test_written_english_is_spoken_in_words(written: str, words: str) -> None:
    assert transcript(speakable(written)) == words


def test_speakable_keeps_the_pauses() -> None:
    assert speakable("Wait -- no (3 times)...") == "Wait, no, three times,"
    assert prompt("'Stop!' cried O'Hara, \"at once.\"") == "stop! cried o'hara, at once."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("made in the u s a today", "made in the u s eigh today"),
        ("c a t", "c eigh t"),
        ("she's a b student", "she's a b student"),
        ("a cat", "a cat"),
        ("vitamin c a day", "vitamin c a day"),
    ],
)
def test_the_letter_a_is_not_the_article(text: str, said: str) -> None:
    assert prompt(text) == said


def _zipped(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(text)
    return path


def test_sentences_of_a_book(tmp_path: Path) -> None:
    plain = "the cat sat on the mat and mister smith saw it go away then he said that he would come back"
    book = [
        " Title: Cats",
        "CHAPTER II.",
        "III",
        "The cat sat on the mat. Mr. Smith saw it go! 'He said that,' he said.",
        "The gnarfle sat on the xyzzy.",
        "He saw http://cats.example on the mat.",
        "Go.",
        "; ".join(["Then he said that he would come back and sit on the mat"] * 5) + ".",
        plain,
        plain,
    ]
    spoken = [sentence.spoken for sentence in sentences(_zipped(tmp_path / "books.txt.gz", "\n".join(book)))]
    assert spoken[:3] == ["the cat sat on the mat.", "mister smith saw it go!", "he said that, he said."]
    assert not any("gnarfle" in line or "http" in line or "chapter" in line for line in spoken)
    assert "go." not in spoken
    pieces = [line for line in spoken if line.startswith("then he said")]
    assert pieces
    assert all(2 <= len(line.split()) <= 30 for line in spoken)


def test_a_missing_collection_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"books\.txt\.gz"):
        sentences(tmp_path / "books.txt.gz")


def test_held_out_texts() -> None:
    tested = HeldOut(["We saw the Old man go.", "Yes", "good morning", "one two three four five six seven eight nine ten"])
    assert "we saw the old man go" in tested
    assert "yesterday we saw the old man go home" in tested, "a test text of six words inside the sentence"
    assert "we saw the old man" not in tested
    assert "good morning" in tested
    assert "good morning to you" not in tested
    assert "yes" not in tested, "a single word may be trained on"
    assert "and two three four five six seven eight then" in tested, "seven words in a row of a longer test text"
    assert "and two three four five six seven then" not in tested


def test_held_out_of_a_data_root(tmp_path: Path) -> None:
    (tmp_path / "speechocean762").mkdir()
    (tmp_path / "speechocean762" / "dev.jsonl").write_text(json.dumps({"text": "mark is going to see 2 elephants"}) + "\n")
    chapter = tmp_path / "librispeech" / "LibriSpeech" / "dev-clean" / "84" / "1"
    chapter.mkdir(parents=True)
    (chapter / "84-1.trans.txt").write_text("84-1-0000 THE QUICK BROWN FOX JUMPS\n")
    tested = held_out(tmp_path)
    assert "mark is going to see two elephants" in tested
    assert "so the quick brown fox jumps again" in tested


def test_real_collections_hold_no_test_text(shared_data: Path) -> None:
    path = shared_data / "text" / "qa.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    source, tested = read_source(path), held_out(shared_data)
    assert len(tested.texts) > 3000
    cleaned = [sentence for raw in Random(1).sample(source.raw, 3000) if (sentence := source.clean(raw)) is not None]
    assert len(cleaned) > 1200
    for sentence in cleaned:
        assert set(sentence.text) <= set("abcdefghijklmnopqrstuvwxyz' ")
        assert set(sentence.spoken) <= set("abcdefghijklmnopqrstuvwxyz' ,.;:!?")
        assert transcript(sentence.spoken.replace("eigh ", "a ")) == sentence.text or "eigh" in sentence.spoken


def test_digit_strings_and_spelling() -> None:
    random = Random(3)
    strings = [prompts.digits(random) for _ in range(500)]
    words = [word for string in strings for word in string]
    assert {len(string) for string in strings} == set(range(1, 11))
    assert set(words) == {*prompts.DIGITS, "oh"}
    assert words.count("oh") < words.count("zero") / 5
    assert all(transcript(prompts.grouped(random, string).spoken) == " ".join(string) for string in strings)
    for _ in range(200):
        sentence = prompts.spelled(random, ["cat", "banana", "it"])
        assert transcript(sentence.spoken).replace("eigh", "a") == sentence.text


def test_a_childs_sentence() -> None:
    common = frozenset("the cat sat on a mat".split())
    assert prompts.childlike(Sentence("the cat sat.", "the cat sat"), common)
    assert not prompts.childlike(Sentence("the cat reconsidered.", "the cat reconsidered"), common)
    assert not prompts.childlike(Sentence("cat sat.", "cat sat"), common)
