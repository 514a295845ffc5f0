"""transformers' Trainer with our batches, our losses in its log and evaluation by decoding."""

from __future__ import annotations

import functools
import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from melcli.errors import CheckpointError, ConfigError, first_line, is_out_of_memory
from melcli.files import write_text, writing
from melcli.models import checkpoint
from melcli.models.decoding.generate import Strategy
from melcli.models.speech_lm import SpeechLM
from melcli.training import measures, parallel
from melcli.training.muon import muon_and_adamw
from melcli.training.progress import Meter
from melcli.training.steps_state import COMPLETE, forget
from melcli.training.stop import StopSignals
from melcli.training.tune import parameter_groups
from melcli.untrusted import parse_json

REMEDY = (  # where memory does not hold a batch
    "half of train.tokens_per_batch with twice train.accumulate learns from as much in a step and needs half of it, and "
    "train.gradient_checkpointing less still; --dry-run tries the largest batch"
)

TAKEN = ("initial_lr", "weight_decay", "betas")  # of a group of parameters, from the recipe and not from a checkpoint
Evaluate = Callable[[SpeechLM, Strategy | None], dict[str, float]]


class SpeechTrainer(Trainer):
    """evaluate_by_decoding: measurements by evaluation set (training/measures.py); snapshots: where weights of evaluations are kept, `keep` of the
    latest and the best.

    speech_lr: learning rate of all that is not the language model, where it has one of its own. muon: Muon takes the matrices (training/muon.py).
    layout: what processes share (training/parallel.py). checkpoints: how many are kept.
    """

    def __init__(
        self,
        *args: Any,
        evaluate_by_decoding: Evaluate,
        snapshots: Path,
        keep: int,
        speech_lr: float | None = None,
        muon: bool = False,
        layout: str = "none",
        checkpoints: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.speech_lr = speech_lr
        self.muon = muon
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the targets of the whole step
        self.world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        self._counts: dict[str, Tensor | float] = {}
        self._agree: parallel.Agreement | None = None
        self._elsewhere = {"speech": False, "spoken": False}
        self.evaluate_by_decoding = evaluate_by_decoding
        self.snapshots = Snapshots(snapshots, keep)
        self.meter = Meter(self.speech_lm.part_names)
        self.layout = layout
        self.checkpoints = checkpoints
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp_plugin_args is not None:
            parallel.use_fsdp(self.accelerator, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    @property
    def speech_lm(self) -> SpeechLM:
        """The model itself, without what processes put around it."""
        return self.accelerator.unwrap_model(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        inner = getattr(loader, "base_dataloader", loader)  # what accelerate's own loader reads from
        inner.worker_init_fn = functools.partial(_start_worker, inner.worker_init_fn)
        return loader

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is not None or (self.speech_lr is None and not self.muon):
            return super().create_optimizer(model)
        trained = self.model if model is None else model
        decayed, args = set(self.get_decay_parameter_names(trained)), self.args
        if self.muon:
            self.optimizer = muon_and_adamw(trained, decayed, args.learning_rate, (args.adam_beta1, args.adam_beta2), args.weight_decay)
            return self.optimizer
        cls, options = self.get_optimizer_cls_and_kwargs(args, trained)
        groups = parameter_groups(trained, decayed, args.weight_decay, args.learning_rate, self.speech_lr)
        self.optimizer = cls(groups, **options)
        return self.optimizer

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the Trainer does, but that learning rates, weight decay and betas are the recipe's of now.

        Raises CheckpointError where the checkpoint is of another optimizer, or of other groups of parameters.
        """
        if checkpoint is None:
            return
        wanted = [{name: group[name] for name in TAKEN if name in group} for group in self.optimizer.param_groups]
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (KeyError, CheckpointError):
            name = "muon" if self.muon else "adamw"
            raise CheckpointError(f"{checkpoint}: made with another optimizer than train.optimizer {name}; go on with that") from None
        except ValueError as error:
            raise CheckpointError(f"{checkpoint}: its optimizer trained other parameters, or with tune.speech_lr ({first_line(error)})") from None
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if not hasattr(scheduler, "lr_lambdas") or any("initial_lr" not in group for group in wanted):
            return
        scheduler.base_lrs = [group["initial_lr"] for group in wanted]
        factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
        for group, asked, factor in zip(self.optimizer.param_groups, wanted, factors, strict=True):
            group |= asked | {"lr": asked["initial_lr"] * factor}
        scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        began = time.perf_counter()
        samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.meter.waited += time.perf_counter() - began
        self.meter.steps += 1
        self._counts = self._targets(samples[0], device)
        if self.world > 1:
            self._agree = self._agree or parallel.Agreement()
            self._elsewhere = {name: self._agree(any(name in batch for batch in samples[0])) for name in self._elsewhere}
        return samples

    def _targets(self, batches: list[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
        """Targets of a whole optimiser step over all its batches and ranks, divided by the ranks, whose gradients are averaged."""
        found = [self.speech_lm.targets(batch) for batch in batches]
        names = list(found[0])
        counts = torch.tensor([sum(one[name] for one in found) for name in names], device=device, dtype=torch.float32)
        return dict(zip(names, self._over_processes(counts).clamp_min(1), strict=True))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        elsewhere = {f"{name}_elsewhere": there for name, there in self._elsewhere.items()}
        with self.accelerator.autocast():
            outputs = model(**inputs, counts=self._counts, step=self.state.global_step, **elsewhere)
        self.meter.add(inputs["documents"], outputs.loss.detach(), outputs.parts)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "grad_norm" in logs:
            logs = {**logs, **self.meter.rates(self._over_processes, self.world)}
            self.meter.reset()
        super().log(logs, start_time)
        if "grad_norm" in logs and not math.isfinite(logs["loss"]):
            remedy = f"go on from an earlier checkpoint with a lower train.lr ({self.args.learning_rate:g}) or a longer train.warmup"
            raise ConfigError(f"step {self.state.global_step}: the loss is {logs['loss']}, the training has diverged; {remedy}")

    def _over_processes(self, sums: Tensor) -> Tensor:
        """The mean of measurements over all processes."""
        if self.world > 1:
            sums = sums.to(self.accelerator.device)
            torch.distributed.all_reduce(sums)
        return sums / self.world

    def measurements(self, strategy: Strategy | None = None) -> dict[str, float]:
        """What evaluation finds by evaluation set, of the weights as they are, each process its share; see `Evaluation`."""
        model = self.speech_lm
        model.eval()
        with parallel.whole(model), self.accelerator.autocast(), torch.compiler.set_stance("force_eager"):
            rates = self.evaluate_by_decoding(model, strategy)
        model.train()
        return rates

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate on every set, log what was found and keep the weights."""
        began = time.perf_counter()
        rates = self.measurements()
        metrics = measures.logged(rates)
        self.log(metrics)
        weights = parallel.moving_state(self.speech_lm)
        if self.is_world_process_zero():
            self.snapshots.add(self.state.global_step, measures.overall(rates), weights)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.meter.started += time.perf_counter() - began
        return metrics

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, and only when it is whole remove those that are no longer wanted. Raises WriteError."""
        folder = Path(self.args.output_dir)
        mark = folder / f"checkpoint-{self.state.global_step}" / COMPLETE
        with writing(mark.parent):
            if self.args.should_save:
                mark.unlink(missing_ok=True)  # of an earlier time that the training came by here
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()  # each process writes its own random state, and its share where weights are shared
            if self.args.should_save:
                write_text(mark, self.layout)
                for old in whole_checkpoints(folder)[: -self.checkpoints]:
                    forget(old)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer does; signals are what they were before, however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, StopOnSignal):
                    callback.signals.release()

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One batch forth and back. Raises ConfigError where the memory does not hold it."""
        try:
            return super().training_step(*args, **kwargs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ConfigError(f"step {self.state.global_step + 1}: the memory does not hold a batch; {REMEDY}") from None


def _start_worker(inner: Callable[[int], None] | None, number: int) -> None:
    """A loading process leaves signals to the training: cluster managers and terminals send them to all, and the last step still needs its data."""
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_IGN)
    if inner is not None:
        inner(number)


class Snapshots:
    """Weights at evaluations: the latest `keep` and the best."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = max(keep, 1)
        self.index = folder / "index.json"
        try:
            self.rates: dict[int, float] = {int(step): rate for step, rate in parse_json(self.index.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self.rates = {}

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}.safetensors"

    def add(self, step: int, rate: float, weights: dict[str, Tensor]) -> None:
        """Keep a model's weights, and forget those no longer wanted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_tensors(self.path(step), weights)
        self.rates = {s: r for s, r in self.rates.items() if s < step} | {step: rate}
        wanted = set(self.latest()) | {self.best()}
        self.rates = {s: r for s, r in self.rates.items() if s in wanted}
        write_text(self.index, json.dumps(self.rates))
        for path in self.folder.glob("step-*.safetensors"):  # after the index, which never names one that is gone
            if int(path.stem.removeprefix("step-")) not in wanted:
                path.unlink()

    def latest(self) -> list[int]:
        """The steps of the latest evaluations."""
        return sorted(self.rates)[-self.keep :]

    def best(self) -> int:
        """The step with the lowest rate."""
        return min(self.rates, key=lambda step: (self.rates[step], -step))


class StopOnSignal(TrainerCallback):
    """SIGTERM or Ctrl-C: finish the step, save, stop; a second Ctrl-C stops at once.

    Sent to one of several processes, or seen by them in different steps, it stops all after the same one.
    """

    def __init__(self) -> None:
        self.signals = StopSignals()
        self._agree: parallel.Agreement | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._agree = parallel.Agreement()
        self.signals.catch()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        assert self._agree is not None
        if self._agree(self.signals.caught):
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.signals.release()


class StopAfter(TrainerCallback):
    """Ends a smoke run after some steps without touching the schedule."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= self.steps:
            control.should_training_stop = True


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    return max(whole_checkpoints(folder), key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def whole_checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, in the order in which they were written."""
    return sorted((path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()), key=lambda path: (path / COMPLETE).stat().st_mtime_ns)


def tidy(out: Path) -> None:
    """Remove what a training that was killed left behind: checkpoints that were cut short, and scratch files."""
    for path in (out / "checkpoints").glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path, ignore_errors=True)
    for path in (out / "snapshots").glob(".*"):
        path.unlink(missing_ok=True)
