"""Models that cannot be started from are one line."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

from tests.training.llm_makers import byte_level, write


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
