"""Models that cannot be started from are one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from tests.training.llm_makers import byte_level, write
from tests.training.tuned import CTC, edit


def bert(folder: Path) -> None:
    config = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertForMaskedLM(config).save_pretrained(folder)
    byte_level(["<eos>"], "<eos>").save_pretrained(folder)


def pickled(folder: Path) -> None:
    torch.save({name: tensor for name, tensor in load_file(folder / "model.safetensors").items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def set_config(**fields):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def peft_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def not_a_number(folder: Path) -> None:
    edit(folder, lambda tensors: tensors["model.layers.0.mlp.up_proj.weight"].fill_(float("nan")))


def an_adapter_alone(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    peft_beside(folder)


def a_shard_is_missing(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def of_convolutions(folder: Path) -> None:
    write(folder, byte_level(["<eos>"], "<eos>", pad_token="<eos>"), "lfm2", layer_types=["conv", "full_attention"])


BROKEN = {
    "BertForMaskedLM is no causal language model": bert,
    "pytorch_model.bin, a pickle, which is never opened": pickled,
    "transformers knows no model of type 'their_own'; code that a checkpoint brings along is never run": set_config(
        model_type="their_own", auto_map={"AutoModelForCausalLM": "theirs.py"}
    ),
    "its weights are quantised": set_config(quantization_config={"quant_method": "gptq"}),
    "the files of its tokenizer are missing|the tokenizer cannot be read": no_tokenizer,
    "cannot be loaded": cut_short,
    "holds an adapter (adapter_config.json)": peft_beside,
    "an adapter alone (adapter_config.json) is merged into its model first": an_adapter_alone,
    "llm.model.layers.0.mlp.up_proj.weight holds numbers that are not finite": not_a_number,
    "model-00002-of-00002.safetensors": a_shard_is_missing,
    "a lfm2 model mixes up the utterances of a packed row": of_convolutions,
    "cannot be loaded: KeyError 'swigloo'": set_config(hidden_act="swigloo"),
    "config.json: cannot be read": lambda folder: (folder / "config.json").write_text("{"),
    "the chat template of": lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}"),
}


@pytest.mark.parametrize("said", BROKEN)
def test_what_cannot_be_started_from_is_one_line(melcli, recipe_file, copy, said):
    BROKEN[said](copy)
    code, err = melcli("finetune", recipe_file, "--from", copy, "--quiet")
    assert code == 2
    assert err.count("\n") == 1, err
    assert any(one in err for one in said.split("|")), err


def test_models_that_are_not_there(melcli, recipe_file, tmp_path, monkeypatch):
    for name in (tmp_path / "gone", "no-such-model"):
        code, err = melcli("finetune", recipe_file, "--from", name, "--quiet")
        assert code == 2
        assert err.startswith(f"error: model.init {name}: no such folder or registered model")
    code, err = melcli("finetune", recipe_file, "--from", "nobody/nothing", "--offline", "--quiet")
    assert code == 2
    assert err == "error: model.init nobody/nothing: not a folder, and not on this machine, and offline nothing is downloaded\n"


def test_a_gated_model(melcli, recipe_file, monkeypatch):
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_, **__):
        raise GatedRepoError("403", response=MagicMock())

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    code, err = melcli("finetune", recipe_file, "--from", "somebody/gated", "--quiet")
    assert code == 2
    assert err.startswith("error: model.init somebody/gated: gated: accept its terms")


def test_a_pair_that_is_none(melcli, recipe_file, copy):
    write(copy, byte_level(["<eos>"], "<eos>"), "qwen3", rows=100)
    code, err = melcli("finetune", recipe_file, "--from", copy, "--quiet")
    assert code == 2
    assert "entries and its embedding table 100 rows: not a pair" in err


@pytest.fixture
def theirs(ours, tmp_path) -> Path:
    """A model of ours to break."""
    return Path(shutil.copytree(ours, tmp_path / "theirs"))


def set_lora(fields):
    return lambda folder: set_config(lora=fields and json.loads((folder / "config.json").read_text())["lora"] | fields)(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_lora(None), "holds adapters, and its config.json describes none (lora)"),
        (set_lora({"targets": "("}), "'(' is no pattern"),
        (set_lora({"rank": 8}), "has adapters with tune.lora.rank=8; say so too"),
        (set_config(speech_token_id=99999), "its tokenizer has no token 99999, which is among speech_token_id in config.json: not a pair"),
        (lambda folder: byte_level(["<eos>"], "<eos>").save_pretrained(folder), "not a pair"),
    ],
)
def test_models_of_ours_that_were_changed_by_hand(melcli, recipe_file, theirs, change, said):
    change(theirs)
    code, err = melcli("finetune", recipe_file, "--from", theirs, "--quiet", "--dry-run", *CTC)
    assert code == 2
    assert err.count("\n") == 1, err
    assert said in err


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hiden_size=32", "model.backbone.hiden_size is unknown for llama. Did you mean 'hidden_size'?"),
        ("hidden_act=swigloo", "model.backbone describes no possible model: KeyError 'swigloo'"),
        ("model_type=lama", "'lama' is no causal language model of transformers, as qwen3 and llama are. Did you mean 'llama'?"),
        ("model_type=t5", "model.backbone.model_type: 't5' is no causal language model"),
        ("num_attention_heads=5", "The hidden size (32) is not a multiple of the number of attention heads (5)"),
    ],
)
def test_backbones_that_cannot_be(melcli, recipe_file, tmp_path, setting, said):
    backbone = "{model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}"
    (tmp_path / "scratch.yaml").write_text(f"extends: {recipe_file}\nmodel: {{init: null, backbone: {backbone}}}\ntune: {{llm: full}}\n")
    code, err = melcli("train", tmp_path / "scratch.yaml", "--quiet", "--dry-run", f"model.backbone.{setting}")
    assert code == 2
    assert err.count("\n") == 1, err
    assert said in err


def test_a_training_that_diverges_ends_there(melcli, recipe_file, tmp_path):
    code, err = melcli("finetune", recipe_file, "--quiet", "-o", tmp_path / "run", "tune.llm=full", "train.lr=1e8")
    assert code == 2
    assert "the training has diverged" in err
    assert not (tmp_path / "run" / "model").exists()
