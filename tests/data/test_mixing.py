"""Shares of several sources in an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from melcli.data.mixing import repeats
from melcli.data.packing import BatchPlan
from melcli.errors import ConfigError
from melcli.recipe import load

HOURS = [900.0, 90.0, 10.0]


def shares(times: list[float]) -> list[float]:
    heard = [t * h for t, h in zip(times, HOURS, strict=True)]
    assert sum(heard) == pytest.approx(sum(HOURS))  # an epoch stays as long
    return [h / sum(heard) for h in heard]


def test_temperature_one_draws_everything_once_and_more_evens_out():
    assert repeats(HOURS) == pytest.approx([1, 1, 1])
    assert shares(repeats(HOURS, temperature=2)) == pytest.approx(np.sqrt(HOURS) / np.sqrt(HOURS).sum())
    assert shares(repeats(HOURS, temperature=1e6)) == pytest.approx([1 / 3] * 3, abs=1e-4)


def test_weights_are_shares():
    assert shares(repeats(HOURS, [2, 1, 1])) == pytest.approx([0.5, 0.25, 0.25])


def test_the_plan_draws_by_them():
    lengths, times = [10] * 1000, repeats([900, 100], [1, 1])
    plan = BatchPlan(lengths, fingerprint="x", repeats=[times[0]] * 900 + [times[1]] * 100, tokens_per_batch=200, row_tokens=100)
    drawn = [i for batch in plan.batches(0) for row in batch for i in row]
    assert len(drawn) == pytest.approx(1000, rel=0.05)
    assert np.mean(np.asarray(drawn) >= 900) == pytest.approx(0.5, abs=0.03)
    assert drawn == [i for batch in plan.batches(0) for row in batch for i in row]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.train.0.weight=2", "data.train.0.repeat=3"], "has both repeat and weight"),
        (["data.train.0.weight=2"], "give one to every source of train, or to none"),
        (["data.mix.temperature=2", "data.train.0.repeat=3"], "mix sets how often each source is drawn"),
        (["data.train=[{source: a, weight: 1}, {source: b, weight: 1, task: text}]"], "b is text alone: use repeat"),
        (["data.mix.temperature=0.5"], "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        load("digits", ["data.train=[{source: a}, {source: b}]", *settings])


def test_a_saved_recipe_loads_again(tmp_path):
    from melcli.config import dump_yaml

    recipe = load("digits", ["data.train=[{source: a, weight: 1}, {source: b, weight: 2}]"])
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe))
    assert load(str(tmp_path / "recipe.yaml")) == recipe
