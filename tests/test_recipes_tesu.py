"""The recipes of TESU-LLM train, one after the other as their comments say: a few steps each; what they take from the hub is small and made here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli import registry, sweep
from melcli.branches import branches
from melcli.models.checkpoint import load
from melcli.train import train
from melcli.train_unified import train_unified
from melcli.training.unified_data import read_pairs
from tests.models.encoder_makers import saved
from tests.models.unified_makers import save_seamless
from tests.test_recipes import SMALL, make_librispeech
from tests.training.llm_makers import qwen3

FEW = ["train.steps=2", "train.batch=4", "train.log_to=[]", "train.eval_limit=4", "train.log_every=1"]
WORDS = "data.train=[{source: 'robotutor:words?limit=12'}]"


@pytest.fixture(scope="module")
def encoder(shared_data, tmp_path_factory) -> Path:
    """Recipe tiny/unified-encoder, on a few words."""
    recipe = recipes.load("tiny/unified-encoder", [f"data.root={shared_data}", *FEW, WORDS])
    result = train_unified(recipe, tmp_path_factory.mktemp("runs") / "encoder")
    assert result is not None and list(result.recalls) == ["speechocean762:dev", "digits:test"]
    return result.folder


def test_tiny_encoder_hears_nobody_that_it_is_measured_on(shared_data):
    recipe = recipes.load("tiny/unified-encoder", [f"data.root={shared_data}"])
    learnt, _, _ = read_pairs(recipe.data.train, recipe.data, offline=True)
    held, _, _ = read_pairs(recipe.data.eval, recipe.data, offline=True)
    assert len(learnt) > 10000 and len(held) > 1500
    assert not {one.audio for one in learnt} & {one.audio for one in held}
    named = {one.speaker for one in held} - {None}
    assert len(named) > 70 and not named & {one.speaker for one in learnt}


def test_tiny_tesu_from_text_to_speech(shared_data, encoder, tmp_path):
    small = [f"data.root={shared_data}", f"model.speech_input.encoder={encoder}", *SMALL]
    few = "data.train=[{source: 'speechocean762:train?limit=20'}, {source: 'text/qa.jsonl.gz?limit=20'}]"
    assert train(recipes.load("tiny/tesu-lm", [*small, few]), tmp_path / "lm") is not None
    begun = f"model.init={tmp_path / 'lm' / 'model'}"
    result = train(recipes.load("tiny/tesu", [*small, begun, few]), tmp_path / "tesu")
    assert result is not None
    assert set(result.rates) == {"speechocean762:dev", "speechocean762:dev [repeat]", "digits:test"}
    before, after = load(str(tmp_path / "lm"))[0], load(str(tmp_path / "tesu"))[0]
    assert all(torch.equal(p, q) for p, q in zip(before.llm.parameters(), after.llm.parameters(), strict=True))
    found = branches(["digits:test"], str(tmp_path / "tesu"), limit=3, root=shared_data).as_dict()["sets"]["digits:test"]
    assert set(found["fed"]) == {"speech", "text", "shuffled speech"}


def test_the_modality_gap_is_about_three_settings(shared_data, encoder, tmp_path):
    members = sweep.members(recipes.read("ablations/modality_gap"))
    assert len(members) == 7 == len({recipes.digest(member.recipe) for member in members})
    base = recipes.load("tiny/tesu").model_dump()
    for member in members:
        ours = member.recipe.model_dump()
        assert {key for key in ours["model"] if ours["model"][key] != base["model"][key]} <= {"speech_input"}
        assert (ours["data"], ours["tune"], ours["train"] | {"steps": 1500}) == (base["data"], base["tune"], base["train"])
        front = member.recipe.model.speech_input
        assert {key for key in front if front[key] != base["model"]["speech_input"].get(key)} <= {"centre", "unit", "noise"}


def test_unified_encoder(tmp_path):
    """Its own path, with a small HuBERT in the place of the one that it names."""
    make_librispeech(tmp_path / "data")
    recipe = recipes.load("unified-encoder")
    assert recipe.unified.speech.input["model"].startswith("facebook/hubert")
    saved("hubert-large", tmp_path / "hubert")
    smaller = [f"unified.speech.input.model={tmp_path / 'hubert'}", "unified.width=16", "unified.hidden=24", "unified.heads=2"]
    for branch in ("speech", "text"):
        sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
        smaller += [f"unified.{branch}.backbone.{name}={size}" for name, size in sizes.items()]
    result = train_unified(recipes.load("unified-encoder", [f"data.root={tmp_path / 'data'}", *smaller, *FEW]), tmp_path / "run")
    assert result is not None and set(result.recalls) == {"librispeech:dev-clean", "librispeech:dev-other"}


def test_tesu(shared_data, tmp_path):
    """Its own path, with a small SeamlessM4T-v2 and a small chat model in the place of those that it names."""
    make_librispeech(tmp_path / "data")
    recipe = recipes.load("tesu")
    assert recipe.model.speech_input["encoder"] == "facebook/seamless-m4t-v2-large" and recipe.tune.llm == "frozen"
    folder, _ = save_seamless(tmp_path / "seamless")
    (tmp_path / "data" / "text").mkdir()
    (tmp_path / "data" / "text" / "qa.jsonl").write_text('{"question": "What is one?", "answer": "A number"}\n' * 3)
    smaller = [f"model.speech_input.encoder={folder}", f"model.init={qwen3(tmp_path / 'llm')}", "model.speech_input.hidden=32", "train.epochs=null"]
    result = train(recipes.load("tesu", [f"data.root={tmp_path / 'data'}", *smaller, *SMALL]), tmp_path / "run")
    assert result is not None
    assert set(result.rates) == {"librispeech:dev-clean", "librispeech:dev-clean [repeat]", "librispeech:dev-other"}
    model, processor = load(str(tmp_path / "run"))
    assert "instruct" in model.config.prompts and processor.task_prompts == model.config.prompts


def test_each_is_registered():
    assert {"tesu", "unified-encoder", "tiny/tesu", "tiny/tesu-lm", "tiny/unified-encoder"} <= set(registry.names("recipe"))
