"""What trains: the whole model, adapters, or the speech side alone; how fast each part learns; and what that costs.

Names of tensors are those without adapters (`llm.model.layers.0.self_attn.q_proj.weight`), whether adapters are there or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig

from melcli.errors import ConfigError
from melcli.models.coverage import Patterns, group_of, layer_of, millions
from melcli.models.layers import layer_range
from melcli.models.lora import is_lora, lora_is_zero
from melcli.models.speech_lm import SpeechLM
from melcli.recipe import TuneSection

GB = 1e9
ADAM_BYTES = 8  # two float32 moments of each parameter that trains


@dataclass
class Group:
    """How many of a group's parameters train, of how many."""

    name: str
    trains: int = 0
    total: int = 0

    def __str__(self) -> str:
        share = "all" if self.trains == self.total else f"{millions(self.trains)} of" if self.trains else "none of"
        return f"{self.name} {share} {millions(self.total)}"


def named(model: SpeechLM) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters by the names that patterns are matched with."""
    for name, parameter in model.named_parameters():
        yield name.replace(".base_layer.", "."), parameter


def choose(model: SpeechLM, tune: TuneSection) -> list[Group]:
    """Decide what trains, and count it. Raises ConfigError for patterns and layers that it does not have, and where nothing is left."""
    freeze, keep = Patterns(tune.freeze, "tune.freeze"), Patterns(tune.keep, "tune.keep")
    layers = parse_layers(tune.lora.layers, model) if tune.llm == "lora" else None
    groups: dict[str, Group] = {}
    for name, parameter in named(model):
        frozen = freeze(name)
        fixed = name.startswith(tuple(f"speech_input.{part}" for part in model.speech_input.fixed))
        idle = model.hears_by_itself and name.startswith("llm.")  # weight decay would shrink what no loss asks for
        parameter.requires_grad_(keep(name) or (not frozen and not fixed and not idle and _trains(name, tune, layers)))
        group = groups.setdefault(group_of(name), Group(group_of(name)))
        group.total += parameter.numel()
        group.trains += parameter.numel() * parameter.requires_grad
    freeze.check_used(())
    keep.check_used(())
    idle_lora = tune.llm == "lora" and not any(parameter.requires_grad for name, parameter in named(model) if is_lora(name))
    if idle_lora and (model.config.lora is None or lora_is_zero(model)):
        why = "ce_weight 0 learns by CTC at the speech input, which asks nothing of the language model" if model.hears_by_itself else "all are frozen"
        raise ConfigError(f"tune.llm lora: no adapter would train ({why}); leave it out")
    if not any(group.trains for group in groups.values()):
        raise ConfigError(f"tune: nothing is left to train; it has llm: {tune.llm} and freeze: {', '.join(tune.freeze) or 'nothing'}")
    return list(groups.values())


def _trains(name: str, tune: TuneSection, layers: set[int] | None) -> bool:
    """Whether a parameter trains but for `freeze` and `keep`."""
    if not name.startswith("llm."):
        return True
    if is_lora(name):
        return tune.llm == "lora" and (layers is None or layer_of(name) in layers)
    return tune.llm == "full"


def parse_layers(text: str | None, model: SpeechLM) -> set[int] | None:
    """`0-23` or `0-3,8` as numbers of layers that the model has; None for all. Raises ConfigError."""
    if text is None:
        return None
    count = model.config.text_config.num_hidden_layers
    chosen: set[int] = set()
    for part in text.split(","):
        span = layer_range(part)
        if span is None:
            raise ConfigError(f"tune.lora.layers: {text!r} is no list of layers; write 0-23 or 0-3,8")
        if span[-1] >= count:
            raise ConfigError(f"tune.lora.layers: {text} where the model has layers 0-{count - 1}")
        chosen.update(span)
    return chosen


def parameter_groups(model: SpeechLM, decayed: set[str], weight_decay: float, lr: float, speech_lr: float) -> list[dict[str, object]]:
    """Groups for the optimizer: the language model's parameters at lr, all others at speech_lr; norms and biases without decay."""
    groups = []
    for of_llm, rate in ((True, lr), (False, speech_lr)):
        for decay in (True, False):
            chosen = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad and name.startswith("llm.") == of_llm and (name in decayed) == decay
            ]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay if decay else 0.0})
    return groups


def memory(model: SpeechLM, positions: int, row: int, bytes_each: int, checkpointing: bool, layout: str = "none", world: int = 1) -> str:
    """About how much memory a training takes on a device, in words: an estimate, which `--dry-run` puts to the test.

    positions, row: of a batch and of one of its rows. bytes_each: of an activation. layout: what `world` processes share (training/parallel.py).
    """
    held, kept = (world if layout == "fsdp" else 1), (world if layout in ("fsdp", "zero1") else 1)
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / held
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained) / held
    moments = sum(p.numel() for p in trained) * ADAM_BYTES / kept
    config = model.config.text_config
    activations = positions * bytes_each * _per_position(config, row if model.llm.config._attn_implementation == "eager" else 0, checkpointing)
    parts = {"weights": weights, "gradients": gradients, "Adam": moments, "activations": activations}
    total = sum(parts.values())
    return f"about {total / GB:.1f} GB: " + ", ".join(f"{name} {size / GB:.1f}" for name, size in parts.items()) + " (estimated)"


def _per_position(config: PretrainedConfig, row: int, checkpointing: bool) -> int:
    """Numbers that backward needs of each position: norms, projections and gated feed-forward of each layer, scores where they are kept, logits.

    After Korthikanti et al., 2022 (arXiv 2205.05198), counted for gated layers. The speech input's own are left out.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    inner = getattr(config, "intermediate_size", None) or 4 * width
    layer = 8 * width + 4 * inner + 2 * row * config.num_attention_heads
    logits = config.vocab_size // 2  # of targets alone, which are a quarter or so, and their gradients
    return (layers * width + layer if checkpointing else layers * layer) + logits
