"""`melcli score --skip-layers` as a user runs it, on a random model and a real clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from melcli import registry
from melcli.models import checkpoint
from tests.cli.conftest import Melcli
from tests.models.test_skip_layers import make_model

CLIP = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))[0]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three layers, and a manifest of one clip."""
    folder = tmp_path_factory.mktemp("skip")
    model, processor = make_model()
    checkpoint.save(folder / "model", model, processor)
    shutil.copy(CLIP, folder / "clip.wav")
    (folder / "dev.jsonl").write_text(json.dumps({"audio": "clip.wav", "text": "one two three"}) + "\n")
    return folder


def test_a_row_a_layer_and_a_report(melcli: Melcli, desk: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    common = ("score", "--manifest", desk / "dev.jsonl", "--model", desk / "model", "--device", "cpu")
    ran = melcli(*common, "--skip-layers", "0,1", "-f", "json", "--report", tmp_path / "report", "-o", tmp_path / "results")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert said["layers"] == 3 and [one["layer"] for one in said["skipped"]] == [0, 1]
    plain = json.loads(melcli(*common, "-f", "json").out)
    assert said["average"]["wer"] == plain["average"]["wer"] and said["sets"]["dev"]["sub"] == plain["sets"]["dev"]["sub"]
    for one in said["skipped"]:
        assert one["change"] == pytest.approx(one["wer"] - plain["average"]["wer"], abs=0.011)
    texts = [
        json.loads(next(f for f in sorted(d.glob("*.jsonl"))).read_text().splitlines()[0])["pred_text"]
        for d in (tmp_path / "results", tmp_path / "results" / "skip-0", tmp_path / "results" / "skip-1")
    ]
    assert len(set(texts)) == 3  # the random model says something else without each
    assert json.loads((tmp_path / "report" / "skip-layers.json").read_text())["skipped"] == said["skipped"]
    assert (tmp_path / "report" / "skip-layers.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "report" / "skip-layers.md").read_text().splitlines()
    assert lines[0] == "| skipped layer | WER % | change |" and lines[2].startswith("| none |") and lines[4].startswith("| 1 |")
    again = melcli(*common, "--skip-layers", "0", "-o", tmp_path / "results")
    assert again.code == 0 and [line.split()[0] for line in again.out.splitlines()] == ["skipped", "none", "0"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--skip-layers", "3"], "--skip-layers 3: '3' names no layers; this model has 0-2"),
        (["--skip-layers", "all", "--worst", "1"], "--skip-layers is about one model"),
        (["--skip-layers", "all", "--model", "tiny-en"], "--skip-layers is about one model"),
    ],
)
def test_it_refuses(melcli: Melcli, desk: Path, arguments: list[str], expected: str) -> None:
    ran = melcli("score", "--manifest", desk / "dev.jsonl", "--model", desk / "model", *arguments)
    assert ran.code == 2 and ran.err.splitlines()[-1].startswith(f"error: {expected}")
