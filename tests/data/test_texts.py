"""Texts to be spoken, with and without recordings."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from melcli.data.texts import UNSEEN, by_name, read_texts
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError
from melcli.scoring.normalize import plain


def test_the_sentences_in_the_package() -> None:
    texts = read_texts(str(UNSEEN))
    assert len(texts) == len({one.text for one in texts}) == len({one.id for one in texts}) == 50 and not any(one.audio for one in texts)
    words = [len(plain(one.text or "").split()) for one in texts]
    assert min(words) == 4 and max(words) == 15 and sum(words) == 452
    assert all((one.text or "").isascii() and not any(c.isdigit() for c in one.text or "") for one in texts)


def test_nobody_can_have_learned_them(shared_data: Path) -> None:
    sentences = {plain(one.text or "") for one in read_texts(str(UNSEEN))}
    for path in sorted((shared_data / "text").iterdir()):
        with gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open() as file:
            there = re.sub(r"[^a-z']+", " ", file.read().lower())
        assert not [one for one in sentences if one in there], path


def test_rows_with_and_without_audio(tmp_path: Path) -> None:
    rows = [
        {"text": "one"},
        {"id": "b", "text": "two", "speaker": 3, "mood": "sad"},
        {"audio": "c.wav", "text": "three"},
        {"audio_filepath": "d.wav"},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second, third, fourth = read_texts(str(path))
    assert (first.id, first.text, first.audio) == ("0001", "one", ()) and (second.speaker, second.extra) == ("3", {"mood": "sad"})
    assert (third.id, third.audio) == ("c", (str(tmp_path / "c.wav"),)) and fourth.text is None
    (tmp_path / "plain.txt").write_text("one\n\n two \n")
    assert [(one.id, one.text) for one in read_texts(str(tmp_path / "plain.txt"))] == [("0001", "one"), ("0003", "two")]


@pytest.mark.parametrize(
    ("line", "expected"), [('{"text": 3}', "texts.jsonl:1: 'text' is 3"), ("", "holds no texts"), ("{", "texts.jsonl:1: not JSON")]
)
def test_what_holds_no_texts(tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "texts.jsonl").write_text(line)
    with pytest.raises(ManifestError, match=expected):
        read_texts(str(tmp_path / "texts.jsonl"))


def test_names() -> None:
    assert list(by_name([Utterance("a/x", ()), Utterance("b/x", ()), Utterance("y", ())])) == ["x", "x#2", "y"]
