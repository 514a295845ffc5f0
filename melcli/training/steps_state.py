"""Checkpoints of a training of melcli/training/steps.py: one safetensors file and a JSON file in a folder that appears whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from melcli.audio import vocoder_files
from melcli.errors import CheckpointError, ConfigError
from melcli.files import writing
from melcli.untrusted import parse_json

COMPLETE = "complete"  # written last into a checkpoint folder, with how processes shared what is in it: one without it was cut short
STATE, STEP = "state.safetensors", "step.json"


def tensors(name: str, one: nn.Module | Optimizer) -> dict[str, Tensor]:
    """A module's tensors, or an optimiser's by parameter number and name, under one name in front."""
    found = one.state_dict()
    if isinstance(one, Optimizer):
        found = {f"{number}/{key}": value for number, values in found["state"].items() for key, value in values.items()}
    return {f"{name}/{key}": tensor for key, tensor in found.items()}


def part(name: str, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that have a name in front, without it."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in found.items() if key.startswith(f"{name}/")}


def fill(one: nn.Module | Optimizer, found: dict[str, Tensor], folder: Path) -> None:
    """Put a checkpoint's tensors into a module, or an optimiser of the same parameters. Raises CheckpointError where they are another module's."""
    if isinstance(one, nn.Module):
        vocoder_files.fill(one, found, folder)
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = tensor
    one.load_state_dict({"state": state, "param_groups": one.state_dict()["param_groups"]})


def save(folder: Path, step: int, state: dict[str, Tensor], keep: int) -> None:
    """Write checkpoint-STEP under a temporary name, move it into place and remove all but the latest `keep`. Raises WriteError."""
    final = folder / f"checkpoint-{step}"
    partial = folder / f".checkpoint-{step}.partial"
    with writing(final):
        for stale in folder.glob(".checkpoint-*.partial"):  # of a training that was killed
            shutil.rmtree(stale, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, partial / STATE, {"format": "pt"})
            (partial / STEP).write_text(json.dumps({"step": step}) + "\n")
            (partial / COMPLETE).write_text("none")
            forget(final)
            os.replace(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    for old in _steps(folder)[:-keep]:
        forget(folder / f"checkpoint-{old}")


def forget(checkpoint: Path) -> None:
    """Remove a checkpoint; what is left of it where that is cut short does not count as one."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists())


def read(folder: Path, what: str) -> tuple[dict[str, Tensor], int]:
    """(tensors, step) of a checkpoint. what: that is trained. Raises CheckpointError."""
    try:
        step = int(parse_json((folder / STEP).read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}: no checkpoint of a {what}'s training ({error})") from None
    return vocoder_files.read_safe(folder / STATE), step


def resume_from(out: Path, resume: str | None, what: str) -> Path | None:
    """The checkpoint to go on from: `auto` is the newest whole one; None for a new run. what: that is trained.

    Raises ConfigError and CheckpointError.
    """
    steps = _steps(out / "checkpoints")
    if resume is None and steps:
        raise ConfigError(f"{out} holds a run already: add --resume auto to continue it, or -o for another folder")
    if resume in (None, "auto"):
        return out / "checkpoints" / f"checkpoint-{steps[-1]}" if steps else None
    if not (Path(resume) / STEP).exists():
        raise CheckpointError(f"--resume {resume}: no checkpoint of a {what}'s training there; give `auto` or a folder checkpoint-N")
    return Path(resume)
