"""Every shipped recipe trains: a few steps of each on real or made recordings; a backbone by hub name is a small checkpoint of its family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from melcli import recipe as recipes
from melcli import registry
from melcli.audio import io
from melcli.models.tokenizer import train_tokenizer
from melcli.train import train

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
    assert set(registry.names("recipe")) == {"digits", "tiny-en", "librispeech", "openasr", "phi4mm"}


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


def made_librispeech(data: Path, **subsets: int) -> None:
    """So many utterances of noise a subset, laid out as LibriSpeech is."""
    generator = torch.Generator().manual_seed(2)
    for subset, count in subsets.items():
        chapter = data / "LibriSpeech" / subset.replace("_", "-") / "19" / "198"
        chapter.mkdir(parents=True)
        lines = []
        for number in range(count):
            io.save(chapter / f"19-198-{number:04d}.wav", 0.1 * torch.randn(24000, generator=generator), 16000)
            lines.append(f"19-198-{number:04d} SOME WORDS AND A NUMBER {'ONE ' * number}".strip())
        (chapter / "19-198.trans.txt").write_text("\n".join(lines) + "\n")


def test_librispeech_with_a_checkpoint_of_its_backbones_family(tmp_path):
    """The recipe's own path: a backbone and a tokenizer loaded by name, here a random Qwen3 of width 32 in a folder."""
    made_librispeech(tmp_path / "data", train_clean_100=6, dev_clean=2, dev_other=2)
    tokenizer = train_tokenizer(["some words and a number one"] * 3, 60)
    config = Qwen3Config(
        vocab_size=len(tokenizer) + 4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    overrides = [
        f"data.root={tmp_path / 'data'}",
        f"model.backbone={tmp_path / 'qwen'}",
        "model.speech_input.channels=8",
        "model.speech_input.hidden=16",
    ]
    result = train(recipes.load("librispeech", [*overrides, "train.epochs=null", *SMALL]), tmp_path / "run")
    assert result is not None
    assert set(result.rates) == {"librispeech:dev-clean", "librispeech:dev-other"}


@pytest.mark.parametrize("name", ["openasr", "phi4mm"])
def test_phi_recipes_with_a_small_phi3(name, tmp_path):
    """Phi-4-multimodal's language model is of the Phi-3 family; here one of width 32, and openasr's sources are a few utterances on disk."""
    made_librispeech(tmp_path / "data", train_clean_100=6, train_clean_360=2, train_other_500=2, dev_clean=2, dev_other=2)
    recipe = recipes.load(name)
    assert recipe.model.init == "microsoft/Phi-4-multimodal-instruct"
    assert (recipe.tune.llm, recipe.tune.lora.rank, recipe.tune.lora.alpha) == ("lora", 320, 640)
    tokenizer = train_tokenizer(["some words and a number one"] * 3, 60)
    config = Phi3Config(
        vocab_size=len(tokenizer) + 8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, pad_token_id=0
    )
    Phi3ForCausalLM(config).save_pretrained(tmp_path / "phi")
    tokenizer.save_pretrained(tmp_path / "phi")
    sources = ["data.train=[{source: 'librispeech:train-clean-100'}]", "data.eval=[{source: 'librispeech:dev-clean'}]"]
    small = [f"model.backbone={tmp_path / 'phi'}", "model.init=null", "model.speech_input.channels=8", "model.speech_input.hidden=16"]
    settings = [*SMALL, *small, "tune.llm=full", f"data.root={tmp_path / 'data'}", "train.epochs=null", *(sources if name == "openasr" else [])]
    assert train(recipes.load(name, settings), tmp_path / "run") is not None


def test_openasr_says_what_the_paper_does():
    recipe = recipes.load("openasr")
    t = recipe.train
    assert (t.parallel, t.lr, t.warmup, t.schedule, t.clip, t.epochs) == ("zero1", 1e-4, 9000, "linear", 1.0, 3)
    assert len({entry.source.split(":")[1] for entry in recipe.data.train}) == 10
