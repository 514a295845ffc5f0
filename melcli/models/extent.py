"""Numbers in a model's config.json that no model has: a file of one kilobyte must not ask for a million layers to be built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from melcli.errors import MelcliError

DEPTH = re.compile(r"(?:^|_)(?:layers?|blocks|depth|stack)$")
WIDTH = re.compile(r"(?:hidden_size|intermediate_size|width|hidden|inner|ffn|heads|channels|patch|stride|kernel|frames)$")
AT_LEAST_ONE = ("num_hidden_layers", "n_layer", "num_layers")
MAY_HAVE_NONE = ("speech_backbone",)  # a unified encoder's, behind a speech input that hears by itself
MOST_LAYERS, MOST_WIDTH, MOST = 1000, 1_000_000, 2**31 - 1
"""The deepest language models have some hundred and fifty layers, the widest layers some hundred thousand numbers."""


def check_extent(fields: Mapping[str, Any], where: str, kind: type[MelcliError]) -> None:
    """Raises `kind`, starting with `where`, for a model without layers, or with more or wider ones than can be meant."""
    for name, value in _numbers(fields, ()):
        most = MOST_LAYERS if DEPTH.search(name[-1]) else MOST_WIDTH if WIDTH.search(name[-1]) else MOST
        least = -most if name[-1] not in AT_LEAST_ONE else int(name[-2:-1] != MAY_HAVE_NONE)
        if not least <= value <= most:
            has = f"from {least} to {most:,}" if least >= 0 else f"at most {most:,}"
            raise kind(f"{where}: {'.'.join(name)} is {str(value)[:30]}, and a model has {has}")


def _numbers(value: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, (*above, str(key)))
    elif isinstance(value, int) and not isinstance(value, bool) and above:
        yield above, value
