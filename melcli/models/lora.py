"""Low-rank adapters (LoRA; Hu et al., 2021, arXiv 2106.09685) on the linear layers of a language model, by peft.

An adapted layer computes W x + alpha / rank * B A x. Shapes: A [rank, in], B [out, rank], W [out, in].
What trains is decided elsewhere: here adapters are put in, taken out and looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor, nn

from melcli.config import Config
from melcli.errors import ConfigError

if TYPE_CHECKING:
    from melcli.models.speech_lm import SpeechLM

ADAPTER = "default"  # the name peft gives to an adapter that stands alone
IN_A_LAYER = re.compile(r"(?:^|\.)\d+\.")
PARTS = re.compile(r"^(?P<module>.+)\.lora_(?P<part>[AB])\.")


class LoraOptions(Config):
    """`SpeechLMConfig.lora`: what an adapter is, without which a checkpoint that has one cannot be read."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str = Field(min_length=1, description="pattern that the last part of a module's name must match in full")

    @field_validator("targets")
    @classmethod
    def _a_pattern(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no pattern ({error})") from None
        return value


def options_of(fields: Mapping[str, Any] | LoraOptions) -> LoraOptions:
    """Checked options. Raises ConfigError naming the field."""
    if isinstance(fields, LoraOptions):
        return fields
    try:
        return LoraOptions.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"lora.{'.'.join(map(str, first['loc']))}: {first['msg']}; valid: {', '.join(LoraOptions.model_fields)}") from None


def is_lora(name: str) -> bool:
    """Whether a parameter, by its name, belongs to an adapter."""
    return PARTS.match(name) is not None


def linear_names(llm: nn.Module) -> list[str]:
    """Names of the linear modules in the numbered layers of a language model, which are those that can be adapted."""
    names = (name for name, module in llm.named_modules() if isinstance(module, nn.Linear) and not is_lora(f"{name}."))
    return [name.removesuffix(".base_layer") for name in names if IN_A_LAYER.search(name)]


def target_names(llm: nn.Module, targets: str) -> list[str]:
    """Those of `linear_names` whose last part matches `targets` in full. Raises ConfigError where there are none."""
    names = linear_names(llm)
    chosen = [name for name in names if re.fullmatch(targets, name.rpartition(".")[2])]
    if not chosen:
        there = ", ".join(sorted({name.rpartition(".")[2] for name in names})) or "none"
        raise ConfigError(f"lora.targets: {targets!r} matches no linear layer of the language model; there are {there}")
    return chosen


def inject(llm: nn.Module, fields: Mapping[str, Any] | LoraOptions) -> None:
    """Put an adapter that changes nothing yet (B is zero) into a language model. Every parameter can be trained as before.

    Raises ConfigError where peft is not installed or no module matches.
    """
    options = options_of(fields)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError("low-rank adapters need the package 'peft': pip install 'melcli[lora]'") from None
    names = target_names(llm, options.targets)
    trained = {name for name, parameter in llm.named_parameters() if parameter.requires_grad}
    pattern = "|".join(map(re.escape, names))
    config = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=pattern)
    inject_adapter_in_model(config, llm, ADAPTER)
    llm.train(llm.training)
    for name, parameter in llm.named_parameters():  # peft freezes all else
        parameter.requires_grad_(is_lora(name) or name.replace(".base_layer.", ".") in trained)


def add_lora(model: SpeechLM, fields: Mapping[str, Any] | LoraOptions) -> SpeechLM:
    """Put an adapter into a model that has none, and into its config, so that it is saved and loaded with it. Raises ConfigError."""
    options = options_of(fields)
    if model.config.lora is not None:
        raise ConfigError("the model has a low-rank adapter already: merge it before another is added")
    inject(model.llm, options)
    model.config.lora = options.model_dump()
    return model


def lora_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The adapted layers by name; each has `lora_A`, `lora_B`, `scaling` (by adapter) and `base_layer`."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")}


def update_of(module: nn.Module) -> Tensor:
    """alpha / rank * B A of an adapted layer [out, in], in float32."""
    return module.scaling[ADAPTER] * (module.lora_B[ADAPTER].weight.float() @ module.lora_A[ADAPTER].weight.float())


@torch.no_grad()
def merge_lora(model: SpeechLM) -> SpeechLM:
    """Add the adapters to the weights they stand beside, computed in float32 and kept in the weights' own dtype; none is left.

    Changes and returns `model`; one without adapters stays as it is.
    """
    for name, module in lora_modules(model).items():
        base = module.base_layer
        base.weight.copy_(base.weight.float() + update_of(module).to(base.weight.device))
        model.set_submodule(name, base)
    if hasattr(model.llm, "peft_config"):
        del model.llm.peft_config
    model.config.lora = None
    return model


@torch.no_grad()
def lora_is_zero(model: SpeechLM) -> bool:
    """Whether no adapter changes anything, as before training: of each, A or B is zero. A model without adapters has none that does."""
    return not any(bool(m.lora_A[ADAPTER].weight.any()) and bool(m.lora_B[ADAPTER].weight.any()) for m in lora_modules(model).values())


@contextmanager
def without_lora(model: SpeechLM) -> Iterator[None]:
    """The model as it is without its adapters, for as long as the block lasts."""
    modules = lora_modules(model).values()
    trained = [p for m in modules for p in m.parameters() if p.requires_grad]
    for module in modules:
        module.enable_adapters(False)
    try:
        yield
    finally:
        for module in modules:
            module.enable_adapters(True)
        ours = {id(p) for p in trained}
        for module in modules:  # peft's switch also decides what trains, which is not its business here
            for parameter in module.parameters():
                parameter.requires_grad_(id(parameter) in ours)


@torch.no_grad()
def lora_is_used(model: SpeechLM, tokens: int = 8) -> bool:
    """Whether the adapters reach the output: the logits of a few tokens with them are others than without.

    False where there are none, where they are zero, and where something on the way leaves them out.
    """
    training = model.training
    model.eval()
    ids = torch.arange(tokens, device=model.device)[None] % model.config.vocab_size
    with_them = model.llm(input_ids=ids, use_cache=False).logits
    with without_lora(model):
        without = model.llm(input_ids=ids, use_cache=False).logits
    model.train(training)
    return not torch.equal(with_them, without)


def mismatch(model: SpeechLM, tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong between a model's adapters and those among a checkpoint's tensors, as a sentence's end; None where they agree."""
    there = {match["module"]: name for name in tensors if (match := PARTS.match(name)) and match["part"] == "A"}
    mine = set(lora_modules(model))
    if there and not mine:
        return f"holds a low-rank adapter for {_few(there)}, and its config.json describes none (lora)"
    if more := sorted(set(there) - mine):
        return f"holds a low-rank adapter for {_few(more)}, which lora.targets {model.config.lora['targets']!r} does not match"
    if less := sorted(mine - set(there)):
        return f"holds no low-rank adapter for {_few(less)}, which lora.targets {model.config.lora['targets']!r} matches"
    rank = model.config.lora["rank"] if mine else 0
    if wrong := next((name for name in there.values() if tensors[name].shape[0] != rank), None):
        return f"holds a low-rank adapter of rank {tensors[wrong].shape[0]} ({wrong}), but its config.json says rank {rank}"
    return None


def _few(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
