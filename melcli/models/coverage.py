"""Where a model's tensors come from: loaded, left behind or random, by group. Nothing is random unless this says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from melcli.errors import ConfigError
from melcli.models.lora import is_lora

LAYER = re.compile(r"\.(?:layers|h|blocks?|decoder_layers)\.(\d+)\.")
EMBEDDINGS = re.compile(r"\.(?:embed_tokens|embed_in|wte|tok_embeddings|word_embeddings|embed_out|lm_head)\b")
SHOWN = 3


def layer_of(name: str) -> int | None:
    """The number of the language model's layer that a tensor belongs to."""
    found = LAYER.search(name) if name.startswith("llm.") else None
    return int(found.group(1)) if found else None


def group_of(name: str) -> str:
    """What a tensor of a SpeechLM is part of, as a person would say it."""
    if is_lora(name):
        return "LoRA"
    first, _, rest = name.partition(".")
    if first != "llm":
        parts = {"speech_input": "speech input", "speech_output": "speech output", "ctc_head": "CTC head", "spoken_ctc_head": "spoken CTC head"}
        parts = parts.get(first, first)
        return f"{parts} {rest.partition('.')[0]}" if rest.startswith(("encoder", "relative")) else parts
    if layer_of(name) is not None:
        return "LLM layers"
    return "embeddings" if EMBEDDINGS.search(name) else "LLM norms and the rest"


class Patterns:
    """Regular expressions of a recipe, each found anywhere in a tensor's name. key: where they stand. Raises ConfigError for one that is none."""

    def __init__(self, patterns: Sequence[str], key: str) -> None:
        self.key = key
        self.used: set[str] = set()
        self.patterns: dict[str, re.Pattern[str]] = {}
        for pattern in patterns:
            try:
                self.patterns[pattern] = re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"{key}: {pattern!r} is no regular expression: {error}") from None

    def __call__(self, name: str) -> bool:
        """Whether a pattern is found in the name."""
        hits = [pattern for pattern, compiled in self.patterns.items() if compiled.search(name)]
        self.used.update(hits)
        return bool(hits)

    def check_used(
        self, names: Iterable[str], otherwise: str = "is found in no tensor's name; they look like llm.model.layers.0.mlp.up_proj.weight"
    ) -> None:
        """Raises ConfigError for a pattern that none of the names matched. otherwise: what to say of it."""
        for name in names:
            self(name)
        for pattern in self.patterns:
            if pattern not in self.used:
                raise ConfigError(f"{self.key}: {pattern!r} {otherwise}")


@dataclass
class Coverage:
    """Names and sizes of what was loaded into a model, what of the file was left behind, and what starts random.

    pretrained: what was loaded from another model, an encoder that the recipe names. groups: what tensors are part of that their names do not say.
    """

    loaded: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    fresh: dict[str, int] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    pretrained: dict[str, int] = field(default_factory=dict)

    def take(self, names: Iterable[str]) -> None:
        """These were random, and are pretrained now."""
        self.pretrained |= {name: self.fresh.pop(name) for name in names if name in self.fresh}

    def said(self, origin: str | None) -> dict[str, str]:
        """For the list of decisions. origin: what was loaded from; None where all but what is pretrained is random, which needs no line."""
        lines = {}
        if origin is not None:
            lines["start"] = f"{origin}: {len(self.loaded)} tensors, {millions(sum(self.loaded.values()))} parameters loaded"
        if self.left:
            lines["left behind"] = self._by_group(self.left)
        if self.pretrained:
            lines["pretrained"] = self._by_group(self.pretrained)
        if origin is not None:
            lines["random"] = self._by_group(self.fresh) if self.fresh else "nothing"
        return lines

    def totals(self, tensors: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Tensors and parameters by group, of `loaded`, `left` or `fresh`."""
        found: dict[str, list[int]] = {}
        for name, size in tensors.items():
            found.setdefault(self.groups.get(name) or group_of(name), []).append(size)
        return {group: (len(each), sum(each)) for group, each in found.items()}

    def _by_group(self, tensors: Mapping[str, int]) -> str:
        return "; ".join(f"{group}: {count} tensors, {millions(total)}" for group, (count, total) in self.totals(tensors).items())


def millions(count: int) -> str:
    """A number of parameters in words."""
    return f"{count / 1e6:,.1f} M" if count >= 5e5 else f"{count:,}"


def sizes(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, int]:
    """How many numbers each of these tensors holds."""
    return {name: tensors[name].numel() for name in names}


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
