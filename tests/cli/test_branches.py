"""`melcli branches` as a user runs it, on a random model: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from melcli.audio import io
from melcli.models import checkpoint
from tests.cli.conftest import Melcli
from tests.models.conftest import make_model
from tests.models.unified_makers import save_encoder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dev.jsonl with three recordings, an encoder, a model of it, one of stored vectors and one of mel patches."""
    folder = tmp_path_factory.mktemp("desk")
    generator, rows = torch.Generator().manual_seed(1), []
    for number, text in enumerate(("one two", "three", "four five six")):
        io.save(folder / f"{number}.wav", 0.1 * torch.randn(9000 + 3000 * number, generator=generator), 16000)
        rows.append({"audio": f"{number}.wav", "text": text})
    rows.append({"audio": "gone.wav", "text": "seven"})
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    encoder = str(save_encoder(folder / "encoder"))
    unified = {"kind": "unified", "encoder": encoder, "config": json.loads((folder / "encoder" / "config.json").read_text()), "tokens": 3}
    for name, front in (("tesu", unified), ("stored", {"kind": "unified", "size": 16, "vectors": 3, "tokens": 3}), ("plain", {"kind": "mel-patch"})):
        model, processor = make_model(speech_input=front, ctc_weight=0.0)
        checkpoint.save(folder / name, model, processor)
    return folder


def test_a_table_and_json_with_what_failed(melcli: Melcli, desk: Path, tmp_path: Path) -> None:
    source = desk / "dev.jsonl"
    ran = melcli("branches", source, "--model", desk / "tesu", "--dtype", "float32", "-o", tmp_path / "vectors")
    assert ran.code == 1 and "gone.wav" in ran.err
    assert [line.split()[0] for line in ran.out.splitlines() if line.startswith("set")] == ["set", "set"]
    for word in ("shuffled speech", "speech to text", "text to speech", "cosine of pairs", "cosine of means"):
        assert word in ran.out
    assert {path.name for path in (tmp_path / "vectors").iterdir()} == {"dev.jsonl-speech.safetensors", "dev.jsonl-text.safetensors"}
    ran = melcli("branches", desk / "good.jsonl", "--model", desk / "tesu", "--limit", 2, "-f", "json", "-q", "--device", "cpu", "--offline")
    found = json.loads(ran.out)
    assert ran.code == 0 and ran.err == "" and found["protocol"] == "plain"
    (one,) = found["sets"].values()
    assert one["utterances"] == 2 and one["fed"]["text"]["words"] == 3
    assert set(one["fed"]) == {"speech", "text", "shuffled speech"} and set(one["cosines"]) == {"pairs", "others", "means"}


def test_an_encoder_alone_is_retrieved_with(melcli: Melcli, desk: Path) -> None:
    ran = melcli("branches", "good.jsonl", "--model", desk / "encoder", "-f", "json", "--root", desk)
    assert ran.code == 2 and "no such file" in ran.err
    ran = melcli("branches", desk / "good.jsonl", "--model", desk / "encoder", "-f", "json", "--protocol", "none", "--text", "none", "-v")
    (one,) = json.loads(ran.out)["sets"].values()
    assert ran.code == 0 and one["fed"] == {} and one["retrieval"]["speech to text @5"] == 100.0


def test_vectors_made_elsewhere(melcli: Melcli, desk: Path, tmp_path: Path) -> None:
    assert melcli("branches", desk / "good.jsonl", "--model", desk / "encoder", "-o", tmp_path).code == 0
    files = [f"{name}={tmp_path}/good.jsonl-{name}.safetensors" for name in ("speech", "text")]
    ran = melcli("branches", desk / "good.jsonl", "--model", desk / "stored", "--vectors", files[0], "--vectors", files[1], "-f", "json")
    (one,) = json.loads(ran.out)["sets"].values()
    assert ran.code == 0 and set(one["fed"]) == {"speech", "text", "shuffled speech"} and set(one["cosines"]) == {"pairs", "others"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["good.jsonl", "--model", "plain"], "branches is about models whose speech input is unified"),
        (["good.jsonl", "--model", "stored"], "it reads vectors made elsewhere: give --vectors speech=FILE"),
        (["good.jsonl", "--model", "tesu", "--vectors", "speech=x.npy"], "it makes its own vectors: leave out --vectors"),
        (["good.jsonl", "--model", "stored", "--vectors", "x.npy"], "write NAME=FILE"),
        (["good.jsonl", "--model", "stored", "--vectors", "speech=absent.npy"], "vectors absent.npy: no such file"),
        (["good.jsonl?limit=1", "--model", "tesu"], "fewer than two utterances"),
        (["good.jsonl", "--model", "tesu", "--text", "plian"], "Did you mean 'plain'?"),
    ],
)
def test_mistakes_are_one_line(melcli: Melcli, desk: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str) -> None:
    monkeypatch.chdir(desk)
    ran = melcli("branches", *arguments, "-q")
    assert ran.code == 2 and said in ran.err and ran.err.count("\n") == 1
