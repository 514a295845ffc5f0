"""Adapters of a model that a training begins from, and new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from melcli.errors import CheckpointError, ConfigError
from melcli.models import lora
from melcli.models.coverage import Patterns, sizes
from melcli.recipe import Recipe

if TYPE_CHECKING:
    from melcli.models.start import Origin, Started


def take_lora(
    started: Started,
    origin: Origin,
    recipe: Recipe,
    theirs: dict[str, Any] | None,
    adapters: dict[str, Tensor],
    fresh: Patterns,
    drop: Patterns,
) -> None:
    """Keep the adapters of a checkpoint, where adapters are to train; leave them behind, where the recipe says so; else merge them."""
    if not adapters:
        return
    left = [name for name in adapters if fresh(name) or drop(name)]
    if len(left) == len(adapters):
        started.coverage.left |= sizes(adapters, left)
        return
    if left:
        raise ConfigError(f"model.fresh, model.drop: of the adapters of {origin.name} either all or none; add 'lora_'")
    keep = recipe.tune.llm == "lora"
    if theirs is None:
        where = f"model.init {origin.name}"
        raise CheckpointError(f"{where} holds adapters, and its config.json describes none (lora); to leave them: model.drop: [lora_]")
    options = lora_options(recipe)
    model, theirs = started.model, lora.options_of(theirs).model_dump()
    gap = [f"tune.lora.{key}={theirs[key]}" for key in ("rank", "alpha") if options[key] != theirs[key]]
    if keep and lora.target_names(model.llm, options["targets"]) != lora.target_names(model.llm, theirs["targets"]):
        gap.append(f"tune.lora.targets={theirs['targets']}")
    if keep and gap:
        raise ConfigError(f"tune.lora: {origin.name} has adapters with {' '.join(gap)}; say so too, or start new ones: model.fresh: [lora_]")
    lora.add_lora(model, {**theirs, "dropout": options["dropout"]})
    if problem := lora.mismatch(model, adapters):
        raise CheckpointError(f"model.init {origin.name} {problem}")
    model.load_state_dict({name: tensor.float() for name, tensor in adapters.items()}, strict=False)
    started.coverage.loaded |= sizes(adapters, adapters)
    if not keep:
        lora.merge_lora(model)
        started.decided["LoRA"] = f"that of {origin.name} was added to its weights"


def lora_options(recipe: Recipe) -> dict[str, Any]:
    """The fields of `tune.lora` that say what an adapter is."""
    return recipe.tune.lora.model_dump(include={"rank", "alpha", "dropout", "targets"})


def add_lora(started: Started, recipe: Recipe) -> None:
    """New adapters, which change nothing until they are trained."""
    lora.add_lora(started.model, lora_options(recipe))
    started.coverage.fresh |= {name: p.numel() for name, p in started.model.named_parameters() if lora.is_lora(name)}
