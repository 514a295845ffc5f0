"""What the tests of finetuning share: a recipe, a model begun from it, a file of weights to change."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from melcli import recipe as recipes
from melcli.models.start import Started, identify, start
from melcli.training.run import Run

RECIPE = """
name: tuned
seed: 5
data:
  root: {root}
  train:
    - {{source: tones.jsonl}}
  text: none
  workers: 0
model:
  init: {init}
  speech_input: {{kind: mel-conv, stride: 8, channels: 8, hidden: 32, norm: global}}
  speech_attention: bidirectional
tune:
  llm: lora
  lora: {{rank: 4, alpha: 8}}
train:
  steps: 10
  tokens_per_batch: 256
  row_tokens: 128
  lr: 5.0e-3
  warmup: 1
  schedule: constant
  save_every: 10
  log_every: 1
  log_to: []
"""
CTC = ["model.ctc_weight=0.3", "model.ctc_units=characters"]


def begin(recipe_file: Path, *settings: str) -> Started:
    recipe = recipes.load(str(recipe_file), list(settings))
    return start(identify(recipe.model.init), recipe, "abc")


def run_of(recipe_file: Path, out: Path, *settings: str) -> Run:
    return Run(recipes.load(str(recipe_file), list(settings)), out)


def edit(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
