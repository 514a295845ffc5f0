"""`melcli train`: from a recipe to a model."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from melcli import config as yaml_config
from melcli import console, launch
from melcli.errors import ConfigError, is_out_of_memory
from melcli.files import alone, put_in_place, write_text, writing
from melcli.recipe import Recipe
from melcli.training import parallel, setup
from melcli.training.finish import TrainResult, finish
from melcli.training.resume import RECIPE, check_model, check_recipe, resume_from
from melcli.training.run import Run
from melcli.training.steps_state import COMPLETE
from melcli.training.trainer import REMEDY, tidy


def default_folder(recipe: Recipe) -> Path:
    """Where a run goes that was given no -o."""
    return Path("runs") / recipe.name


def train(
    recipe: Recipe, out: Path | None = None, *, resume: str | None = None, smoke: int | None = None, dry_run: bool = False, offline: bool = False
) -> TrainResult | None:
    """Train as the recipe says.

    out: folder of the run: `model/` (the result), `checkpoints/`, `snapshots/`, `recipe.yaml`. resume: `auto`, or a checkpoint folder.
    smoke: stop after so many steps. dry_run: set everything up, say what was decided, run one batch, write nothing. offline: download nothing.
    Returns None where nothing was finished, and in all processes of a distributed training but the first.
    """
    if recipe.sweep is not None:
        raise ConfigError(f"recipe {recipe.name} is a sweep of many trainings: `melcli train` runs them; this takes one of them")
    transformers_logging.disable_progress_bar()  # of saving a file: our own lines say what goes on
    out = out or default_folder(recipe)
    with nullcontext() if dry_run or not launch.is_first() else alone(out, "training"):
        return _train(recipe, out, resume, smoke, dry_run, offline)


def _train(recipe: Recipe, out: Path, resume: str | None, smoke: int | None, dry_run: bool, offline: bool) -> TrainResult | None:
    start = None if dry_run else resume_from(out, resume)
    if start is not None:
        check_recipe(start, recipe)
    run = Run(recipe, out, resuming=start is not None, offline=offline)
    if start is not None:
        parallel.check_layout(start / COMPLETE, run.parallel)
        check_model(start, run.model)
    console.decided(run.decisions())
    if dry_run:
        _try_largest(run)
        return None
    trainer = run.trainer(smoke)
    if trainer.is_world_process_zero():
        tidy(out)
        write_text(out / RECIPE, yaml_config.dump_yaml(recipe))
        _keep_tokenizer(run, start is not None)
    if start is not None:
        console.note(f"resuming from {start}")
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    if trainer.state.global_step < run.steps and not smoke:
        console.note(f"stopped at step {trainer.state.global_step} of {run.steps}; continue with --resume auto")
        return None
    result = finish(run, trainer, smoke=smoke is not None)
    return result if trainer.is_world_process_zero() else None


def _keep_tokenizer(run: Run, resuming: bool) -> None:
    """Write the tokenizer that a resumed run is to have, whole or not at all."""
    folder = run.out / "tokenizer"
    if resuming and (folder / "tokenizer.json").exists():
        return
    partial = folder.with_name(".tokenizer.partial")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        run.tokenizer.save_pretrained(partial)
        put_in_place(partial, folder)


def _try_largest(run: Run) -> None:
    """One step with the largest batch: whether memory suffices is known before the training starts."""
    setup.evaluation_sets(run.recipe.data, run.recipe.train.eval_limit, run.offline, front=run.front)
    dataset = run.dataset()
    largest = run.plan.largest()
    run.plan.locate = lambda step: (0, largest)  # type: ignore[method-assign]
    batch = {name: tensor.to(run.device) for name, tensor in dataset[0].items()}
    model = run.model.to(run.device).train()
    try:
        with torch.autocast(run.device, run.dtype, enabled=run.dtype != torch.float32):
            loss = model(**batch).loss
        loss.backward()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ConfigError(f"the memory does not hold the largest batch, {batch['input_ids'].numel()} positions; {REMEDY}") from None
    console.note(f"the largest batch, {batch['input_ids'].numel()} positions, went through: loss {float(loss.detach()):.3f}")
