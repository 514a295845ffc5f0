"""Checkpoints of transformers' speech recognisers: from safetensors only, without code from the hub, every tensor accounted for."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoFeatureExtractor, AutoProcessor, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from melcli.errors import CheckpointError, first_line
from melcli.models import checkpoint
from melcli.models.peers.families import Family, family_of
from melcli.models.peers.prompts import Parts

TRAINING_ONLY = ("masked_spec_embed",)  # parameters that hearing never touches, and that some published files leave out
ADAPTER = "adapter_config.json"
SHOWN = 3


def load(folder: Path, dtype: torch.dtype, device: str) -> tuple[PreTrainedModel, Any, Family, str]:
    """Model in evaluation mode, processor, family, and what of the files was used. Raises CheckpointError with one line."""
    family = family_of(str(folder), checkpoint.read_config(folder).get("model_type"))
    for module, package in family.needs.items():
        if importlib.util.find_spec(module) is None:
            raise CheckpointError(f"{folder}: this model needs {module}: pip install '{package}'")
    _check_weights(folder, family)
    transformers_logging.disable_progress_bar()  # our own lines say what was loaded
    transformers_logging.set_verbosity_error()
    options = {"trust_remote_code": False, "local_files_only": True}
    try:
        processor = _processor(folder, family, options)
        with _without_adapter(folder) as base:
            model, info = getattr(transformers, family.auto).from_pretrained(
                base, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
        used = _account(folder, info) + _put_on(model, folder, family.adapter)
    except CheckpointError:
        raise
    except Exception as error:  # whatever transformers makes of a broken checkpoint
        raise CheckpointError(f"{folder}: cannot be loaded: {first_line(error)}") from None
    for name, parameter in model.named_parameters():
        if "lora_" in name:  # peft keeps these in float32, and would compute in it
            parameter.data = parameter.data.to(dtype)
    return model.eval().to(device), processor, family, used


def _processor(folder: Path, family: Family, options: dict[str, Any]) -> Any:
    if family.parts:
        processor: Any = Parts(AutoFeatureExtractor.from_pretrained(folder, **options), AutoTokenizer.from_pretrained(folder, **options))
    else:
        processor = AutoProcessor.from_pretrained(folder, **options)
    if set(processor.tokenizer.get_vocab()) <= set(processor.tokenizer.all_special_tokens):  # so transformers makes up for missing files
        raise CheckpointError(f"{folder}: the files of its tokenizer are missing")
    return processor


def _check_weights(folder: Path, family: Family) -> None:
    """Refuse what has no safetensors before transformers looks for something else."""
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: no safetensors file with its weights{checkpoint.pickle_hint(folder)}")
    for place in (folder, folder / (family.adapter or "")):
        if (place / ADAPTER).exists() and not (place / "adapter_model.safetensors").exists():
            raise CheckpointError(f"{place}: adapter_model.safetensors is missing{checkpoint.pickle_hint(place)}")


def _account(folder: Path, info: dict[str, Any]) -> str:
    """What was loaded, in words. Raises CheckpointError where a tensor of the model is in no file, and so would be random."""
    missing = sorted(name for name in info["missing_keys"] if not name.endswith(TRAINING_ONLY))
    if missing:
        raise CheckpointError(f"{folder}: the checkpoint misses {_some(missing)}")
    if info.get("mismatched_keys"):
        raise CheckpointError(f"{folder}: the checkpoint has the wrong shape for {_some(sorted(str(key[0]) for key in info['mismatched_keys']))}")
    unexpected = sorted(info["unexpected_keys"])
    return f"every tensor of the model loaded; NOT USED: {_some(unexpected)}" if unexpected else "every tensor loaded"


@contextmanager
def _without_adapter(folder: Path) -> Iterator[Path]:
    """The folder as if it held no LoRA: transformers would load one by itself, and then report on the LoRA's tensors in place of the model's."""
    if not (folder / ADAPTER).exists():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="melcli-") as place:
        for path in folder.iterdir():
            if not path.name.startswith("adapter_"):
                (Path(place) / path.name).symlink_to(path.resolve())
        yield Path(place)


def _put_on(model: PreTrainedModel, folder: Path, subfolder: str | None) -> str:
    """Load the LoRA that lies in the checkpoint's folder or the family's sub-folder, and say so."""
    place = folder / (subfolder or "")
    if not (place / ADAPTER).exists():
        return f"; no {subfolder} beside it, so it counts as merged" if subfolder else ""
    if importlib.util.find_spec("peft") is None:
        raise CheckpointError(f"{folder}: its LoRA needs peft: pip install 'melcli[lora]'")
    info = model.load_adapter(str(place), adapter_name="speech", adapter_kwargs={"local_files_only": True})
    model.set_adapter("speech")
    missing = sorted(name for name in info.missing_keys if "lora_" in name)
    if missing or info.unexpected_keys:
        raise CheckpointError(f"{place}: does not fit the model: {_some(missing or sorted(info.unexpected_keys))}")
    return f"; {subfolder or 'its LoRA'} put on"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
