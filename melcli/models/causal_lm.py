"""Causal language models of transformers as a start: from safetensors only, without code from the checkpoint, every tensor accounted for.

Shapes: V rows of the embedding table, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AddedToken, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from melcli.errors import CheckpointError, ConfigError, first_line
from melcli.models import checkpoint
from melcli.models.coverage import Coverage, Patterns, sizes, some

LOCAL = {"trust_remote_code": False, "local_files_only": True}


def check(folder: Path, fields: dict[str, Any]) -> None:
    """Refuse, by its files, what is no whole causal language model with a text head. Raises CheckpointError."""
    kind, named = str(fields.get("model_type")), fields.get("architectures") or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise CheckpointError(f"{folder / 'config.json'}: architectures is no list of names")
    if kind not in CONFIG_MAPPING_NAMES:
        code = "; code that a checkpoint brings along is never run" if fields.get("auto_map") else ""
        raise CheckpointError(f"{folder}: transformers knows no model of type {kind!r}{code}")
    classes = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, ())
    classes = {classes} if isinstance(classes, str) else set(classes)
    if not classes or (named and not classes & set(named)):
        shown = ", ".join(named) or kind
        raise CheckpointError(f"{folder}: {shown} is no causal language model; start from one (Qwen3ForCausalLM, say), from ours or Phi-4-multimodal")
    if "text_config" in fields or "thinker_config" in fields:
        raise CheckpointError(f"{folder}: {', '.join(named) or kind} holds more than a language model; start from the text model of its family")
    if fields.get("quantization_config"):
        raise CheckpointError(f"{folder}: its weights are quantised; start from those that they were made from")
    if (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{folder}: holds an adapter (adapter_config.json) beside the weights; merge it first")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: no safetensors file with its weights{checkpoint.pickle_hint(folder)}")
    for path in sorted(folder.glob("*.safetensors")):
        if small := quantised_in(path):
            raise CheckpointError(f"{path}: {small} is quantised, and config.json does not say how; start from the weights that it was made from")


def quantised_in(path: Path) -> str | None:
    """The first tensor of a safetensors file whose numbers have eight bits or fewer, with its format: without the factors that they are to be
    multiplied with they mean nothing. Raises CheckpointError."""
    try:
        with safe_open(path, "pt") as file:
            kinds = {name: str(file.get_slice(name).get_dtype()) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be loaded: {first_line(error)}") from None
    return next((f"{name} ({kind})" for name, kind in kinds.items() if kind.startswith(("F8", "F6", "F4", "I8", "U8"))), None)


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint. Raises CheckpointError."""
    tokenizer = checkpoint.read_tokenizer(folder)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # so transformers makes up for missing files
        raise CheckpointError(f"{folder}: the files of its tokenizer are missing")
    return tokenizer


def read_llm(folder: Path, fresh: Patterns, drop: Patterns) -> tuple[PreTrainedModel, Coverage]:
    """The language model in float32, its tensors called `llm.…` in the coverage. Raises CheckpointError where one is missing or left over."""
    transformers_logging.set_verbosity_error()  # our own lines say what was loaded
    options = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
    try:
        llm, info = AutoModelForCausalLM.from_pretrained(folder, **options, output_loading_info=True, **LOCAL)
    except Exception as error:  # whatever transformers makes of a broken checkpoint
        raise CheckpointError(f"{folder}: cannot be loaded: {first_line(error)}") from None
    mismatched = {f"llm.{key[0]}" for key in info.get("mismatched_keys") or ()}
    missing = {f"llm.{name}" for name in info["missing_keys"]} | mismatched
    if lost := sorted(name for name in missing if not fresh(name)):
        what = "has the wrong shape for" if lost[0] in mismatched else "misses"
        raise CheckpointError(f"{folder}: the checkpoint {what} {some(lost)}; model.fresh starts them at random")
    left = [f"llm.{name}" for name in sorted(info["unexpected_keys"])]
    if over := [name for name in left if not drop(name)]:
        raise CheckpointError(f"{folder}: the checkpoint holds {some(over)}, for which there is no place; model.drop leaves them behind")
    tensors = {f"llm.{name}": tensor for name, tensor in llm.state_dict().items() if name not in (llm.all_tied_weights_keys or {})}
    random = [name for name in tensors if fresh(name)]
    llm.config.dtype = torch.float32
    files = folder.glob("*.safetensors") if left else ()
    there = {f"llm.{name}": size for path in files for name, size in checkpoint.sizes_in(path).items()}
    return llm, Coverage(sizes(tensors, set(tensors) - set(random)), {name: there.get(name, 0) for name in left}, sizes(tensors, random))


def vocabulary_rows(tokenizer: Any) -> int:
    """Rows that an embedding table needs for a tokenizer: its highest id and one."""
    return max(tokenizer.get_vocab().values()) + 1


def add_tokens(tokenizer: Any, wanted: Sequence[str]) -> list[str]:
    """Add those special tokens that a tokenizer lacks, and return them."""
    there = tokenizer.get_vocab()
    missing = [token for token in dict.fromkeys(wanted) if token not in there]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing], special_tokens=True)
    return missing


def check_vocabulary(rows: int, tokenizer: Any, name: str) -> None:
    """Raises CheckpointError where a tokenizer has entries that the embedding table has no row for. Tables padded beyond it are common."""
    if vocabulary_rows(tokenizer) > rows:
        raise CheckpointError(f"{name}: its tokenizer has {vocabulary_rows(tokenizer)} entries and its embedding table {rows} rows: not a pair")


@torch.no_grad()
def fit_vocabulary(llm: PreTrainedModel, tokenizer: Any, added: Sequence[str]) -> str:
    """Give added tokens rows of their own, each the mean of those of the other tokens, in the embeddings and in an untied head; how, in words."""
    new = tokenizer.convert_tokens_to_ids(list(added))
    old = sorted(set(tokenizer.get_vocab().values()) - set(new))
    before = llm.get_input_embeddings().weight.shape[0]
    if vocabulary_rows(tokenizer) > before:
        try:
            llm.resize_token_embeddings(vocabulary_rows(tokenizer), mean_resizing=False)
        except Exception as error:
            raise ConfigError(f"the embeddings of {llm.config.model_type} cannot be made larger ({first_line(error)})") from None
    tables = [llm.get_input_embeddings().weight]
    head = llm.get_output_embeddings()
    if head is not None and head.weight.data_ptr() != tables[0].data_ptr():
        tables += [head.weight, *([head.bias] if getattr(head, "bias", None) is not None else [])]
    for table in tables:
        table[new] = _mean(table, old)
    rows = llm.get_input_embeddings().weight.shape[0]
    where = f"the table grew from {before:,} rows to {rows:,}" if rows > before else f"in free rows of the table of {rows:,}"
    return f"{', '.join(added)} added, each the mean of the {len(old):,} others; {where}"


def _mean(table: Tensor, rows: list[int]) -> Tensor:
    return table[rows].float().mean(0).to(table.dtype)
