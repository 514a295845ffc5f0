"""The loop of a training that is not a SpeechLM's: steps until the end or SIGTERM, with lines of progress, evaluations and checkpoints."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any, Protocol

from melcli import console
from melcli.training.progress import clock


class Trained(Protocol):
    """What is trained. step: of the optimiser, counted by `learn`. recipe.train: steps, log_every, eval_every, save_every, log_to."""

    recipe: Any
    out: Path
    step: int

    def learn(self) -> dict[str, float]:
        """One step; its losses by name, with `loss` and `grad_norm`."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Measurements by name; none where there is nothing to measure with."""
        ...

    def save(self) -> None:
        """Write a checkpoint."""
        ...


class Steps:
    """Runs a training."""

    def __init__(self, run: Trained) -> None:
        self.run, self.t = run, run.recipe.train
        self.stopped = False
        self.board: Any = None
        if "tensorboard" in self.t.log_to:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run.out / "checkpoints" / "runs"), purge_step=run.step + 1)

    def go(self, last: int) -> bool:
        """Whether step `last` was reached."""
        before = signal.signal(signal.SIGTERM, self._stop)
        try:
            self._steps(last)
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
            if self.board is not None:
                self.board.close()
        return self.run.step >= last

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def _steps(self, last: int) -> None:
        run, sums, count, began = self.run, {}, 0, time.perf_counter()
        while run.step < last and not self.stopped:
            for name, value in run.learn().items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            if run.step % self.t.log_every == 0 or run.step == last:
                self._say({name: value / count for name, value in sums.items()}, (time.perf_counter() - began) / count)
                sums, count, began = {}, 0, time.perf_counter()
            if run.step % self.t.eval_every == 0:
                self._evaluate()
                began += time.perf_counter() - self._began
            if run.step % self.t.save_every == 0 or run.step == last or self.stopped:
                run.save()

    def _say(self, means: dict[str, float], seconds: float) -> None:
        run = self.run
        parts = "  ".join(f"{name} {value:.3f}" for name, value in means.items() if name not in ("loss", "grad_norm"))
        left = clock(seconds * (self.t.steps - run.step))
        console.note(
            f"step {run.step}/{self.t.steps}  loss {means['loss']:.4f}  {parts}  grad {means['grad_norm']:.2f}  {seconds:.2f} s a step  left {left}"
        )
        if self.board is not None:
            for name, value in means.items():
                self.board.add_scalar(f"train/{name}", value, run.step)

    def _evaluate(self) -> None:
        self._began = time.perf_counter()
        for name, value in self.run.evaluate().items():
            console.note(f"  evaluation at step {self.run.step}: {name} {value:.2f}")
            if self.board is not None:
                self.board.add_scalar(f"eval/{name}", value, self.run.step)
