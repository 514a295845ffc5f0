"""What a training says while it runs: a line every few steps with loss, speed, padding, waiting and time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from melcli import console
from melcli.training import measures


class Meter:
    """Counts what went through the model since it was last read. Sums stay tensors, so that counting never waits for a GPU.

    parts: names of the losses that there may be, the same in all processes.
    """

    def __init__(self, parts: Sequence[str] = ("ce", "ctc")) -> None:
        self.losses = ("loss", *parts)
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.started = time.perf_counter()
        self.steps = self.positions = 0  # of the optimiser; in the model, padding included
        self.waited = 0.0
        self.sums: dict[str, Tensor | float] = dict.fromkeys(("tokens", *self.losses), 0.0)

    def add(self, documents: Tensor, loss: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Count one batch; documents is 0 where there is padding."""
        self.positions += documents.numel()
        found = {"tokens": (documents > 0).sum(), "loss": loss, **parts}
        self.sums = {name: total + found.get(name, 0.0) for name, total in self.sums.items()}

    def rates(self, mean: Callable[[Tensor], Tensor] = lambda sums: sums, processes: int = 1) -> dict[str, float]:
        """Means over steps and rates of all processes since the last reset; padding and waiting in percent. mean: of a tensor over the processes."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        names = [*self.sums, "positions", "waited"]
        own = [*(float(total) for total in self.sums.values()), self.positions, self.waited]
        sums = dict(zip(names, mean(torch.tensor(own, dtype=torch.float64)).tolist(), strict=True))
        return {
            **{name: sums[name] / max(self.steps, 1) for name in self.losses},
            "tokens_per_second": processes * sums["tokens"] / seconds,
            "padding_percent": 100 * (1 - sums["tokens"] / max(sums["positions"], 1)),
            "data_wait_percent": 100 * sums["waited"] / seconds,
        }


def clock(seconds: float) -> str:
    """h:mm:ss, or m:ss under an hour."""
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


class ProgressLines(TrainerCallback):
    """Prints the trainer's log entries as lines on stderr. parts: names of the losses, of which those are shown that are not zero."""

    def __init__(self, parts: Sequence[str] = ("ce", "ctc")) -> None:
        self.parts = parts
        self.line: tuple[float, int] = (time.perf_counter(), 0)  # when the last one was printed, and at which step
        self.pace = 0.0  # seconds a step, the latest counting most, so that a pause is soon forgotten

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.line, self.pace = (time.perf_counter(), state.global_step), 0.0

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or not logs:
            return
        if "tokens_per_second" in logs:
            console.note(self._step(state, logs))
        for name, value in measures.found(logs).items():
            console.note(f"  evaluation at step {state.global_step}: {measures.said(name, value)}")

    def _step(self, state: TrainerState, logs: dict[str, float]) -> str:
        (then, before), self.line = self.line, (time.perf_counter(), state.global_step)
        pace = (self.line[0] - then) / max(state.global_step - before, 1)
        self.pace = 0.9 * self.pace + 0.1 * pace if self.pace else pace
        left = self.pace * (state.max_steps - state.global_step)
        parts = [
            f"step {state.global_step}/{state.max_steps}",
            f"loss {logs['loss']:.3f}",
            *(f"{name} {logs[name]:.3f}" for name in self.parts if logs[name]),
            f"lr {logs['learning_rate']:.2e}",
            f"grad {logs['grad_norm']:.2f}",
            f"{logs['tokens_per_second']:,.0f} tokens/s",
            f"padding {logs['padding_percent']:.1f} %",
            f"data wait {logs['data_wait_percent']:.1f} %",
            f"left {clock(left)}",
        ]
        return " | ".join(parts)


class Stopwatch(TrainerCallback, ExportableState):
    """Seconds of training, evaluation and saving left out, over all runs that resumed one another: they are kept in the checkpoints."""

    def __init__(self) -> None:
        self.seconds = self._last = 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"seconds": self.seconds}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        kept = state.stateful_callbacks.setdefault(type(self).__name__, self.state())  # older checkpoints hold none
        self.seconds = kept["attributes"]["seconds"]
        self._start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        before = self._last
        self._start()
        self.seconds += self._last - before

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._start()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._start()

    def _start(self) -> None:
        self._last = time.perf_counter()
