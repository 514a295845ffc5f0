"""The end of a training: which weights become the model, what is written of them, and whether that can be read again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from melcli import config as yaml_config
from melcli import console, launch
from melcli.data.origin import origin
from melcli.errors import CheckpointError
from melcli.models import checkpoint, lora
from melcli.models.card import model_card
from melcli.models.hardware import DTYPES
from melcli.models.speech_lm import SpeechLM
from melcli.models.speech_lm_recogniser import choose_strategy
from melcli.recipe import TRAINING, Recipe, digest
from melcli.training import measures, parallel, verify
from melcli.training.evaluation import quick_strategy
from melcli.training.progress import Stopwatch
from melcli.training.run import Run
from melcli.training.setup import locate
from melcli.training.trainer import SpeechTrainer


@dataclass(frozen=True)
class TrainResult:
    """Where the model is, which weights it holds, and what was measured of it by evaluation set (training/measures.py)."""

    folder: Path
    chosen: str
    rates: dict[str, float]


def finish(run: Run, trainer: SpeechTrainer, smoke: bool = False) -> TrainResult:
    """Choose among the last, the best and the averaged weights by what they measure on the evaluation sets, write the model and read it again.

    Decoding is quick until then (`quick_strategy`); the measurements that are kept are those of the model's own decoding, which may be beam search.

    Called by all processes; the first one writes. Raises CheckpointError there where the adapters of the model have learnt nothing; after a smoke
    run that is only said.
    """
    record = _record(run, trainer)
    written = parallel.Agreement()  # waits on processors: the others may have to for longer than GPUs wait for each other
    model = trainer.speech_lm
    last = parallel.moving_state(model)
    candidates = _candidates(run, trainer) if parallel.is_first() else {}
    results: dict[str, dict[str, float]] = {}
    for name in launch.gather([list(candidates)])[0]:
        parallel.load_full(model, last | candidates.get(name, {}))
        results[name] = trainer.measurements()
    chosen = min(results, key=lambda name: measures.overall(results[name]))
    parallel.load_full(model, last | candidates.get(chosen, {}))
    strategy, decoding = choose_strategy(model, None, None)
    if results[chosen] and strategy != quick_strategy(model):
        console.note(f"measuring the chosen weights once more, as the model decodes: {decoding}")
        results[chosen] = trainer.measurements(strategy)
    result = TrainResult(run.out / "model", chosen, results[chosen])
    whole = parallel.gathered(trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False), run.out)  # without autocast around it
    if whole is not None:
        _settle_lora(whole, run.recipe, smoke)
        _write(run, whole, result, record)
    written(True)
    return result


def _candidates(run: Run, trainer: SpeechTrainer) -> dict[str, dict[str, Tensor]]:
    """Weights that may become the model, by what they are; none for the last ones, which the model has."""
    candidates: dict[str, dict[str, Tensor]] = {"last": {}}
    snapshots = trainer.snapshots
    if snapshots.rates:
        candidates["best"] = checkpoint.load_tensors(snapshots.path(snapshots.best()))
        latest = [snapshots.path(step) for step in snapshots.latest()]
        if run.recipe.train.average > 1 and len(latest) > 1:
            candidates[f"average of {len(latest)}"] = checkpoint.average(latest)
    return candidates


def _settle_lora(model: SpeechLM, recipe: Recipe, smoke: bool) -> None:
    """Adapters must have learnt something; then they are merged, where the recipe says so."""
    if model.config.lora is None:
        return
    if lora.lora_is_zero(model):
        message = "the adapters are zero after training: nothing was learnt in them; see tune.lora.layers, tune.freeze and train.lr"
        if not smoke:
            raise CheckpointError(message)
        console.warn(message)
    elif recipe.tune.lora.merge:
        lora.merge_lora(model)
        console.note("adapters added to the weights")


def _write(run: Run, model: SpeechLM, result: TrainResult, record: dict[str, float | int | str]) -> None:
    extra = {
        "recipe.yaml": yaml_config.dump_yaml(run.recipe),
        "evaluation.json": json.dumps(result.rates, indent=2) + "\n",
        TRAINING: json.dumps(record, indent=2) + "\n",
        "README.md": model_card(run.recipe, model, run.data.hours, int(record["steps"]), result.chosen, result.rates, _origins(run.recipe)),
    }
    dtype = DTYPES[run.recipe.train.weights]
    checkpoint.save(result.folder, model, run.processor, dtype=dtype, extra=extra)
    batch = verify.one_batch(run.data.features, run.encoders, run.text_ids, run.processor)
    gap = verify.check_written(result.folder, model, batch, dtype)
    console.note(f"written and read again: logits within {gap:.1e}")


def _origins(recipe: Recipe) -> list[str | None]:
    return [origin(locate(entry.source, Path(recipe.data.root))) for entry in recipe.data.train]


def _record(run: Run, trainer: SpeechTrainer) -> dict[str, float | int | str]:
    """What a training took: steps and of how many, positions as planned, seconds without evaluation and saving, parameters, the recipe's digest."""
    steps = trainer.state.global_step
    seconds = next(callback.seconds for callback in trainer.callback_handler.callbacks if isinstance(callback, Stopwatch))
    tokens = run.plan.positions(steps * run.recipe.train.accumulate * run.world)
    return {
        "steps": steps,
        "of": run.steps,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "parameters": sum(group.total for group in run.groups),
        "trained_parameters": sum(group.trains for group in run.groups),
        "digest": digest(run.recipe),
    }
