"""What a resumed training must be, and may change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melcli import recipe as recipes
from melcli.errors import ConfigError
from melcli.train import train
from tests.training.test_muon import RECIPE
from tests.training.tones import make_tones


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder)
    path = folder / "tones.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


@pytest.fixture
def begun(recipe_file: Path, tmp_path: Path) -> Path:
    """A run of 8 steps that was stopped after 4."""
    assert train(recipes.load(str(recipe_file)), tmp_path / "run", smoke=4) is not None
    return tmp_path / "run"


def steps(run: Path) -> int:
    return max(json.loads(file.read_text())["global_step"] for file in run.glob("checkpoints/checkpoint-*/trainer_state.json"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            "model.backbone.num_hidden_layers=1",
            r"model\.backbone\.num_hidden_layers 2, and the recipe has model\.backbone\.num_hidden_layers 1: another",
        ),
        ("model.ctc_units=tokens", r"model\.ctc_units characters, and the recipe has model\.ctc_units tokens: another model"),
        ("data.mel=whisper80", r"data\.mel phi4mm, and the recipe has data\.mel whisper80"),
        ("tune.freeze=[speech_input]", r"tune\.freeze \[\], and the recipe has tune\.freeze \['speech_input'\]"),
    ],
)
def test_another_model_does_not_go_on_from_it(recipe_file: Path, begun: Path, other: str, said: str) -> None:
    before = (begun / "recipe.yaml").read_bytes()
    with pytest.raises(ConfigError, match=said):
        train(recipes.load(str(recipe_file), [other]), begun, resume="auto")
    assert (begun / "recipe.yaml").read_bytes() == before


def test_other_settings_are_told(recipe_file: Path, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(recipes.load(str(recipe_file), ["train.steps=6", "name=other", "train.log_every=2"]), begun, resume="auto") is not None
    assert "resumed with other settings: train.steps 6, was 8\n" in capsys.readouterr().err
    assert steps(begun) == 6


def test_the_same_recipe_is_no_news(recipe_file: Path, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(recipes.load(str(recipe_file)), begun, resume="auto") is not None
    assert "other settings" not in capsys.readouterr().err
    assert steps(begun) == 8


def test_other_characters_than_the_head_learnt(recipe_file: Path, begun: Path) -> None:
    """They come with the training text, and would mean other classes."""
    data = recipe_file.parent
    (data / "other.jsonl").write_text((data / "tones.jsonl").read_text().replace("mid", "cat"))
    with pytest.raises(ConfigError, match=r"its CTC head hears ' dghilmow', and with this training text it would hear ' acghilotw'"):
        train(recipes.load(str(recipe_file), ["data.train=[{source: other.jsonl}]"]), begun, resume="auto")
