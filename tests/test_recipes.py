"""Every shipped recipe trains: a few steps of each on real or made recordings; a language model by hub name is a small checkpoint of its family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli import registry
from melcli.audio import io
from melcli.train import train
from tests.training.llm_makers import qwen3, smollm2

SMALL = [
    "train.steps=2",
    "train.tokens_per_batch=512",
    "train.log_to=[]",
    "train.eval_limit=2",
    "train.eval_every=2",
    "data.workers=0",
    "train.log_every=1",
]


def test_every_recipe_is_tried_here():
    assert set(registry.names("recipe")) == {"digits", "tiny-en", "librispeech", "finetune", "counterpart"}


@pytest.mark.parametrize("name", registry.names("recipe"))
def test_every_recipe_loads_and_documents_its_command(name):
    recipe = recipes.load(name)
    assert recipe.name == name
    assert f"melcli train recipes/{name}.yaml" in Path(registry.get("recipe", name).load()).read_text()


def test_digits(shared_data, tmp_path):
    result = train(recipes.load("digits", [f"data.root={shared_data}", *SMALL]), tmp_path / "run")
    assert result is not None
    assert set(result.rates) == {"digits:test"}


def test_tiny_en(shared_data, tmp_path, monkeypatch):
    from melcli.featurize import featurize

    recipe = recipes.load("tiny-en")
    monkeypatch.chdir(tmp_path)
    for entry in recipe.data.train:
        if entry.task == "text":
            continue
        source = "robotutor:words?limit=12" if "synth" in entry.source else f"{SOURCES[Path(entry.source).name]}limit=12"
        featurize(source, Path(entry.source), recipe.data.mel, jobs=1, root=shared_data)
    result = train(recipes.load("tiny-en", [f"data.root={shared_data}", *SMALL]), tmp_path / "run")
    assert result is not None
    assert len(result.rates) == 3


SOURCES = {
    "speechocean762": "speechocean762:train?",
    "librispeech-train": "librispeech:train-clean-100?",
    "librispeech-dev": "librispeech:dev-clean?without=1272,1673,174,2412&",
    "robotutor-stories": "robotutor:stories?",
    "robotutor-words": "robotutor:words?",
    "digits": "digits:strings?",
}


def test_the_counterpart_differs_in_its_speech_input_alone():
    free, counterpart = (recipes.load(name).model_dump() for name in ("librispeech", "counterpart"))
    front, encoder = free["model"].pop("speech_input"), counterpart["model"].pop("speech_input")
    assert {**front, "kind": "phi4mm-encoder"}.items() <= encoder.items()
    assert [key for key in free if free[key] != counterpart[key]] == ["name", "summary"]


def make_librispeech(root: Path) -> None:
    """A few recordings of noise in LibriSpeech's layout."""
    generator = torch.Generator().manual_seed(2)
    for subset, count in (("train-clean-100", 6), ("dev-clean", 2), ("dev-other", 2)):
        chapter = root / "LibriSpeech" / subset / "19" / "198"
        chapter.mkdir(parents=True)
        lines = []
        for number in range(count):
            io.save(chapter / f"19-198-{number:04d}.wav", 0.1 * torch.randn(24000, generator=generator), 16000)
            lines.append(f"19-198-{number:04d} SOME WORDS AND A NUMBER {'ONE ' * number}".strip())
        (chapter / "19-198.trans.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("name", "smaller"), [("librispeech", []), ("finetune", []), ("counterpart", ["blocks=2", "heads=2", "ffn=24"])])
def test_recipes_that_start_from_a_language_model_by_name(name, smaller, tmp_path):
    """Their own path, the model being a small one in a folder, of the family that the recipe names."""
    make_librispeech(tmp_path / "data")
    llm = {"finetune": smollm2}.get(name, qwen3)(tmp_path / "llm")
    overrides = [f"data.root={tmp_path / 'data'}", f"model.init={llm}", "model.speech_input.channels=8", "model.speech_input.hidden=16"]
    overrides += [f"model.speech_input.{setting}" for setting in smaller]
    result = train(recipes.load(name, [*overrides, "train.epochs=null", *SMALL]), tmp_path / "run")
    assert result is not None
    assert all(rate.startswith("librispeech:dev-clean") or rate == "librispeech:dev-other" for rate in result.rates)
