"""Folders and hub repositories with a vocoder's weights: which family they are of, their settings and their tensors.

Several published vocoders exist as pickles alone. These are read by torch's restricted unpickler (`weights_only=True`), which makes tensors and
plain containers and refuses all else, so nothing in a file is ever run; where a folder has safetensors, those are taken.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from melcli import hub
from melcli.errors import CheckpointError
from melcli.untrusted import parse_json

SAFE = "model.safetensors"
FILES = ["config.json", "config.yaml", "preprocessor_config.json", SAFE, "pytorch_model.bin", "bigvgan_generator.pt"]
FAMILIES = {
    "hifigan": "speecht5-hifigan",
    "speecht5_hifigan": "speecht5-hifigan",
    "univnet": "univnet",
    "tiny_vocos": "tiny-vocoder",
}  # by model_type of config.json


def is_source(name: str) -> bool:
    """Whether a name is a folder, or can be a repository on the hub."""
    return Path(name).is_dir() or hub.is_repository(name)


def folder_of(source: str, offline: bool) -> Path:
    """The folder of a vocoder given as folder (of a run: its `model/`) or hub id. Raises CheckpointError."""
    folder = Path(source)
    if not folder.is_dir():
        return hub.snapshot(source, FILES, (), offline=offline, flag="--vocoder")
    inner = folder / "model"
    return inner if (inner / "config.json").exists() and not (folder / "config.json").exists() else folder


def family_of(source: str, offline: bool) -> str:
    """The registered name of the family that a folder's settings are of. Raises CheckpointError."""
    folder = folder_of(source, offline)
    if (folder / "config.yaml").exists():
        return "vocos"
    fields = settings(folder)
    if str(fields.get("model_type")) in FAMILIES:
        return FAMILIES[str(fields["model_type"])]
    if "snake_logscale" in fields:
        return "bigvgan"
    raise CheckpointError(
        f"--vocoder {source}: its config.json (model_type {fields.get('model_type')!r}) is of no vocoder known here; known are "
        f"{', '.join(FAMILIES)}, BigVGAN's, and Vocos' config.yaml"
    )


def settings(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """A settings file, JSON or YAML, as a mapping. Raises CheckpointError."""
    path = folder / name
    try:
        text = path.read_text(encoding="utf-8")
        fields = parse_json(text) if path.suffix == ".json" else _yaml(text)
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no {name}, so this is not a vocoder's folder") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: holds no mapping")
    return fields


class _Plain(yaml.SafeLoader):
    """Without aliases, of which a page can make more than a machine holds; no vocoder's settings have any."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which is not read here")
        return super().compose_node(parent, index)


def _yaml(text: str) -> Any:
    """YAML whoever wrote it. Raises ValueError and yaml.YAMLError alone."""
    try:
        return _Plain(text).get_single_data()
    except RecursionError:
        raise ValueError("brackets or indents within one another, too deep to be read") from None
    except (LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(f"a value that its tag does not fit ({error})") from None


def tensors(folder: Path, pickled: str | None = None, inside: str | None = None) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or else of the pickle of that name. inside: key under which a pickle has them. Raises CheckpointError."""
    if (folder / SAFE).exists():
        return read_safe(folder / SAFE)
    if pickled is None:
        raise CheckpointError(f"{folder}: {SAFE} is missing")
    return _unpickled(folder, pickled, inside)


def read_safe(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from None


def _unpickled(folder: Path, name: str, inside: str | None) -> dict[str, Tensor]:
    import torch

    path = folder / name
    if not path.exists():
        raise CheckpointError(f"{folder}: neither {SAFE} nor {name} is there")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: holds more than tensors, which is never opened: convert it to safetensors") from None
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    state = state.get(inside) if inside is not None and isinstance(state, dict) and inside in state else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no tensors by name")
    return state


def fill(model: nn.Module, found: dict[str, Tensor], folder: Path) -> None:
    """Puts tensors into a model. Raises CheckpointError as `check` does: nothing stays random."""
    check(model, found, folder)
    model.load_state_dict(found)


def check(model: nn.Module, found: dict[str, Tensor], folder: Path) -> None:
    """Raises CheckpointError for missing, unexpected and misshapen tensors. The model may be one on the meta device, which takes no memory."""
    wanted = model.state_dict()
    problems = {
        "misses": sorted(set(wanted) - set(found)),
        "holds unexpected": sorted(set(found) - set(wanted)),
        "has the wrong shape for": [name for name in wanted if name in found and wanted[name].shape != found[name].shape],
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{folder}: the checkpoint {problem} {', '.join(names[:3])}{more}")
