"""What a model folder holds, read from its files alone: no torch, no weights in memory."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import Any

from melcli.errors import CheckpointError
from melcli.untrusted import parse_json

WEIGHTS = "model.safetensors"
WORDS = ("dictionary.txt", "dictionary.safetensors")  # of models/decoding/dictionary.py


def describe(folder: Path) -> list[tuple[str, str]]:
    """(property, value) rows of a SpeechLM folder; the folder of a run stands for its `model/`. Raises CheckpointError where it is none."""
    if (folder / "model" / "config.json").exists() and not (folder / "config.json").exists():
        folder = folder / "model"
    config = _json(folder / "config.json")
    files = sorted(file for file in folder.glob("*.safetensors") if file.name not in WORDS)
    if not files:
        raise CheckpointError(f"{folder}: no weights here; a model folder holds config.json and {WEIGHTS}.")
    tensors = {name: value for file in files for name, value in read_header(file).items() if name != "__metadata__"}
    parameters = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    kinds = sorted({tensor["dtype"] for tensor in tensors.values()})
    size = sum(file.stat().st_size for file in files)
    rows = [("folder", str(folder)), ("model type", str(config.get("model_type", "unknown")))]
    rows += [(key.replace("_", " "), _short(config[key])) for key in ("speech_input", "text_config", "speech_attention", "mel") if key in config]
    rows += [("tensors", f"{len(tensors)} with {parameters:,} values, {' and '.join(kinds)}"), ("size", f"{size / 1e6:.1f} MB")]
    words = [folder / name for name in WORDS if (folder / name).is_file()]
    if words:
        rows.append(("dictionary", f"{sum(file.stat().st_size for file in words) / 1e6:.1f} MB in {' and '.join(file.name for file in words)}"))
    return rows + [(f"sha256 of {file.name}", sha256(file)) for file in (*files, *words)]


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name to dtype, shape and place. Raises CheckpointError for anything else."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError
            header = parse_json(file.read(length))
            if not isinstance(header, dict):
                raise ValueError
            return header
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, struct.error):
        raise CheckpointError(f"{path}: is not a safetensors file, and no other kind of checkpoint is read.") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: is no model folder: it has no {path.name}.") from None
    except (OSError, ValueError):
        raise CheckpointError(f"{path}: cannot be read as JSON.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no JSON object.")
    return found


def _short(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    plain = {k: v for k, v in value.items() if isinstance(v, str | int | float | bool) and not k.startswith("_")}
    return ", ".join(f"{k} {v}" for k, v in list(plain.items())[:12])
