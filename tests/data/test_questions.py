"""Questions and answers: our layout of the two corpora, manifests with audio and without, and the hub's rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melcli.data import hub
from melcli.data.manifest import read_source
from melcli.data.questions import read_questions
from melcli.errors import ManifestError
from melcli.scoring.answers import accepted
from melcli.scoring.sets import open_sets
from tests.cli.mirror import clips, write_parquet


def manifest(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_llama_questions_as_they_lie_here(shared_data: Path) -> None:
    (entry,) = open_sets(["llama-questions"])
    found = entry.read(shared_data, offline=True)
    assert len(found) == 300 and entry.task == "answer" and all(one.audio and one.text for one in found)
    assert found[0].text == "What is the capital of France?" and accepted(found[0].extra, "") == ["Paris"]
    assert all(accepted(one.extra, one.id) for one in found)


def test_web_questions_are_written(shared_data: Path) -> None:
    found = read_source("web-questions", root=shared_data, offline=True)
    assert len(found) == 2032 and not any(one.audio for one in found) and all(accepted(one.extra, one.id) for one in found)
    assert accepted(found[0].extra, "") == ["Jamaican Creole English Language", "Jamaican English"]


def test_recordings_of_web_questions_come_first(tmp_path: Path) -> None:
    manifest(tmp_path / "text" / "webquestions-test.jsonl", {"question": "who", "answers": ["me"]})
    assert read_source("web-questions", root=tmp_path, offline=True)[0].audio == ()
    manifest(tmp_path / "web-questions" / "test.jsonl", {"audio": "1.wav", "question": "who", "answers": ["me"]})
    assert read_source("web-questions:test", root=tmp_path, offline=True)[0].audio == (str(tmp_path / "web-questions" / "1.wav"),)


def test_rows_with_audio_and_without(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", {"id": "a", "audio": "a.wav", "question": "who", "answer": "me"}, {"text": "where", "answers": ["here"]})
    one, other = read_questions(str(path))
    assert (one.id, one.text, one.extra["answer"]) == ("a", "who", "me") and (other.id, other.audio, other.text) == ("0002", (), "where")
    for row in ({"answer": "me"}, {"question": " ", "answer": "me"}, {"question": 3}):
        with pytest.raises(ManifestError, match=r"m.jsonl:1: neither audio nor a written 'question'"):
            read_questions(str(manifest(path, row)))


def test_from_a_mirror_of_the_hub(tmp_path: Path) -> None:
    (_, data, _), *_ = clips()
    audio = {"bytes": data, "path": "1.wav"}
    for name, row in (
        ("llama-questions", {"question": "What is the capital of France?", "answer": "Paris", "audio": audio}),
        ("spoken-web-questions", {"question": "who", "answers": ["me", "myself"], "audio": audio}),
    ):
        write_parquet(tmp_path / "fixie-ai" / name / "data" / "test-00000-of-00001.parquet", [row])
        found = hub.read_split(hub.HubSplit(f"fixie-ai/{name}", "", "test"), tmp_path, offline=True)
        assert found[0].text == row["question"] and accepted(found[0].extra, "") == (row.get("answers") or [row["answer"]])
    for name, expected in (("llama-questions", ["Paris"]), ("web-questions", ["me", "myself"])):
        (found,) = read_source(name, root=tmp_path, offline=True)
        assert accepted(found.extra, "") == expected and found.audio[0].startswith("parquet:")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^llama-questions: no .*llama-questions/test.jsonl; and fixie-ai/llama-questions: not on this machine"):
        read_source("llama-questions", root=tmp_path, offline=True)
