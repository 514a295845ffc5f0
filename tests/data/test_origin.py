"""What model cards say of training sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch

from melcli.audio.augment import Augment
from melcli.data.origin import origin
from melcli.data.shards import SUMMARY
from melcli.featurize import featurize


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", 0.1 * torch.randn(16000).numpy(), 16000)
    featurize(str(tmp_path / "a.wav"), tmp_path / "features", augment=Augment(), copies=3, jobs=1)
    return tmp_path / "features"


def test_a_folder_named_like_a_corpus_is_not_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert origin("digits") is None


def test_corpora_are_told_with_their_licence() -> None:
    assert origin("librispeech:train-clean-100") == "licence: CC BY 4.0"
    assert origin("digits:strings?count=3&seed=1") == "licence: CC BY-SA 4.0"
    assert origin("my/own.jsonl") is None


def test_shards_are_told_without_paths(shards: Path) -> None:
    assert origin(str(shards)) == "0.0 h, 3 augmented copies of each together"
    about = json.loads((shards / SUMMARY).read_text())
    assert about["source"] is None
    (shards / SUMMARY).write_text(json.dumps(about | {"source": "librispeech:dev-clean?without=1272", "hours": 14.46}))
    assert origin(str(shards)) == "`librispeech:dev-clean?without=1272`, licence: CC BY 4.0, 14.5 h, 3 augmented copies of each together"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"hours": "many", "copies": [1], "augment": 1}', '{"source": 5}'])
def test_a_broken_summary_is_no_origin(shards: Path, text: str) -> None:
    (shards / SUMMARY).write_text(text)
    assert origin(str(shards)) in (None, "augmented")
