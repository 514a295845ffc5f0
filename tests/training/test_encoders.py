"""Recipes with an encoder: they train, the model transcribes without the encoder's folder, and mistakes are one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli.audio import io
from melcli.errors import ConfigError
from melcli.models import checkpoint
from melcli.train import train
from melcli.training.run import Run
from tests.models.encoder_makers import ENCODERS, WHISPER, saved

RECIPE = """
name: encoders
seed: 5
data:
  root: {root}
  mel: whisper-80
  train:
    - {{source: clips.jsonl}}
  eval:
    - {{source: "clips.jsonl?limit=2"}}
  workers: 0
model:
  speech_input: {{kind: encoder, model: {root}/whisper, stack: 2}}
  backbone: {{model_type: llama, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 48}}
  tokenizer: {{vocab_size: 32}}
train:
  steps: 2
  tokens_per_batch: 512
  row_tokens: 128
  eval_every: 2
  save_every: 2
  log_every: 1
  log_to: []
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recordings, a recipe and a Whisper."""
    folder = tmp_path_factory.mktemp("encoders")
    generator = torch.Generator().manual_seed(1)
    rows = []
    for number in range(6):
        wave = 0.1 * torch.randn(8000 + 1000 * number, generator=generator)
        io.save(folder / f"{number}.wav", wave, 16000)
        rows.append({"audio": f"{number}.wav", "text": "one two three", "duration": len(wave) / 16000})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(RECIPE.format(root=folder))
    saved("whisper", folder / "whisper")
    return folder


def test_a_pretrained_encoder_trains_and_its_folder_is_not_needed_again(folder, tmp_path):
    shutil.copytree(folder / "whisper", tmp_path / "whisper")
    recipe = recipes.load(str(folder / "recipe.yaml"), [f"model.speech_input.model={tmp_path / 'whisper'}"])
    before = Run(recipe, tmp_path / "unused").model.speech_input.encoder.conv1.weight
    assert train(recipe, tmp_path / "run") is not None
    shutil.rmtree(tmp_path / "whisper")
    model, processor = checkpoint.load(str(tmp_path / "run"), offline=True)
    after = model.speech_input.encoder.conv1.weight
    assert not torch.equal(before, after)
    assert (before - after).abs().max() < 0.05
    assert model(**processor([torch.randn(8000)])).logits.isfinite().all()


def test_what_is_pretrained_is_neither_random_nor_measured_again(folder, tmp_path):
    ours = recipes.load(str(folder / "recipe.yaml"), ["model.speech_input={kind: mel-patch, norm: global}"])
    assert train(ours, tmp_path / "ours") is not None
    listener, _ = checkpoint.load(str(tmp_path / "ours"))
    normaliser = {name: statistic + 1 for name, statistic in listener.speech_input.normalise.state_dict().items()}  # of other speech
    listener.speech_input.normalise.load_state_dict(normaliser)
    listener.save_pretrained(tmp_path / "ours" / "model")
    recipe = recipes.load(str(folder / "recipe.yaml"), [f"model.speech_input={{kind: encoder, model: {tmp_path / 'ours'}, stack: 1}}"])
    run = Run(recipe, tmp_path / "run")
    found = run.model.speech_input.encoder.front.normalise.state_dict()
    assert all(torch.equal(found[name], statistic) for name, statistic in normaliser.items()) and found
    assert run.decisions()["pretrained"].startswith("speech input encoder: ") and "random" not in run.decisions()
    assert any(name.startswith("speech_input.") for name in run.started.coverage.fresh)  # what projects the encoder's states
    assert not any(name.startswith("speech_input.encoder.") for name in run.started.coverage.fresh)


@pytest.mark.parametrize("name", ["hubert", "parakeet"])
def test_an_encoder_of_the_waveform_trains(name, folder, tmp_path):
    options = json.dumps({"kind": "encoder", "config": ENCODERS[name]})
    assert train(recipes.load(str(folder / "recipe.yaml"), [f"model.speech_input={options}"]), tmp_path / "run") is not None


def test_fusion_measures_the_mel_of_its_inputs(folder, tmp_path):
    conv = {"kind": "mel-conv", "stride": 8, "channels": 4, "hidden": 8, "norm": "global"}
    options = json.dumps({"kind": "fusion", "inputs": [conv, {"kind": "encoder", "config": WHISPER, "stack": 4}]})
    model = Run(recipes.load(str(folder / "recipe.yaml"), [f"model.speech_input={options}"]), tmp_path / "run").model
    assert model.speech_input.inputs[0].normalise.global_mean.abs().min() > 0


def test_settings_that_cannot_be_are_named_before_anything_is_read(folder, tmp_path):
    def refused(*settings: str, offline: bool = True) -> str:
        with pytest.raises(ConfigError) as caught:
            Run(recipes.load(str(folder / "recipe.yaml"), [*settings, "data.train=[{source: absent.jsonl}]"]), tmp_path / "x", offline=offline)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "was trained on whisper-80" in refused("data.mel=phi4mm")
    hubert = json.dumps({"kind": "encoder", "config": ENCODERS["hubert"]})
    assert "reads 16000 Hz, not 24000 Hz" in refused(f"model.speech_input={hubert}", "data.mel=vocos-24k")
    assert "'conformer' is no known audio encoder" in refused("model.speech_input={kind: encoder, config: {model_type: conformer}}")
    assert "not on this machine" in refused("model.speech_input.model=nowhere/no-such-encoder")


def test_the_command_says_it_in_one_line(folder):
    command = [sys.executable, "-m", "melcli", "train", str(folder / "recipe.yaml"), "model.speech_input.model=nowhere/absent", "--offline"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert "model.speech_input.model: nowhere/absent: not a folder, and not on this machine" in " ".join(run.stderr.split())
