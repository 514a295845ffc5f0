"""The model that is exported: read, averaged over evaluations, its adapters merged, and rounded to what is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcli.errors import CheckpointError, UsageError
from melcli.models import checkpoint, int8, lora
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM


@dataclass
class Source:
    """A model in float32, whose weights are numbers that `dtype` can hold.

    name: as it was given. folder: where its files are. int8: matrices are
    written as whole numbers. changes: what was done to its weights, in words. measured: whether the numbers that lie beside
    the weights (evaluation.json) are these weights' own.
    """

    name: str
    folder: Path
    model: SpeechLM
    processor: SpeechLMProcessor
    dtype: torch.dtype
    int8: bool = False
    changes: list[str] = field(default_factory=list)
    measured: bool = True

    def facts(self) -> dict[str, Any]:
        """For export.json."""
        config = self.model.config
        return {
            "source": self.name,
            "changes": self.changes,
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "backbone": config.text_config.model_type,
            "speech_input": config.speech_input["kind"],
        }


def read(name: str, *, offline: bool = False) -> Source:
    """The model of a registered name, folder (of a run, too) or hub id. Raises CheckpointError."""
    folder = checkpoint.resolve(name, offline=offline, flag="MODEL")
    dtype = _kept_in(folder)
    model, processor = checkpoint.load(str(folder), dtype=torch.float32)
    return Source(name, folder, model, processor, dtype)


def _kept_in(folder: Path) -> torch.dtype:
    """What most numbers of a checkpoint are written in."""
    counts: Counter[torch.dtype] = Counter()
    for tensor in checkpoint.read_tensors(folder).values():
        if tensor.is_floating_point():
            counts[tensor.dtype] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else torch.float32


def average(source: Source, count: int) -> None:
    """Put the mean of the weights at a run's latest `count` evaluations into the model. Raises UsageError and CheckpointError."""
    from melcli.training.trainer import Snapshots

    run = Path(source.name)
    snapshots = Snapshots((run if (run / "snapshots").is_dir() else run.parent) / "snapshots", count)
    if not snapshots.rates:
        raise UsageError(f"--average {count}: {source.name} is no folder of a run with weights of its evaluations (RUN/snapshots)")
    steps = snapshots.latest()
    if len(steps) < count:
        kept = f"its recipe keeps train.average evaluations, and there {'is' if len(steps) == 1 else 'are'} {len(steps)}"
        raise UsageError(f"--average {count}: {source.name} has not so many: {kept}")
    there = dict(source.model.state_dict())
    mean = checkpoint.average([snapshots.path(step) for step in steps])
    if stray := sorted(set(mean) - set(there)):
        why = "; its adapters were merged when it was written (tune.lora.merge)" if lora.is_lora(stray[0]) else ""
        raise CheckpointError(f"--average {count}: the evaluations have {stray[0]}, and the model in {source.folder} has not{why}")
    source.model.load_state_dict({name: tensor.to(there[name].dtype) for name, tensor in mean.items()}, strict=False)
    source.changes.append(f"weights: mean of the evaluations at steps {', '.join(map(str, steps))}")
    source.measured = False


def merge(source: Source) -> None:
    """Add the adapters to the weights. Raises UsageError where there are none."""
    if source.model.config.lora is None:
        raise UsageError(f"--merge-lora: {source.name} has no adapters beside its weights; leave it out")
    lora.merge_lora(source.model)
    source.changes.append("adapters added to the weights")


def pack(source: Source) -> None:
    """Have matrices written as whole numbers of eight bits with a factor a row."""
    source.int8 = True
    source.changes.append("matrices: whole numbers of eight bits, with a factor a row")
    source.measured = False


def round_weights(source: Source) -> None:
    """Make every weight a number that is written as it is, so that the copy which is read back has the same."""
    rounded: dict[str, Tensor] = {}
    for name, tensor in source.model.state_dict().items():
        packed = source.int8 and int8.fits(tensor)
        rounded[name] = int8.rounded(tensor) if packed else checkpoint.cast(name, tensor, source.dtype).to(tensor.dtype)
    source.model.load_state_dict(rounded)
