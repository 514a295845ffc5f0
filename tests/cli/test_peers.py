"""The commands with a speech model of transformers beside ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from melcli import registry
from tests.cli.conftest import Melcli
from tests.models.peer_makers import whisper

CLIP = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny Whisper and a manifest of one clip, in the folder to be in."""
    torch.manual_seed(1)
    whisper(tmp_path / "whisper")
    (tmp_path / "dev.jsonl").write_text(json.dumps({"audio": str(CLIP), "text": CLIP.with_suffix(".txt").read_text().strip(), "id": "clip"}) + "\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_transcribe(melcli: Melcli, folder: Path) -> None:
    ran = melcli("transcribe", CLIP, "--model", "whisper", "--device", "cpu", "--dtype", "float32", "-f", "json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["text"] and found["segments"][0]["finish_reason"] in ("eos", "length")
    assert "WhisperForConditionalGeneration of transformers" in ran.err and "every tensor loaded" in ran.err


def test_score_two_models_side_by_side(melcli: Melcli, folder: Path) -> None:
    ran = melcli("score", "--manifest", "dev.jsonl", "--model", "tiny-en", "--model", "whisper", "--device", "cpu", "-f", "json")
    assert ran.code == 0, ran.err
    ours, theirs = json.loads(ran.out)
    assert (ours["model"], theirs["model"]) == ("tiny-en", "whisper")
    assert ours["sets"]["dev"]["words"] == theirs["sets"]["dev"]["words"] and ours["sets"]["dev"]["rtfx"] > 0 < theirs["sets"]["dev"]["rtfx"]
    assert ours["sets"]["dev"]["wer"] < theirs["sets"]["dev"]["wer"]


def test_a_model_that_is_none_is_one_line(melcli: Melcli, folder: Path) -> None:
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text('{"model_type": "bert"}')
    ran = melcli("transcribe", CLIP, "--model", "bert")
    assert (ran.code, ran.out) == (2, "") and ran.err.count("\n") == 1
    assert "model_type 'bert' is no speech recogniser melcli can run." in ran.err
