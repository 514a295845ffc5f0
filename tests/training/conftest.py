"""Language models of eight families, a recipe that starts from one, and what it makes: each made once for all files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from melcli import cli, console
from melcli import recipe as recipes
from melcli.train import train
from tests.training.llm_makers import FAMILIES
from tests.training.tones import make_tones
from tests.training.tuned import CTC, RECIPE


@pytest.fixture(scope="session")
def llms(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("llms")
    return {name: make(folder / name) for name, make in FAMILIES.items()}


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory, llms) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder, 24)
    path = folder / "tuned.yaml"
    path.write_text(RECIPE.format(root=folder, init=llms["qwen3"]))
    return path


@pytest.fixture
def copy(llms, tmp_path) -> Path:
    """A Qwen3 to break."""
    return Path(shutil.copytree(llms["qwen3"], tmp_path / "broken"))


@pytest.fixture(scope="session")
def ours(recipe_file, tmp_path_factory) -> Path:
    """A model of ours with a CTC head and live adapters."""
    folder = tmp_path_factory.mktemp("ours")
    result = train(recipes.load(str(recipe_file), [*CTC, "train.steps=3"]), folder)
    assert result is not None
    return result.folder


@pytest.fixture
def melcli(capsys):
    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        return int(stopped.value.code or 0), capsys.readouterr().err

    yield run
    console.set_level(console.NORMAL)
