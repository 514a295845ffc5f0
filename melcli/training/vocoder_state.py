"""Checkpoints of a vocoder's training: one safetensors file and a JSON file in a folder that appears whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from melcli.audio import vocoder_files
from melcli.errors import CheckpointError, ConfigError, WriteError

COMPLETE = "complete"  # written last, as in other trainings
STATE, STEP = "state.safetensors", "step.json"


def flat(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under one name in front."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def part(name: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `flat` put under a name."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in found.items() if key.startswith(f"{name}/")}


def of_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state by parameter number and name."""
    state = optimizer.state_dict()["state"]
    return {f"{name}/{number}/{key}": value for number, values in state.items() for key, value in values.items()}


def fill(module: nn.Module, found: dict[str, Tensor], folder: Path) -> None:
    """Put a checkpoint's tensors into a module. Raises CheckpointError where they are another's."""
    vocoder_files.fill(module, found, folder)


def fill_optimizer(optimizer: torch.optim.Optimizer, found: dict[str, Tensor]) -> None:
    """Put a checkpoint's state into an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save(folder: Path, step: int, tensors: dict[str, Tensor], keep: int) -> None:
    """Write checkpoint-STEP under a temporary name, move it into place and remove all but the latest `keep`. Raises WriteError."""
    final = folder / f"checkpoint-{step}"
    partial = folder / f".checkpoint-{step}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial / STATE, {"format": "pt"})
        (partial / STEP).write_text(json.dumps({"step": step}) + "\n")
        (partial / COMPLETE).write_text("none")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    except OSError as error:
        raise WriteError(f"{final}: cannot be written: {error.strerror or error}") from None
    for old in _steps(folder)[:-keep]:
        shutil.rmtree(folder / f"checkpoint-{old}", ignore_errors=True)


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists())


def read(folder: Path) -> tuple[dict[str, Tensor], int]:
    """(tensors, step) of a checkpoint. Raises CheckpointError."""
    try:
        step = int(json.loads((folder / STEP).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: no checkpoint of a vocoder's training ({error})") from None
    return vocoder_files.read_safe(folder / STATE), step


def resume_from(out: Path, resume: str | None) -> Path | None:
    """The checkpoint to go on from: `auto` is the newest whole one; None for a new run. Raises ConfigError and CheckpointError."""
    steps = _steps(out / "checkpoints")
    if resume is None and steps:
        raise ConfigError(f"{out} holds a run already: add --resume auto to continue it, or -o for another folder")
    if resume in (None, "auto"):
        return out / "checkpoints" / f"checkpoint-{steps[-1]}" if steps else None
    if not (Path(resume) / STEP).exists():
        raise CheckpointError(f"--resume {resume}: no checkpoint of a vocoder's training there; give `auto` or a folder checkpoint-N")
    return Path(resume)
