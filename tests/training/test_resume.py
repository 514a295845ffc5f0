"""What a resumed training must be, and may change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from melcli import recipe as recipes
from melcli.errors import CheckpointError, ConfigError
from melcli.train import train
from tests.training.test_muon import RECIPE
from tests.training.tones import tones_recipe


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones_recipe(tmp_path_factory.mktemp("tones"), RECIPE)


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
        ("model.backbone.num_hidden_layers=1", r"a model with text_config\.num_hidden_layers 2, and this recipe and data make one with 1: it cannot"),
        ("model.ctc_units=tokens", r"a model with ctc_alphabet ' dghilmow', and this recipe and data make one with None"),
        ("data.mel=whisper-80", r"a model with mel\.\w+ "),
        ("tune.freeze=[speech_input]", r"begun with tune\.freeze \[\], and now tune\.freeze \['speech_input'\]: other parts train"),
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
    with pytest.raises(ConfigError, match=r"a model with ctc_alphabet ' dghilmow', and this recipe and data make one with ' acghilotw'"):
        train(recipes.load(str(recipe_file), ["data.train=[{source: other.jsonl}]"]), begun, resume="auto")


def rates(run: Path) -> dict[int, float]:
    newest = max(run.glob("checkpoints/checkpoint-*/trainer_state.json"), key=lambda file: json.loads(file.read_text())["global_step"])
    return {one["step"]: one["learning_rate"] for one in json.loads(newest.read_text())["log_history"] if "learning_rate" in one}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_another_learning_rate_is_taken(recipe_file: Path, tmp_path: Path, optimizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"train.optimizer={optimizer}"]
    for name, more in (("same", []), ("lower", ["train.lr=1e-3", "train.weight_decay=0.2"])):
        run = tmp_path / name
        assert train(recipes.load(str(recipe_file), settings), run, smoke=4) is not None
        assert train(recipes.load(str(recipe_file), settings + more), run, resume="auto") is not None
    assert "resumed with other settings: train.lr 0.001, was 0.003; train.weight_decay 0.2, was" in capsys.readouterr().err
    same, lower = rates(tmp_path / "same"), rates(tmp_path / "lower")
    assert lower[4] == same[4]
    assert [lower[step] for step in (6, 7, 8)] == pytest.approx([same[step] / 3 for step in (6, 7, 8)])


def test_groups_that_the_optimizer_did_not_have(recipe_file: Path, tmp_path: Path) -> None:
    settings = ["train.optimizer=adamw"]
    assert train(recipes.load(str(recipe_file), settings), tmp_path / "run", smoke=4) is not None
    with pytest.raises(CheckpointError, match=r"trained other parameters, or with tune\.speech_lr"):
        train(recipes.load(str(recipe_file), [*settings, "tune.speech_lr=1e-3"]), tmp_path / "run", resume="auto")


def test_a_run_of_another_version(recipe_file: Path, begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its recipe may have what this one has not, and numbers where this one has none."""
    path = begun / "recipe.yaml"
    path.write_text(path.read_text().replace("ctc_rate: 2\n", "ctc_rate: 2\n  renamed_since: 1\n"))
    assert train(recipes.load(str(recipe_file)), begun, resume="auto") is not None
    assert "cannot be compared with this recipe" in capsys.readouterr().err
    assert recipes.digest(recipes.load(str(recipe_file), ["model.ctc_rate=1"])) == recipes.digest(
        recipes.load(str(recipe_file), ["model.ctc_rate=null"])
    )
