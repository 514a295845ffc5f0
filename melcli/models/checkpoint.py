"""Checkpoints: a folder with config.json, model.safetensors, tokenizer and processor. Nothing in it is ever unpickled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig

from melcli import hub
from melcli.audio.mel_spec import MelSpec
from melcli.data import lexicon
from melcli.errors import CheckpointError, ConfigError, first_line, nearest
from melcli.files import put_in_place, replacing, writing
from melcli.models import int8, lora
from melcli.models.config import SpeechLMConfig
from melcli.models.config_fields import check_fields
from melcli.models.decoding.dictionary import Dictionary
from melcli.models.extent import check_extent
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM
from melcli.untrusted import parse_json

WEIGHTS = "model.safetensors"
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
HUB_COPIES = ["*fp32*", "*fp16*", "*consolidated*"]  # the same weights once more, in another number format
RUNS = "runs/"  # where `melcli train` puts what it was given no -o for
UNSAFE = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")


def resolve(name: str, *, offline: bool = False, flag: str = "--model") -> Path:
    """The folder of a model given by registered name, folder or hub id (with @REVISION, where wanted); the folder of a run stands for its `model/`.

    flag: what the user gave the name with. Raises CheckpointError.
    """
    from melcli import registry

    folder = Path(name)
    if os.path.isdir(folder):
        inner = folder / "model"
        return inner if (inner / "config.json").exists() and not (folder / "config.json").exists() else folder
    if name in registry.names("model"):
        return Path(registry.get("model", name).load())
    if name.startswith(RUNS):
        raise CheckpointError(f"{flag} {name}: no such folder; a training that ends there makes it")
    if hub.is_repository(name):
        return hub.snapshot(name, HUB_FILES, HUB_COPIES, offline=offline, flag=flag)
    known = registry.names("model")
    raise CheckpointError(f"{flag} {name}: no such folder or registered model; valid names: {', '.join(known)}.{nearest(name, known)}")


def save(
    folder: Path, model: SpeechLM, processor: SpeechLMProcessor, *, dtype: torch.dtype | None = None, extra: dict[str, str] | None = None
) -> None:
    """Write a checkpoint under a temporary name and move it into place.

    dtype: of the weights in the file, the model's own by default; statistics stay float32. extra: further files by name, such as the recipe.
    Raises WriteError.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            _write(partial, model, processor, dtype)
            for name, content in (extra or {}).items():
                (partial / name).write_text(content)
            put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, model: SpeechLM, processor: SpeechLMProcessor, dtype: torch.dtype | None) -> None:
    tied = set(model._tied_weights_keys or {})
    state = {name: cast(name, tensor, dtype) for name, tensor in model.state_dict().items() if name not in tied}
    before = model.config.dtype
    model.config.dtype = dtype or before
    model.save_pretrained(folder, state_dict=state)
    model.config.dtype = before
    processor.save_pretrained(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a checkpoint's config.json, whatever its model. Raises CheckpointError."""
    path = folder / "config.json"
    try:
        fields = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        alone = "; an adapter alone (adapter_config.json) is merged into its model first" if (folder / "adapter_config.json").exists() else ""
        raise CheckpointError(f"{folder}: no config.json, so this is not a checkpoint{alone}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    check_extent(fields, str(path), CheckpointError)
    return fields


def load_config(folder: Path) -> SpeechLMConfig:
    """The configuration of a checkpoint. Raises CheckpointError where it is missing or of another kind."""
    path, fields = folder / "config.json", read_config(folder)
    if fields.get("model_type") != "speech_lm":
        raise CheckpointError(
            f"{path}: model_type is {fields.get('model_type')!r}, not 'speech_lm'; `melcli finetune --from` starts from other models"
        )
    check_fields(fields, str(path))
    try:
        config = SpeechLMConfig.from_dict(fields)
        spec = config.mel_spec
    except Exception as error:
        raise CheckpointError(f"{path}: {first_line(error)}") from None
    _compare_processor(folder, spec)
    return config


def _compare_processor(folder: Path, spec: MelSpec) -> None:
    """The mel of the model and that of its processor are written together; where they differ one of them was changed by hand."""
    path = folder / "processor_config.json"
    try:
        theirs = MelSpec.model_validate(parse_json(path.read_text(encoding="utf-8"))["mel"])
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({first_line(error)})") from None
    if difference := spec.difference(theirs):
        raise CheckpointError(f"{folder}: config.json and processor_config.json disagree on the mel specification: {difference}")


def load(
    name: str, *, dtype: torch.dtype | None = None, device: str = "cpu", mel: MelSpec | None = None, offline: bool = False
) -> tuple[SpeechLM, SpeechLMProcessor]:
    """Model in evaluation mode, and its processor.

    Every tensor of the model must be in the file and every tensor of the file in the model. mel: the specification the features will
    have; a checkpoint made with another is refused. Raises CheckpointError with one line.
    """
    folder = resolve(name, offline=offline)
    config = load_config(folder)
    if mel is not None:
        difference = mel.difference(config.mel_spec)
        if difference:
            raise CheckpointError(f"{folder}: its mel specification is another: {difference}")
    model = build(config, read_tensors(folder), folder, dtype, device)
    model.generation_config = _generation_config(folder) or model.generation_config
    tokenizer = read_tokenizer(folder)
    check_pair(folder, config, tokenizer)
    return model.eval(), SpeechLMProcessor.of(
        config, tokenizer, model.speech_input, model.speech_output, read_lexicon(folder, config), read_dictionary(folder, config)
    )


def read_dictionary(folder: Path, config: SpeechLMConfig) -> Dictionary | None:
    """The words of a checkpoint whose CTC head hears sounds, else None. Raises CheckpointError."""
    return Dictionary.read(folder) if config.ctc_sounds else None


def read_lexicon(folder: Path, config: SpeechLMConfig) -> lexicon.Lexicon | None:
    """The pronunciation dictionary of a checkpoint that speaks by one, else None. Raises CheckpointError."""
    if not config.spoken_lexicon:
        return None
    try:
        return lexicon.read(folder / lexicon.FILE)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, tried on a word: settings that do not fit it show only in use. Raises CheckpointError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        tokenizer.decode(tokenizer("word")["input_ids"])
    except Exception as error:  # whatever transformers makes of broken files
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({first_line(error)})") from None
    return tokenizer


def check_pair(folder: Path, config: SpeechLMConfig, tokenizer: Any) -> None:
    """Raises CheckpointError where a tokenizer is not the one that a model was trained with, as far as its size and special tokens tell."""
    if not isinstance(tokenizer.model_max_length, int | float):
        raise CheckpointError(f"{folder}: the tokenizer's model_max_length is {str(tokenizer.model_max_length)[:60]!r}, expected a number")
    ids = set(tokenizer.get_vocab().values())
    if max(ids, default=-1) >= config.vocab_size:
        rows = config.vocab_size
        raise CheckpointError(f"{folder}: its tokenizer has {max(ids) + 1} entries and its embedding table {rows} rows: not a pair")
    special = {config.speech_token_id: "speech_token_id", **dict.fromkeys(config.stop_token_ids, "stop_token_ids")}
    for one, name in special.items():
        if one not in ids:
            raise CheckpointError(f"{folder}: its tokenizer has no token {one}, which is among {name} in config.json: not a pair")
    if tokenizer.pad_token_id != config.pad_token_id:
        raise CheckpointError(f"{folder}: its tokenizer pads with {tokenizer.pad_token_id}, and config.json with {config.pad_token_id}: not a pair")


def _generation_config(folder: Path) -> GenerationConfig | None:
    if not (folder / "generation_config.json").exists():
        return None
    try:
        config = GenerationConfig.from_pretrained(folder)
        if not isinstance(config.num_beams or 1, int) or (config.num_beams or 1) < 1:
            raise ValueError(f"num_beams is {config.num_beams!r}")
    except Exception as error:
        raise CheckpointError(f"{folder / 'generation_config.json'}: cannot be used ({first_line(error)})") from None
    return config


def pickle_hint(folder: Path) -> str:
    """What to add to an error about missing weights where a folder holds pickles, else nothing."""
    unsafe = next((path.name for pattern in UNSAFE for path in sorted(folder.glob(pattern))), None)
    return f"; it holds {unsafe}, a pickle, which is never opened: convert it to safetensors" if unsafe else ""


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, from one safetensors file or the shards its index lists; those of eight bits in float32."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / int8.FILE).exists() and not index.exists() and not (folder / WEIGHTS).exists():
        return int8.unpack(load_tensors(folder / int8.FILE))
    if index.exists():
        try:
            names = sorted({str(name) for name in parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{index}: cannot be read ({first_line(error)})") from None
        if any("/" in name or "\\" in name or "\0" in name for name in names):
            raise CheckpointError(f"{index}: a shard lies outside the checkpoint's folder")
    else:
        names = [WEIGHTS]
    missing = next((name for name in names if not os.path.exists(folder / name)), None)  # which, unlike Path.exists, takes any name
    if missing is not None:
        raise CheckpointError(f"{folder}: {missing[:100]} is missing{pickle_hint(folder)}")
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors |= load_tensors(folder / name)
    return tensors


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one safetensors file. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}): copy or fetch it again; pickles are never opened") from None


def sizes_in(path: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file holds, without reading them. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            return {key: torch.Size(file.get_slice(key).get_shape()).numel() for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from None


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that holds a number which is none, or is infinite; found by its sum, which is too, and costs no memory."""
    floating = ((name, tensor) for name, tensor in tensors.items() if tensor.is_floating_point())
    return next((name for name, tensor in floating if not tensor.sum(dtype=torch.float32).isfinite()), None)


def cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A weight in another number format; statistics of the features keep their precision."""
    statistics = name.startswith(("speech_input.", "speech_output.")) and ".normalise." in name
    keep = dtype is None or not tensor.is_floating_point() or statistics
    return tensor if keep else tensor.to(dtype)


def build(config: SpeechLMConfig, tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype | None = None, device: str = "cpu") -> SpeechLM:
    """A model with these tensors. folder: where they come from, to say what is wrong with them. Raises CheckpointError."""
    try:
        with init_empty_weights():  # of the parameters; buffers that no checkpoint holds, such as rotary frequencies, are computed
            model = SpeechLM(config)
    except Exception as error:  # transformers checks each field in its own way
        raise CheckpointError(f"{folder}: its config.json describes no possible model: {first_line(error)}") from None
    assign(model, tensors, folder, dtype, device)
    return model


def assign(model: SpeechLM, tensors: dict[str, Tensor], folder: Path, dtype: torch.dtype | None, device: str) -> None:
    """Put tensors into a model on the meta device. Missing, unexpected and misshapen ones are an error."""
    tied = set(model._tied_weights_keys or {})
    wanted = {name: tensor for name, tensor in model.state_dict().items() if not (name in tied and name not in tensors)}
    missing = sorted(set(wanted) - set(tensors))
    unexpected = sorted(set(tensors) - set(wanted))
    if problem := lora.mismatch(model, tensors):
        raise CheckpointError(f"{folder}: the checkpoint {problem}")
    misshapen = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    for problem, names in (("misses", missing), ("holds unexpected", unexpected), ("has the wrong shape for", misshapen)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(f"{folder}: the checkpoint {problem} {', '.join(names[:3])}{more}")
    if broken := not_finite(tensors):
        raise CheckpointError(f"{folder}: {broken} holds numbers that are not finite")
    ready = {name: cast(name, tensor, dtype).to(device) for name, tensor in tensors.items()}
    model.load_state_dict(ready, strict=False, assign=True)
    model.tie_weights()
    model.to(device)


def average(paths: list[Path]) -> dict[str, Tensor]:
    """The mean of several safetensors files' tensors, computed in float32."""
    total: dict[str, Tensor] = {}
    for path in paths:
        for name, tensor in load_tensors(path).items():
            total[name] = total[name] + tensor.float() if name in total else tensor.float()
    return {name: tensor / len(paths) for name, tensor in total.items()}


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file under a temporary name and move it into place. Raises WriteError."""
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata={"format": "pt"})
