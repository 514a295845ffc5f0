"""Training from shards behind an address: the same batches as from disk, from any step on, in any process."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
import torch

from melcli import recipe as recipes
from melcli.data import shard_maker
from melcli.data.batches import TrainingBatches
from melcli.errors import ConfigError
from melcli.featurize import featurize
from melcli.train import train
from melcli.training.run import Run
from tests.training.test_train import RECIPE
from tests.training.tones import make_tones

ADDRESS = "memory://bucket/tones"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Recordings, their shards of six utterances on disk, and the same behind an address."""
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_maker, "SHARD_UTTERANCES", 6)
        featurize(str(folder / "tones.jsonl"), folder / "shards", jobs=1)
    files = fsspec.filesystem("memory")
    for path in (folder / "shards").iterdir():
        files.pipe_file(f"/bucket/tones/{path.name}", path.read_bytes())
    assert len(list((folder / "shards").glob("*.safetensors"))) == 10
    return folder


@pytest.fixture
def batches(folder, tmp_path):
    def make(source: str, *settings: str) -> TrainingBatches:
        path = tmp_path / "tones.yaml"
        path.write_text(RECIPE.format(root=folder))
        chosen = [
            f"data.train=[{{source: '{source}'}}]",
            "data.augment=null",
            "train.tokens_per_batch=128",
            f"data.cache.folder={tmp_path / 'cache'}",
        ]
        return Run(recipes.load(str(path), [*chosen, *settings]), Path("nowhere")).dataset()

    return make


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("shuffle", ["global", "shards"])
def test_the_same_batches_as_from_disk(batches, folder, tmp_path, shuffle):
    here = batches("shards", f"data.shuffle={shuffle}")
    there = batches(ADDRESS, f"data.shuffle={shuffle}")
    assert len(here) == len(there) == 12
    loader = torch.utils.data.DataLoader(there, batch_size=None, num_workers=1)  # a process of its own fetches
    for step, batch in enumerate(loader):
        assert same(batch, here[step])
    again = batches(ADDRESS, f"data.shuffle={shuffle}", f"data.cache.folder={tmp_path / 'other'}", "data.cache.gigabytes=1e-6")
    assert same(again[7], here[7])  # as a resumed training begins, with room for no shard but the one in use
    assert same(again[8], here[8])


def test_shards_are_read_ahead(batches, tmp_path):
    data = batches(ADDRESS, "data.shuffle=shards")
    told: list[int] = []
    data.features.ahead = lambda indices: told.extend(indices)
    data[3]
    wanted = [i for step in range(3, 12) for row in data.plan.locate(step)[1] for i in row]
    assert told == wanted
    data[4]
    assert told == wanted  # each batch is told of once


def test_a_training_goes_through(folder, tmp_path):
    path = tmp_path / "tones.yaml"
    path.write_text(RECIPE.format(root=folder))
    settings = [f"data.train=[{{source: '{ADDRESS}'}}]", f"data.cache.folder={tmp_path / 'cache'}", "data.shuffle=shards", "train.steps=3"]
    assert train(recipes.load(str(path), [*settings, "data.eval=[]", "data.workers=0"]), tmp_path / "run") is not None


def test_an_address_that_holds_nothing_is_named(batches):
    with pytest.raises(Exception, match=r"memory://bucket/none/features\.json: no such file"):
        batches("memory://bucket/none")


def test_mixture_reaches_the_plan(batches):
    data = batches("shards", "data.train=[{source: shards, weight: 3}, {source: 'tones.jsonl?limit=20', weight: 1}]")
    assert len(data.plan.repeats) == 80
    assert len(set(data.plan.repeats[:60])) == len(set(data.plan.repeats[60:])) == 1
    frames = torch.tensor(data.features.frames)
    heard = torch.tensor(data.plan.repeats) * frames
    assert float(heard[:60].sum() / heard.sum()) == pytest.approx(0.75)
    assert float(heard.sum()) == pytest.approx(float(frames.sum()))
    with pytest.raises(ConfigError, match="has both"):
        batches("shards", "data.train=[{source: shards, weight: 3, repeat: 2}]")


@pytest.mark.parametrize("source", ["shards", ADDRESS])
def test_evaluation_does_not_take_features(folder, tmp_path, source):
    path = tmp_path / "tones.yaml"
    path.write_text(RECIPE.format(root=folder))
    recipe = recipes.load(str(path), [f"data.eval=[{{source: '{source}'}}]", "data.workers=0"])
    with pytest.raises(ConfigError, match=rf"data\.eval: {source} holds features, and evaluation reads audio"):
        train(recipe, tmp_path / "run", dry_run=True)
