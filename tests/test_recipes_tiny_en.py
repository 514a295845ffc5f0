"""The recipes of the model in the box, and of the trials that led to it, as shipped but for their size."""

from __future__ import annotations

from pathlib import Path

from melcli import recipe as recipes
from melcli import sweep
from melcli.train import train
from tests.test_recipes import SMALL, used

SOURCES = {
    "speechocean762": "speechocean762:train?",
    "librispeech-train": "librispeech:train-clean-100?",
    "librispeech-dev": "librispeech:dev-clean?without=1272,1673,174,2412&",
    "robotutor-stories": "robotutor:stories?",
    "robotutor-words": "robotutor:words?",
    "digits": "digits:strings?",
}
EARS = {
    "tdnn": set(),
    "characters": {"model.ctc_units", "model.dictionary"},
    "conv-adamw": {"model.speech_input", "model.ctc_from", "model.ctc_rate", "train.optimizer", "train.lr"},
    "conv-muon": {"model.speech_input", "model.ctc_from", "model.ctc_rate"},
    "tdnn-adamw": {"train.optimizer", "train.lr"},
    "no-dropout": {"model.speech_input"},
    "no-warp": {"data.spec_augment"},
    "no-spec-augment": {"data.spec_augment"},
    "shallow": {"model.speech_input"},
    "ctc-25-hz": {"model.ctc_rate"},
    "positions-6-hz": {"model.speech_input", "model.ctc_rate", "train.tokens_per_batch", "train.row_tokens"},
    "more-synthetic": {"data.train"},
    "real-alone": {"data.train"},
    "synthetic-alone": {"data.train"},
}


def featurize_a_few(recipe, shared_data):
    """The shards that tiny-en's recipes name, of a dozen utterances each."""
    from melcli.featurize import featurize

    for entry in recipe.data.train:
        if entry.task == "text":
            continue
        source = "robotutor:words?limit=12" if "synth" in entry.source else f"{SOURCES[Path(entry.source).name]}limit=12"
        featurize(source, Path(entry.source), recipe.data.mel, jobs=1, root=shared_data)


def test_tiny_en(shared_data, tmp_path, monkeypatch):
    recipe = recipes.load("tiny-en")
    monkeypatch.chdir(tmp_path)
    featurize_a_few(recipe, shared_data)
    short = ["model.dictionary.texts=[text/qa.jsonl.gz]", *SMALL]  # the books take a minute and a half
    assert train(recipes.load("tiny-en-ear", [f"data.root={shared_data}", *short]), Path("runs/tiny-en-ear")) is not None
    used(Path("runs/tiny-en-ear"), "hears")
    sentences = [i for i, entry in enumerate(recipe.data.train) if entry.task == "text"]
    settings = [f"data.root={shared_data}", *(f"data.train.{i}.source=synth:en?hours=0.1&seed=7" for i in sentences), *SMALL]
    result = train(recipes.load("tiny-en", settings), tmp_path / "run")
    assert result is not None
    assert len(result.rates) == 3


def test_the_ears_differ_in_one_thing_each(shared_data, tmp_path, monkeypatch):
    members = {m.label.partition("=")[2]: m.recipe for m in sweep.members(recipes.read("ablations/ears"))}
    assert members.keys() == EARS.keys()
    base = members["tdnn"].model_dump()
    for name, recipe in members.items():
        ours = recipe.model_dump()
        differ = {f"{part}.{key}" for part in ("model", "data", "train") for key in ours[part] if ours[part][key] != base[part][key]}
        assert differ == EARS[name], name
    monkeypatch.chdir(tmp_path)
    featurize_a_few(members["tdnn"], shared_data)
    small = ["train.steps=2", "train.log_to=[]", "train.eval_limit=2", "train.eval_every=2", "data.workers=0"]
    here = sweep.members(recipes.read("ablations/ears", [f"data.root={shared_data}", *small]))
    for name in ("conv-adamw", "no-dropout", "positions-6-hz"):
        (found,) = (m.recipe for m in here if m.label.endswith(f"={name}"))
        found = found.model_copy(update={"model": found.model.model_copy(update={"dictionary": None})})  # the books take a minute and a half
        assert train(found, tmp_path / name) is not None
        used(tmp_path / name, "hears")


def test_adapt(shared_data, tmp_path):
    """What tiny-en has learnt is kept: with a learning rate of nothing it hears what it heard."""
    source, test = "data.train=[{source: 'robotutor:words?limit=12'}]", "data.eval=[{source: 'digits:test?limit=12'}]"
    small = [f"data.root={shared_data}", source, test, *SMALL, "train.eval_limit=12"]
    result = train(recipes.load("adapt", [*small, "train.lr=1e-9"]), tmp_path / "run")
    assert result is not None and result.rates["digits:test?limit=12"] < 10
    used(tmp_path / "run", "hears")
