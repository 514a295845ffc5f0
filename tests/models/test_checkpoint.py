"""Checkpoints that cannot be trusted are refused with one line that says what is wrong."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from melcli.audio.mel_spec import preset
from melcli.errors import CheckpointError, UsageError
from melcli.models import checkpoint
from melcli.models.decoding.beam import Beam
from melcli.transcribe import Transcriber
from tests.models.conftest import make_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    checkpoint.save(folder, *make_model())
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(folder: Path, edit) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_what_is_saved_is_loaded_in_any_dtype(copy):
    for dtype in (None, torch.float32, torch.bfloat16):
        model, _ = checkpoint.load(str(copy), dtype=dtype)
        assert model.dtype == (dtype or torch.float32)
        assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert not list(copy.parent.glob(".*partial"))


def test_missing_and_unexpected_tensors(copy):
    change(copy, lambda tensors: tensors.pop("ctc_head.bias"))
    with pytest.raises(CheckpointError, match=r"misses ctc_head\.bias"):
        checkpoint.load(str(copy))
    change(copy, lambda tensors: tensors.update({"ctc_head.bias": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"wrong shape for ctc_head\.bias"):
        checkpoint.load(str(copy))


def test_unexpected_tensors_are_named_and_counted(copy):
    change(copy, lambda tensors: tensors.update({f"stray.{i}": torch.zeros(1) for i in range(5)}))
    with pytest.raises(CheckpointError, match=r"holds unexpected stray\.0, stray\.1, stray\.2 and 2 more"):
        checkpoint.load(str(copy))


def test_another_mel_is_refused(copy):
    with pytest.raises(CheckpointError, match=r"mel specification is another: .*hop_length"):
        checkpoint.load(str(copy), mel=preset("speecht5"))
    fields = json.loads((copy / "config.json").read_text())
    fields["mel"]["n_mels"] = -4
    (copy / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError):
        checkpoint.load(str(copy))


def test_a_pickle_is_never_opened(copy, tmp_path):
    opened = tmp_path / "opened"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (opened,))

    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing.*pytorch_model\.bin, a pickle"):
        checkpoint.load(str(copy))
    (copy / "model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoint.load(str(copy))
    assert not opened.exists()


def test_truncated_weights_and_broken_configs(copy):
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoint.load(str(copy))
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(str(copy))
    (copy / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="not 'speech_lm'"):
        checkpoint.load(str(copy))
    with pytest.raises(CheckpointError, match=r"no such folder or registered model; valid names: tiny-en"):
        checkpoint.load("nothing-here")


def test_shards_outside_the_folder_are_refused(copy):
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        checkpoint.load(str(copy))


def test_average(tmp_path):
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for i, path in enumerate(paths):
        checkpoint.write_tensors(path, {"x": torch.full((2,), float(i), dtype=torch.bfloat16)})
    assert checkpoint.average(paths)["x"].tolist() == [1.0, 1.0]


def test_how_a_model_wants_to_be_decoded_is_kept(tmp_path):
    model, processor = make_model()
    model.generation_config.num_beams = 3
    checkpoint.save(tmp_path / "model", model, processor)
    load = lambda **options: Transcriber.load(str(tmp_path / "model"), **options)  # noqa: E731
    assert load().recogniser.strategy == Beam(3)
    assert load().decisions["decoding"] == "3 beams, jointly with the CTC head (0.3), as the model says"
    assert load(beam=5, ctc_weight=0.0).recogniser.strategy == Beam(5, ctc_weight=0.0)
    assert load(beam=1).decisions["decoding"] == "greedy, as asked; the CTC head drafts"
    with pytest.raises(UsageError, match="is for beam search"):
        load(beam=1, ctc_weight=0.5)
    path = tmp_path / "model" / "generation_config.json"
    path.write_text(path.read_text().replace('"num_beams": 3', '"num_beams": "x"'))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: cannot be used"):
        load()


def test_a_model_without_a_ctc_head_takes_no_weight_for_it(tmp_path):
    checkpoint.save(tmp_path / "model", *make_model(ctc_weight=0.0))
    assert Transcriber.load(str(tmp_path / "model"), beam=2).decisions["decoding"] == "2 beams, as asked"
    with pytest.raises(UsageError, match="no CTC head"):
        Transcriber.load(str(tmp_path / "model"), beam=2, ctc_weight=0.5)


def test_a_hub_id_may_name_a_revision(monkeypatch):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **options: asked.append((repo, options["revision"])) or "/there")
    assert str(checkpoint.resolve("owner/name@refs/pr/70")) == str(checkpoint.resolve("owner/name")) == "/there"
    assert asked == [("owner/name", "refs/pr/70"), ("owner/name", None)]
