"""Muon beside AdamW, as one optimizer, and a speech input trained by CTC alone."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from melcli import recipe as recipes
from melcli.errors import CheckpointError, ConfigError, UsageError
from melcli.models import checkpoint
from melcli.train import train
from melcli.training.muon import muon_and_adamw
from melcli.transcribe import Transcriber
from tests.training.tones import tones_recipe

RECIPE = """
name: tones
seed: 5
data:
  root: {root}
  train:
    - {{source: tones.jsonl}}
  workers: 0
model:
  speech_input: {{kind: mel-tdnn, stride: 8, channels: 8, hidden: 32, inner: 64, layers: 3}}
  backbone: {{model_type: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 96}}
  ctc_weight: 1
  ctc_units: characters
  ctc_rate: 2
  ctc_from: speech-input
  tokenizer: {{vocab_size: 32}}
train:
  steps: 8
  tokens_per_batch: 512
  row_tokens: 128
  lr: 3.0e-3
  optimizer: muon
  save_every: 4
  log_every: 1
  log_to: []
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_recipe(tmp_path_factory.mktemp("tones"), RECIPE)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 12)
        self.hidden = nn.Linear(12, 10)
        self.ctc_head = nn.Linear(10, 5)

    def learn(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for step in range(steps):
            torch.manual_seed(step)
            loss = self.ctc_head(self.hidden(self.embed(torch.randint(7, (9,)))).tanh()).logsumexp(-1).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return muon_and_adamw(model, {"embed.weight", "hidden.weight", "ctc_head.weight"}, 0.01, (0.9, 0.98), 0.1)


def test_matrices_of_hidden_layers_go_to_muon_and_all_else_to_adamw() -> None:
    model = Small()
    adam, of_matrices = optimizer_of(model).parts
    assert [id(p) for group in of_matrices.param_groups for p in group["params"]] == [id(model.hidden.weight)]
    decayed, plain = adam.param_groups
    assert {id(p) for p in decayed["params"]} == {id(model.embed.weight), id(model.ctc_head.weight)} and decayed["weight_decay"] == 0.1
    assert {id(p) for p in plain["params"]} == {id(model.hidden.bias), id(model.ctc_head.bias)} and plain["weight_decay"] == 0.0


def test_a_muon_step_turns_a_matrix_in_all_directions_alike() -> None:
    """All singular values of the change are near one another, which those of a gradient are not."""
    torch.manual_seed(1)
    model = Small()
    before = model.hidden.weight.detach().clone()
    optimizer = muon_and_adamw(model, {"hidden.weight"}, 0.01, (0.9, 0.98), 0.0)
    model.learn(optimizer, 1)
    changed = torch.linalg.svdvals(model.hidden.weight.detach() - before)
    gradient = torch.linalg.svdvals(model.hidden.weight.grad)
    assert changed[0] / changed[6] < 4 and gradient[0] / gradient[6] > 10


def test_what_a_checkpoint_keeps_is_all_there_is() -> None:
    torch.manual_seed(1)
    one = Small()
    first = optimizer_of(one)
    one.learn(first, 3)
    two = copy.deepcopy(one)
    second = optimizer_of(two)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    one.learn(first, 2)
    two.learn(second, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_schedule_reaches_both() -> None:
    optimizer = optimizer_of(Small())
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.005}


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_training_is_an_uninterrupted_one(recipe_file: Path, tmp_path: Path) -> None:
    recipe = recipes.load(str(recipe_file))
    train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "cut", smoke=5)
    (tmp_path / "cut" / "model").rename(tmp_path / "smoke")
    train(recipe, tmp_path / "cut", resume="auto")
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_ctc_alone_teaches_the_speech_input_and_leaves_the_language_model(recipe_file: Path, tmp_path: Path) -> None:
    """The backbone is not even asked; both halves then go on together from there."""
    recipe = recipes.load(str(recipe_file), ["model.ce_weight=0", "train.steps=4"])
    result = train(recipe, tmp_path / "heard")
    assert result is not None
    again = recipes.load(str(recipe_file), ["model.ce_weight=0", "train.steps=1", "train.lr=1e-9"])
    train(again, tmp_path / "begun")
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("heard", "begun"))
    same = {name: torch.allclose(one[name], two[name], atol=1e-6) for name in one}
    assert all(equal for name, equal in same.items() if name.startswith("llm."))
    assert Transcriber.load(str(tmp_path / "heard"), device="cpu").decisions["decoding"].startswith("what the CTC head hears, greedily")
    with pytest.raises(UsageError, match="learnt to hear by CTC alone, and has nothing to search with: leave --beam"):
        Transcriber.load(str(tmp_path / "heard"), device="cpu", beam=4)
    assert not any(same[name] for name in same if name.startswith("speech_input.layers") and name.endswith("weight") and "norm" not in name)
    both = recipes.load(str(recipe_file), [f"model.init={tmp_path / 'heard'}", "train.steps=2"])
    assert train(both, tmp_path / "both") is not None
    model, _ = checkpoint.load(str(tmp_path / "both"))
    assert model.config.ctc_from == "speech-input"


def test_ctc_from_the_speech_input_does_not_depend_on_the_language_model(recipe_file: Path, tmp_path: Path) -> None:
    train(recipes.load(str(recipe_file), ["train.steps=1"]), tmp_path / "run")
    model, processor = checkpoint.load(str(tmp_path / "run"))
    batch = processor([torch.randn(16000)])
    with torch.no_grad():
        before = model(**batch).ctc_logits
        for parameter in model.llm.model.layers.parameters():
            parameter.add_(torch.randn_like(parameter))
        assert torch.equal(model(**batch).ctc_logits, before)
        model.config.ctc_from = "backbone"
        assert not torch.allclose(model(**batch).ctc_logits, before)


def test_a_listening_model_learns_words_by_ctc_alone_and_writes_them(recipe_file: Path, tmp_path: Path) -> None:
    more = ["model.ce_weight=0", "train.steps=150", "train.log_every=50", "train.eval_every=75", "data.eval=[{source: tones.jsonl}]"]
    result = train(recipes.load(str(recipe_file), more), tmp_path / "run")
    assert result is not None and result.rates["tones.jsonl"] < 20


def test_where_ctc_reads_is_as_it_was_learnt(recipe_file: Path, tmp_path: Path) -> None:
    train(recipes.load(str(recipe_file), ["train.steps=1"]), tmp_path / "run")
    begun = [f"model.init={tmp_path / 'run'}", "train.steps=1"]
    train(recipes.load(str(recipe_file), [*begun, "model.ctc_from=null"]), tmp_path / "same")
    assert checkpoint.load(str(tmp_path / "same"))[0].config.ctc_from == "speech-input"
    with pytest.raises(ConfigError, match=r"model.ctc_from backbone: the CTC head of model.init .* learnt to read from its speech-input"):
        train(recipes.load(str(recipe_file), [*begun, "model.ctc_from=backbone"]), tmp_path / "other")
    train(recipes.load(str(recipe_file), [*begun, "model.ctc_from=backbone", "model.fresh=[ctc_head]"]), tmp_path / "fresh")
    assert checkpoint.load(str(tmp_path / "fresh"))[0].config.ctc_from == "backbone"


@pytest.mark.parametrize(("first", "then"), [("adamw", "muon"), ("muon", "adamw")])
def test_another_optimizer_cannot_go_on(recipe_file: Path, tmp_path: Path, first: str, then: str) -> None:
    train(recipes.load(str(recipe_file), [f"train.optimizer={first}"]), tmp_path / "run", smoke=4)
    with pytest.raises(CheckpointError, match=f"made with another optimizer than train.optimizer {then}"):
        train(recipes.load(str(recipe_file), [f"train.optimizer={then}"]), tmp_path / "run", resume="auto")


def test_matrices_alone() -> None:
    """As adapters are, with everything else left as it is."""
    model = nn.Linear(4, 4, bias=False)
    optimizer = muon_and_adamw(model, {"weight"}, 0.01, (0.9, 0.98), 0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert len(optimizer.parts) == 1


def test_tables_classifiers_and_norms_are_adamws() -> None:
    model = nn.ModuleDict(
        {"wpe": nn.Embedding(5, 4), "codes": nn.Linear(4, 6), "stop": nn.Linear(4, 1), "q": nn.Linear(4, 4), "norm": nn.Linear(4, 4)}
    )
    optimizer = muon_and_adamw(model, {"wpe.weight", "codes.weight", "stop.weight", "q.weight"}, 0.01, (0.9, 0.98), 0.1)
    taken = {id(p) for group in optimizer.parts[1].param_groups for p in group["params"]}
    assert taken == {id(model["q"].weight)}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("train.parallel=fsdp", "optimizer muon needs whole matrices and parallel fsdp shares them out"),
        ("tune.speech_lr=1e-3", "train.optimizer muon has one learning rate"),
        ("train.optimizer=adam", "optimizer"),
        ("model.ctc_from=llm", "ctc_from"),
    ],
)
def test_what_cannot_be_is_said(recipe_file: Path, override: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        recipes.load(str(recipe_file), [override])
