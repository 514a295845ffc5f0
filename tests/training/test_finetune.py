"""Finetuning: what is loaded, left behind and random, what of it trains, and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.errors import CheckpointError, ConfigError
from melcli.models import lora
from melcli.train import train
from melcli.training.run import Run
from tests.training.tuned import CTC, begin, edit, run_of

# --- coverage ------------------------------------------------------------------------------------------------------------------------------


def test_tensors_of_a_language_model_that_are_missing_or_too_many(recipe_file, copy):
    edit(copy, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(CheckpointError, match=r"misses llm\.model\.layers\.1\.mlp\.up_proj\.weight; model\.fresh"):
        begin(recipe_file, f"model.init={copy}")
    started = begin(recipe_file, f"model.init={copy}", r"model.fresh=['layers\.1\.mlp']")
    fresh = {name for name in started.coverage.fresh if name.startswith("llm.") and not lora.is_lora(name)}
    assert fresh == {f"llm.model.layers.1.mlp.{part}_proj.weight" for part in ("up", "gate", "down")}
    edit(copy, lambda tensors: tensors.update({"model.layers.1.mlp.up_proj.weight": torch.zeros(64, 32), "mtp.0.weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"holds llm\.mtp\.0\.weight, for which there is no place; model\.drop"):
        begin(recipe_file, f"model.init={copy}")
    assert list(begin(recipe_file, f"model.init={copy}", "model.drop=[mtp]").coverage.left) == ["llm.mtp.0.weight"]


def test_a_random_language_model_of_the_same_shape(recipe_file, llms):
    torch.manual_seed(1)
    started = begin(recipe_file, "model.fresh=['^llm']", "tune.llm=full")
    assert started.coverage.loaded == {}
    there = load_file(llms["qwen3"] / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(started.model.llm.model.layers[0].mlp.up_proj.weight, there)
    torch.manual_seed(1)
    again = begin(recipe_file, "model.fresh=['^llm']", "tune.llm=full")
    assert all(torch.equal(a, b) for a, b in zip(started.model.parameters(), again.model.parameters(), strict=True))


def test_a_fusion_of_mel_and_waveform_is_put_on_whole(recipe_file):
    inputs = "[{kind: mel-patch, patch: 4, norm: utterance}, {kind: raw-frame, frame: 640}]"
    started = begin(recipe_file, f"model.speech_input={{kind: fusion, inputs: {inputs}}}")
    assert not [name for name, tensor in started.model.state_dict().items() if tensor.is_meta]


def test_patterns_that_match_nothing_or_are_none(recipe_file):
    with pytest.raises(ConfigError, match=r"model\.fresh: 'speech_imput' is found in no tensor's name"):
        begin(recipe_file, "model.fresh=[speech_imput]")
    with pytest.raises(ConfigError, match=r"tune\.freeze: '\(' is no regular expression"):
        run_of(recipe_file, Path("nowhere"), "tune.freeze=['(']")
    with pytest.raises(ConfigError, match=r"tune\.keep: 'layers\.7\.' is found in no tensor's name"):
        run_of(recipe_file, Path("nowhere"), "tune.keep=['layers.7.']")


def test_ours_is_begun_from_as_it_is(recipe_file, ours):
    started = begin(recipe_file, f"model.init={ours}", *CTC)
    there = load_file(ours / "model.safetensors")
    state = started.model.state_dict()
    assert all(torch.equal(state[name], there[name]) for name in there)
    assert started.coverage.fresh == started.coverage.left == {}
    assert started.model.config.ctc_alphabet == " dghilmow"
    assert started.model.config.prompt.startswith("<|im_start|>user")
    text = started.coverage.said("ours")
    assert text["random"] == "nothing"


def test_ours_with_parts_left_behind_and_parts_new(recipe_file, ours, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"has ctc_head\.bias, ctc_head\.weight, for which this model has no place; .*model\.drop: \[ctc_head\]"
    ):
        begin(recipe_file, f"model.init={ours}")
    started = begin(recipe_file, f"model.init={ours}", "model.drop=[ctc_head]")
    assert set(started.coverage.left) == {"ctc_head.bias", "ctc_head.weight"}
    assert "CTC head: 2 tensors" in started.coverage.said("x")["left behind"]
    with pytest.raises(CheckpointError, match=r"has no speech_input\.proj\.bias, speech_input\.proj\.weight; .*model\.fresh: \[speech_input\]"):
        begin(recipe_file, f"model.init={ours}", "model.speech_input={kind: mel-patch, patch: 8}", "model.drop=[speech_input]", *CTC)
    started = begin(recipe_file, f"model.init={ours}", "model.speech_input={kind: mel-patch, patch: 8}", "model.fresh=[speech_input]", *CTC)
    assert set(started.coverage.fresh) == {"speech_input.proj.bias", "speech_input.proj.weight"}
    anew = begin(recipe_file, f"model.init={ours}", "model.fresh=[ctc_head]", *CTC)
    assert anew.model.config.ctc_alphabet == "abc"
    copied = Path(shutil.copytree(ours, tmp_path / "encoder"))
    edit(copied, lambda tensors: tensors.update({"speech_input.encoders.0.weight": torch.zeros(2), "speech_input.encoders.1.weight": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"model\.drop: \[speech_input\.encoders\]"):
        begin(recipe_file, f"model.init={copied}", *CTC)
    said = begin(recipe_file, f"model.init={copied}", "model.drop=['speech_input.encoders']", *CTC).coverage.said("x")
    assert said["left behind"] == "speech input encoders: 2 tensors, 4"


def test_ours_with_other_features_or_another_shape(recipe_file, ours):
    with pytest.raises(ConfigError, match=r"data\.mel: the features differ"):
        begin(recipe_file, f"model.init={ours}", "data.mel=whisper-80", *CTC)
    with pytest.raises(CheckpointError, match=r"of another shape"):
        begin(recipe_file, f"model.init={ours}", "model.speech_input.channels=16", *CTC)
    assert begin(recipe_file, f"model.init={ours}", "data.mel=whisper-80", "model.fresh=[speech_input]", *CTC).coverage.fresh
    started = begin(recipe_file, f"model.init={ours}", "model.speech_attention=causal", "model.prompt=<|listen|><|speech|>", *CTC)
    assert started.decided["new speech attention"].startswith("'causal' where")
    assert started.decided["tokens"].startswith("<|listen|> added")
    assert begin(recipe_file, f"model.init={ours}", "model.speech_attention=null", *CTC).model.config.speech_attention == "bidirectional"


def test_adapters_of_ours_are_kept_merged_or_left(recipe_file, ours):
    kept = begin(recipe_file, f"model.init={ours}", *CTC).model.eval()
    merged = begin(recipe_file, f"model.init={ours}", "tune.llm=full", *CTC)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged.model.eval()(input_ids=ids).logits, kept(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert merged.model.config.lora is None
    assert "added to its weights" in merged.decided["LoRA"]
    with pytest.raises(ConfigError, match=r"has adapters with tune\.lora\.rank=4; say so too"):
        begin(recipe_file, f"model.init={ours}", "tune.lora.rank=8", *CTC)
    anew = begin(recipe_file, f"model.init={ours}", "tune.lora.rank=8", "model.fresh=[lora_]", *CTC)
    assert lora.lora_is_zero(anew.model)
    assert anew.model.config.lora["rank"] == 8


# --- what trains ---------------------------------------------------------------------------------------------------------------------------


def trained(run: Run) -> set[str]:
    return {name.replace(".base_layer.", ".") for name, parameter in run.model.named_parameters() if parameter.requires_grad}


def test_what_trains(recipe_file):
    nowhere = Path("nowhere")
    names = trained(run_of(recipe_file, nowhere))
    assert {name for name in names if not lora.is_lora(name)} == {name for name in names if name.startswith("speech_input.")}
    assert len([name for name in names if lora.is_lora(name)]) == 2 * 7 * 2
    frozen = run_of(recipe_file, nowhere, "tune.llm=frozen")
    assert trained(frozen) == {name for name in names if name.startswith("speech_input.")}
    assert "LLM layers none of" in frozen.decisions()["trains"]
    some = trained(run_of(recipe_file, nowhere, "tune.llm=full", r"tune.freeze=['layers\.0\.', 'embed_tokens']", "tune.keep=[input_layernorm]"))
    assert "llm.model.layers.0.input_layernorm.weight" in some
    assert not [name for name in some if ("layers.0." in name and "input_layernorm" not in name) or "embed_tokens" in name]
    assert "llm.model.layers.1.mlp.up_proj.weight" in some
    with pytest.raises(ConfigError, match="nothing is left to train"):
        run_of(recipe_file, nowhere, "tune.llm=frozen", "tune.freeze=[speech_input]")
    with pytest.raises(ConfigError, match=r"tune\.lora\.layers: 0-5 where the model has layers 0-1"):
        run_of(recipe_file, nowhere, "tune.lora.layers=0-5")
    with pytest.raises(ConfigError, match=r"is no list of layers"):
        run_of(recipe_file, nowhere, "tune.lora.layers=lower")
    with pytest.raises(ConfigError, match=r"matches no linear layer of the language model; there are down_proj"):
        run_of(recipe_file, nowhere, "tune.lora.targets=w1|w2")


def test_only_the_chosen_layers_adapters_change(recipe_file, tmp_path):
    run = run_of(recipe_file, tmp_path, "tune.lora.layers='0'", "train.steps=3")
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.trainer().train()
    changed = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name for name in changed if name.startswith("llm.")} == {name for name in before if lora.is_lora(name) and "layers.0." in name}


def test_the_speech_side_has_a_learning_rate_of_its_own(recipe_file, tmp_path):
    run = run_of(recipe_file, tmp_path, "tune.llm=full", "tune.speech_lr=0.5", "train.weight_decay=0.1")
    optimizer = run.trainer().create_optimizer()
    names = {id(parameter): name for name, parameter in run.model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert group["lr"] == (5e-3 if name.startswith("llm.") else 0.5), name
            assert group["weight_decay"] == (0.0 if "norm" in name or name.endswith("bias") else 0.1), name
    assert not names


def test_a_resumed_finetuning_is_an_uninterrupted_one(recipe_file, tmp_path):
    settings = ["train.steps=6", "train.save_every=3", "tune.lora.dropout=0.1", "tune.speech_lr=1e-2"]
    recipe = recipes.load(str(recipe_file), settings)
    whole = train(recipe, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "checkpoint-3", tmp_path / "cut" / "checkpoints" / "checkpoint-3")
    cut = train(recipe, tmp_path / "cut", resume="auto")
    one, two = (load_file(result.folder / "model.safetensors") for result in (whole, cut))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(lora.is_lora(name) for name in one)


def test_adapters_that_learnt_nothing_are_no_result(recipe_file, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"tune\.llm lora: no adapter would train \(all are frozen\)"):
        train(recipes.load(str(recipe_file), ["train.steps=2", "tune.freeze=[lora_]"]), tmp_path / "run")
    recipe = recipes.load(str(recipe_file), ["train.steps=1", "train.warmup=10"])  # a first step of no length
    with pytest.raises(CheckpointError, match="the adapters are zero after training"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    assert train(recipe, tmp_path / "smoke", smoke=1) is not None
    assert "warning: the adapters are zero" in capsys.readouterr().err


def test_a_dry_run_says_what_is_loaded_random_and_trained_and_what_it_takes(recipe_file, capsys):
    train(recipes.load(str(recipe_file)), Path("nowhere"), dry_run=True)
    lines = dict(line.strip().split("  ", 1) for line in capsys.readouterr().err.splitlines() if "  " in line.strip())
    assert "tensors" in lines["start"]
    assert lines["random"].strip().startswith("speech input: ")
    assert "LoRA: 28 tensors" in lines["random"]
    assert "speech input all" in lines["trains"]
    assert "LLM layers none of" in lines["trains"]
    assert "estimated" in lines["memory"]
    assert "<|speech|> added" in lines["tokens"]


# --- the command ---------------------------------------------------------------------------------------------------------------------------


def test_the_command_takes_a_model(melcli, recipe_file, llms, tmp_path):
    code, err = melcli("finetune", recipe_file, "--from", llms["gpt_neox"], "train.steps=2", "-o", tmp_path / "run")
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["text_config"]["model_type"] == "gpt_neox"
    assert config["lora"]["rank"] == 4
    assert "read again: logits within" in err


def test_the_backbone_of_a_recipe_gives_way_to_the_model(melcli, recipe_file, ours, tmp_path):
    settings = ["model.backbone={model_type: llama, hidden_size: 8}", *CTC]
    (tmp_path / "scratch.yaml").write_text(f"extends: {recipe_file}\nmodel: {{init: null, backbone: {{model_type: llama, hidden_size: 8}}}}\n")
    code, err = melcli("finetune", tmp_path / "scratch.yaml", "--from", ours, *CTC, "--dry-run")
    assert code == 0, err
    code, err = melcli("finetune", tmp_path / "scratch.yaml", *settings)
    assert code == 2
    assert "give --from MODEL, or model.init in the recipe" in err
