"""Fields of a recipe that save memory or time reach what computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli import recipe as recipes
from melcli.training.run import Run
from tests.training.test_train import RECIPE
from tests.training.tones import make_tones

SHORT = ["train.steps=2", "data.eval=[]", "data.workers=0", "model.backbone.attention_dropout=0"]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder, 12)
    path = folder / "tones.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


def run_of(recipe_file: Path, out: Path, *settings: str) -> Run:
    return Run(recipes.load(str(recipe_file), [*SHORT, *settings]), out)


def passes(recipe_file: Path, out: Path, *settings: str) -> tuple[list[torch.dtype | None], list[float]]:
    """For each time the first layer computes, the number format that products are made in, if it is not float32; and the losses."""
    run = run_of(recipe_file, out, *settings)
    seen: list[torch.dtype | None] = []

    def note(*_: object) -> None:
        seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)

    run.model.llm.model.layers[0].mlp.register_forward_pre_hook(note)
    trainer = run.trainer()
    trainer.train()
    return seen, [entry["loss"] for entry in trainer.state.log_history if "grad_norm" in entry]


def test_gradient_checkpointing_computes_layers_twice_and_changes_no_loss(recipe_file, tmp_path):
    plain, losses = passes(recipe_file, tmp_path / "plain")
    twice, same = passes(recipe_file, tmp_path / "twice", "train.gradient_checkpointing=true")
    assert (len(plain), len(twice)) == (2, 4)
    assert same == pytest.approx(losses, abs=1e-6)


def test_dtype_is_what_products_are_made_in(recipe_file, tmp_path):
    low, losses = passes(recipe_file, tmp_path / "low", "train.dtype=bfloat16")
    high, same = passes(recipe_file, tmp_path / "high", "train.dtype=float32")
    assert set(low) == {torch.bfloat16} and set(high) == {None}
    assert losses != same and losses == pytest.approx(same, rel=0.05)


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_compile_reaches_every_layer(recipe_file, wanted):
    run = run_of(recipe_file, Path("nowhere"), f"train.compile={wanted}")
    assert [layer._compiled_call_impl is not None for layer in run.model.llm.model.layers] == [wanted == "true"] * 2
    assert ("compiled" in run.decisions()) == (wanted == "true")


@pytest.mark.slow
def test_a_compiled_training_has_the_same_losses(recipe_file, tmp_path):
    plain = passes(recipe_file, tmp_path / "plain")[1]
    decoded = ["train.compile=true", "data.eval=[{source: 'tones.jsonl?limit=2'}]", "train.eval_every=2"]
    assert passes(recipe_file, tmp_path / "compiled", *decoded)[1] == pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize(("rows", "kind"), [(128, "eager: plain products are faster"), (1024, "sdpa: fused, with a mask")])
def test_attention_is_said_with_its_reason(recipe_file, rows, kind):
    run = run_of(recipe_file, Path("nowhere"), f"train.row_tokens={rows}", "train.tokens_per_batch=2048")
    assert run.decisions()["attention"].startswith(kind)
