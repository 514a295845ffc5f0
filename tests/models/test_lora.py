"""Low-rank adapters: what they change, how they are saved, merged, looked at, and refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from melcli.errors import CheckpointError, ConfigError
from melcli.models import checkpoint, lora
from tests.models.conftest import BACKBONES, make_model

TARGETS = r"(q|k|v|o|qkv|gate|up|down|gate_up)_proj|dense|query_key_value"
OPTIONS = {"rank": 4, "alpha": 6.0, "dropout": 0.0, "targets": TARGETS}


def adapted(backbone: str = "llama", **more):
    """A model with an adapter that is not zero."""
    model, processor = make_model(backbone)
    lora.add_lora(model, OPTIONS | more)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if lora.is_lora(name):
                parameter.normal_(std=0.3)
    return model.eval(), processor


def batch(processor) -> dict:
    torch.manual_seed(2)
    return processor([torch.randn(n) * 0.1 for n in (9000, 16000)])


@torch.no_grad()
def logits(model, inputs) -> torch.Tensor:
    return model(**inputs).logits


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lora") / "model"
    checkpoint.save(folder, *adapted())
    return folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_new_adapter_changes_nothing_and_a_merged_one_nothing_more(backbone):
    model, processor = make_model(backbone)
    inputs = batch(processor)
    plain = logits(model, inputs)
    names = set(model.state_dict())
    lora.add_lora(model, OPTIONS)
    assert torch.equal(logits(model, inputs), plain)
    assert lora.lora_is_zero(model) and not lora.lora_is_used(model)
    assert not model.llm.training

    model, _ = adapted(backbone)
    live = logits(model, inputs)
    assert (live - plain).abs().max() > 0.1
    assert not lora.lora_is_zero(model) and lora.lora_is_used(model)
    with lora.without_lora(model):
        assert torch.equal(logits(model, inputs), plain)
    assert torch.equal(logits(model, inputs), live)
    lora.merge_lora(model)
    assert torch.allclose(logits(model, inputs), live, atol=1e-4)
    assert set(model.state_dict()) == names and model.config.lora is None and not lora.lora_modules(model)


def test_the_update_is_alpha_over_rank_times_b_times_a():
    plain, _ = make_model()
    model, _ = adapted()
    layer = model.llm.model.layers[1].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert a.shape == (4, 64) and b.shape == (128, 4)
    wanted = plain.llm.model.layers[1].mlp.up_proj.weight + 6.0 / 4 * b @ a
    lora.merge_lora(model)
    assert torch.allclose(model.llm.model.layers[1].mlp.up_proj.weight, wanted, atol=1e-6)


def test_half_precision_is_merged_in_float32():
    model, _ = adapted()
    model.to(torch.bfloat16)
    layer = model.llm.model.layers[0].self_attn.q_proj
    wanted = (layer.base_layer.weight.float() + lora.update_of(layer)).bfloat16()
    lora.merge_lora(model)
    merged = model.llm.model.layers[0].self_attn.q_proj.weight
    assert merged.dtype == torch.bfloat16 and torch.equal(merged, wanted)


def test_everything_can_still_be_trained():
    model, _ = adapted(dropout=0.1)
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.llm.model.embed_tokens.requires_grad_(False)
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    assert lora.lora_is_used(model)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == before
    model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in model.llm.named_parameters():
        assert (parameter.grad is not None) == (name != "model.embed_tokens.weight"), name


def test_live_adapters_are_saved_and_loaded(saved):
    model, processor = adapted()
    again, _ = checkpoint.load(str(saved))
    inputs = batch(processor)
    assert again.config.lora == OPTIONS
    assert torch.equal(logits(again, inputs), logits(model, inputs))
    assert torch.equal(logits(AutoModel.from_pretrained(saved), inputs), logits(model, inputs))
    assert [p.name for p in saved.glob("*.safetensors")] == ["model.safetensors"]


def change(folder: Path, tensors=None, **options) -> None:
    """Edit the adapter's description in config.json, or the tensors."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["lora"] = {**config["lora"], **options} if options else config["lora"]
    path.write_text(json.dumps(config))
    if tensors:
        weights = load_file(folder / "model.safetensors")
        tensors(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_rank_that_is_not_the_files(copy):
    change(copy, rank=8)
    with pytest.raises(CheckpointError, match=r"low-rank adapter of rank 4 \(llm.*lora_A.*\), but its config.json says rank 8"):
        checkpoint.load(str(copy))


def test_adapters_for_other_modules(copy):
    change(copy, targets="[qkv]_proj")
    with pytest.raises(CheckpointError, match=r"adapter for .*down_proj.* and 9 more, which lora\.targets '\[qkv\]_proj' does not match"):
        checkpoint.load(str(copy))


def test_adapters_that_the_file_lacks(copy):
    def drop(tensors):
        for name in [name for name in tensors if "layers.2." in name and lora.is_lora(name)]:
            del tensors[name]

    change(copy, drop)
    with pytest.raises(CheckpointError, match=r"holds no low-rank adapter for llm\.model\.layers\.2\.mlp\.down_proj"):
        checkpoint.load(str(copy))


def test_adapters_nobody_describes(copy):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora": None}))
    with pytest.raises(CheckpointError, match=r"holds a low-rank adapter for .*, and its config\.json describes none"):
        checkpoint.load(str(copy))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "c_attn"}, r"'c_attn' matches no linear layer of the language model; there are down_proj, gate_proj, k_proj, o_proj"),
        ({"targets": "("}, r"lora\.targets: .*is no pattern"),
        ({"rank": 0}, r"lora\.rank: .*valid: rank, alpha, dropout, targets"),
        ({"layers": "0-2"}, r"lora\.layers: .*valid: rank"),
    ],
)
def test_options_that_cannot_be(options, message):
    model, _ = make_model()
    with pytest.raises(ConfigError, match=message):
        lora.add_lora(model, OPTIONS | options)


def test_one_adapter_at_a_time():
    with pytest.raises(ConfigError, match="already"):
        lora.add_lora(adapted()[0], OPTIONS)


def test_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"^low-rank adapters need the package 'peft': pip install 'melcli\[lora\]'$"):
        lora.add_lora(make_model()[0], OPTIONS)
