"""A training that is not a SpeechLM's, of a vocoder or a unified encoder: the loop of its steps, its checkpoints, its beginning and its end."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from melcli import config as yaml_config
from melcli import console
from melcli.errors import CheckpointError
from melcli.files import alone, write_text
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype
from melcli.recipe import TRAINING
from melcli.steps_recipe import StepsRecipe
from melcli.training import steps_state
from melcli.training.progress import clock
from melcli.training.stop import StopSignals


class StepsRun:
    """Base of a training that is set up and not yet started; a subclass sets `optimizer` and the parameters that it has, `trained`.

    measured: how a measurement is said, of `name` and `value`. later: names of those `parts` that a checkpoint may lack.
    """

    measured: ClassVar[str] = "{name} {value:.2f}"
    later: ClassVar[tuple[str, ...]] = ()
    optimizer: Optimizer
    trained: list[nn.Parameter]

    def __init__(self, recipe: Any, out: Path, offline: bool = False) -> None:
        self.recipe, self.out, self.offline = recipe, out, offline
        self.device, self.device_reason = pick_device()
        self.dtype, self.dtype_reason = pick_dtype(recipe.train.dtype, self.device)
        if self.device == "cpu":
            keep_freed_memory()
        self.step = 0

    # --- what each training has of its own -----------------------------------------------------------------------------------------------------

    def decisions(self) -> dict[str, str]:
        """What was decided, and why."""
        raise NotImplementedError

    def parts(self) -> dict[str, nn.Module | Optimizer]:
        """All that a training is, besides the step."""
        raise NotImplementedError

    def batch(self) -> Any:
        """What the next step learns from."""
        raise NotImplementedError

    def losses(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and what is said beside it."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Measurements by name; none where there is nothing to measure with."""
        raise NotImplementedError

    def finish(self, seconds: float) -> Any:
        """Write the model of a training that took so long, read it again and compare; the command's result."""
        raise NotImplementedError

    def pace(self, steps: int, seconds: float, waited: float) -> str:
        """How fast it goes. waited: seconds, out of all, that `batch` took."""
        return f"{seconds / steps:.2f} s a step"

    # --- what they share -----------------------------------------------------------------------------------------------------------------------

    def learn(self, batch: Any) -> dict[str, float]:
        """One optimiser step; its losses by name, with `loss` and `grad_norm`."""
        loss, said = self.losses(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.train.lr * self._schedule()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.recipe.train.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            console.warn(f"step {self.step}: the gradient is not finite, and the step is left out")
        self.step += 1
        return {name: float(value.detach()) for name, value in {"loss": loss, **said, "grad_norm": norm}.items()}

    def _schedule(self) -> float:
        t = self.recipe.train
        if self.step < t.warmup:
            return (self.step + 1) / t.warmup
        if t.schedule == "constant":
            return 1.0
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (self.step - t.warmup) / max(1, t.steps - t.warmup))))

    def autocast(self) -> torch.autocast:
        """In which the dtype of the recipe is computed in."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    def save(self) -> None:
        """Write a checkpoint."""
        state = {key: tensor for name, part in self.parts().items() for key, tensor in steps_state.tensors(name, part).items()}
        steps_state.save(self.out / "checkpoints", self.step, state, self.recipe.train.keep)

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError where it is of another recipe."""
        found, self.step = steps_state.read(folder, self.recipe.what)
        for name, part in self.parts().items():
            tensors = steps_state.part(name, found)
            if tensors or name not in self.later:
                steps_state.fill(part, tensors, folder)

    def record(self, seconds: float, model: nn.Module) -> dict[str, float | int]:
        """What the training took."""
        parameters = sum(p.numel() for p in model.parameters())
        return {"steps": self.step, "of": self.recipe.train.steps, "seconds": round(seconds, 3), "parameters": parameters}

    def documents(self, record: Mapping[str, float | int], evaluation: Mapping[str, Any], card: str) -> dict[str, str]:
        """The files beside a model's weights, by name."""
        return {
            "recipe.yaml": yaml_config.dump_yaml(self.recipe),
            "evaluation.json": json.dumps(evaluation, indent=2) + "\n",
            TRAINING: json.dumps(record, indent=2) + "\n",
            "README.md": card,
        }

    def check_written(self, folder: Path, what: str, gap: float, most: float) -> None:
        """Say how far the model that was written is from the one that was trained. Raises CheckpointError where that is too far, or no number."""
        if not gap <= most:
            raise CheckpointError(f"{folder}: read again, the {self.recipe.what}'s {what} differ by {gap:.2g}")
        console.note(f"written and read again: {what} within {gap:.1e}")


class Steps:
    """Runs a training until the end, SIGTERM or Ctrl-C, with lines of progress, evaluations and checkpoints."""

    def __init__(self, run: StepsRun) -> None:
        self.run, self.t = run, run.recipe.train
        self.signals = StopSignals()
        self.board: Any = None
        if "tensorboard" in self.t.log_to:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run.out / "checkpoints" / "runs"), purge_step=run.step + 1)

    def go(self, last: int) -> bool:
        """Whether step `last` was reached."""
        self.signals.catch()
        try:
            self._steps(last)
        finally:
            self.signals.release()
            if self.board is not None:
                self.board.close()
        return self.run.step >= last

    def _steps(self, last: int) -> None:
        run = self.run
        sums, count, waited, began = {}, 0, 0.0, time.perf_counter()
        while run.step < last and not self.signals.caught:
            asked = time.perf_counter()
            batch = run.batch()
            waited += time.perf_counter() - asked
            for name, value in run.learn(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            if run.step % self.t.log_every == 0 or run.step == last:
                self._say({name: value / count for name, value in sums.items()}, count, time.perf_counter() - began, waited)
                sums, count, waited, began = {}, 0, 0.0, time.perf_counter()
            if run.step % self.t.eval_every == 0:
                asked = time.perf_counter()
                self._evaluate()
                began += time.perf_counter() - asked
            if run.step % self.t.save_every == 0 or run.step == last or self.signals.caught:
                run.save()

    def _say(self, means: dict[str, float], steps: int, seconds: float, waited: float) -> None:
        run = self.run
        parts = "  ".join(f"{name} {value:.3f}" for name, value in means.items() if name not in ("loss", "grad_norm"))
        left = clock(seconds / steps * (self.t.steps - run.step))
        pace = run.pace(steps, seconds, waited)
        console.note(f"step {run.step}/{self.t.steps}  loss {means['loss']:.4f}  {parts}  grad {means['grad_norm']:.2f}  {pace}  left {left}")
        if self.board is not None:
            for name, value in means.items():
                self.board.add_scalar(f"train/{name}", value, run.step)

    def _evaluate(self) -> None:
        for name, value in self.run.evaluate().items():
            console.note(f"  evaluation at step {self.run.step}: {self.run.measured.format(name=name, value=value)}")
            if self.board is not None:
                self.board.add_scalar(f"eval/{name}", value, self.run.step)


def train(
    kind: type[StepsRun],
    recipe: StepsRecipe,
    out: Path | None = None,
    *,
    resume: str | None = None,
    smoke: int | None = None,
    dry_run: bool = False,
    offline: bool = False,
) -> Any:
    """Train as the recipe says; the options are those of `melcli.train.train`, and so is the run's folder. None where nothing was finished."""
    out = out or Path("runs") / recipe.name
    with nullcontext() if dry_run else alone(out, "training"):
        return _train(kind, recipe, out, resume, smoke, dry_run, offline)


def _train(kind: type[StepsRun], recipe: StepsRecipe, out: Path, resume: str | None, smoke: int | None, dry_run: bool, offline: bool) -> Any:
    start = None if dry_run else steps_state.resume_from(out, resume, recipe.what)
    run = kind(recipe, out, offline)
    console.decided(run.decisions())
    if dry_run:
        console.note(f"one step went through: loss {run.learn(run.batch())['loss']:.3f}")
        return None
    if start is not None:
        run.resume(start)
        console.note(f"resuming from {start}")
    write_text(out / "recipe.yaml", yaml_config.dump_yaml(recipe))
    began, steps = time.perf_counter(), run.recipe.train.steps
    if not Steps(run).go(min(steps, run.step + smoke) if smoke else steps):
        console.note(f"stopped at step {run.step} of {steps}; continue with --resume auto")
        return None
    return run.finish(time.perf_counter() - began)
