"""Training as a user runs it: on tones that stand for words, small enough for seconds, real from recipe to model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.errors import ConfigError
from melcli.models import checkpoint
from melcli.models.decoding.beam import Beam
from melcli.train import train
from melcli.training.evaluation import Evaluation
from melcli.training.run import Run
from tests.training.tones import make_tones

RECIPE = """
name: tones
seed: 5
data:
  root: {root}
  train:
    - {{source: tones.jsonl}}
  eval:
    - {{source: "tones.jsonl?limit=12"}}
  augment: {{speed: [0.95, 1.05], room_probability: 0.5}}
  spec_augment: {{frequency_masks: 1}}
  workers: 1
model:
  speech_input: {{kind: mel-conv, stride: 8, channels: 8, hidden: 32, norm: global}}
  backbone: {{model_type: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 96,
              attention_dropout: 0.1}}
  speech_attention: bidirectional
  ctc_weight: 0.5
  tokenizer: {{vocab_size: 32}}
train:
  steps: 12
  tokens_per_batch: 512
  row_tokens: 128
  lr: 3.0e-3
  eval_every: 6
  save_every: 6
  log_every: 1
  average: 2
  log_to: []
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder)
    path = folder / "tones.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


def losses(out: Path, step: int) -> list[tuple[int, float, float]]:
    history = json.loads((out / "checkpoints" / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in history if "grad_norm" in entry]


def command(recipe_file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "melcli", "train", str(recipe_file), "-o", str(out), *more]


def test_a_killed_and_resumed_training_is_an_uninterrupted_one(apart, recipe_file, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = apart("train", recipe_file, "-o", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "padding" in whole.stderr
    assert "data wait" in whole.stderr
    running = subprocess.Popen(command(recipe_file, tmp_path / "cut"), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.time() + 200
    while not (tmp_path / "cut" / "checkpoints" / "checkpoint-6" / "complete").exists():
        assert time.time() < deadline
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "cut" / "model").exists()
    again = apart("train", recipe_file, "-o", tmp_path / "cut")
    assert again.returncode == 2
    assert "holds a run already: add --resume auto" in again.stderr
    resumed = apart("train", recipe_file, "-o", tmp_path / "cut", "--resume", "auto")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from" in resumed.stderr
    assert losses(tmp_path / "whole", 12) == losses(tmp_path / "cut", 12)
    assert len(losses(tmp_path / "cut", 12)) == 12
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_sigterm_to_all_processes_saves_and_stops(recipe_file, tmp_path):
    """As Slurm, systemd and containers send it: to the processes that load data, too."""
    running = subprocess.Popen(
        command(recipe_file, tmp_path / "run", "train.steps=100000", "train.eval_every=100000", "train.save_every=100000"),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stderr is not None
    before = next(line for line in running.stderr if line.startswith("step 3/"))
    os.killpg(running.pid, signal.SIGTERM)
    after = running.stderr.read()
    assert running.wait(timeout=100) == 143, before + after  # what follows in a script must not take it for done
    assert "continue with --resume auto" in after and after.endswith("terminated\n") and "Traceback" not in after
    assert len(list((tmp_path / "run" / "checkpoints").glob("checkpoint-*/complete"))) == 1


def test_it_learns_and_the_model_transcribes(recipe_file, tmp_path):
    recipe = recipes.load(
        str(recipe_file),
        [
            "train.steps=240",
            "train.lr=5e-3",
            "train.eval_every=120",
            "train.log_every=60",
            "data.augment=null",
            "data.spec_augment=null",
            "model.backbone.attention_dropout=0",
        ],
    )
    result = train(recipe, tmp_path / "run")
    assert result is not None
    assert result.rates["tones.jsonl?limit=12"] < 20
    model, processor = checkpoint.load(str(tmp_path / "run"))
    assert processor.spec.n_mels == 80
    assert (tmp_path / "run" / "model" / "recipe.yaml").exists()
    assert recipes.load(str(tmp_path / "run" / "model" / "recipe.yaml")) == recipe
    assert model.speech_input.normalise.global_mean.abs().sum() > 0


def test_a_dry_run_says_all_and_writes_nothing(recipe_file, tmp_path, capsys):
    recipe = recipes.load(str(recipe_file))
    assert train(recipe, tmp_path / "run", dry_run=True) is None
    err = capsys.readouterr().err
    for word in ("device", "dtype", "parameters", "padding", "the largest batch"):
        assert word in err
    assert not (tmp_path / "run").exists()


def test_broken_audio_is_left_out_and_said_once(recipe_file, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    make_tones(folder, 8)
    (folder / "3.wav").write_bytes(b"")
    recipe = recipes.load(str(recipe_file), [f"data.root={folder}", "train.steps=4", "data.eval=[]", "data.workers=0"])
    train(recipe, tmp_path / "run")
    assert capsys.readouterr().err.count("left out of training") == 1


def test_longer_than_the_limit_is_counted(recipe_file):
    run = Run(recipes.load(str(recipe_file), ["data.max_seconds=0.6"]), Path("nowhere"))
    assert run.data.left_out == {"longer than data.max_seconds 0.6": 30}
    assert len(run.data.features.utterances) == 30


def test_options_that_cannot_be_are_named(recipe_file):
    with pytest.raises(ConfigError, match=r"data.augment.sped.*valid: speed"):
        Run(recipes.load(str(recipe_file), ["data.augment.sped=[1,2]"]), Path("nowhere"))
    with pytest.raises(ConfigError, match="exactly one of epochs and steps"):
        recipes.load(str(recipe_file), ["train.epochs=3"])
    with pytest.raises(ConfigError, match=r"model\.backbone"):
        Run(recipes.load(str(recipe_file), ["model.backbone.model_type=lama"]), Path("nowhere"))


def test_the_rates_that_are_kept_are_those_of_the_models_own_decoding(recipe_file, tmp_path, monkeypatch):
    """Candidates are compared greedily; what evaluation.json says is what the finished model does, here with three beams."""
    measured = []

    class Watched(Evaluation):
        def __call__(self, model, strategy=None):
            measured.append((strategy, super().__call__(model, strategy)))
            return measured[-1][1]

    monkeypatch.setattr("melcli.training.run.Evaluation", Watched)
    result = train(recipes.load(str(recipe_file), ["model.beam=3", "train.steps=2", "train.eval_every=2"]), tmp_path / "run")
    assert result is not None
    assert [strategy for strategy, _ in measured[:-1]] == [None] * (len(measured) - 1)
    assert measured[-1] == (Beam(3), result.rates)
    assert json.loads((result.folder / "evaluation.json").read_text()) == result.rates
