"""The layers of a language model: where they are, and how people write them: `0-3`, `8`."""

from __future__ import annotations

import re

from torch import nn
from transformers import PreTrainedModel


def decoder_layers(llm: PreTrainedModel) -> nn.ModuleList | None:
    """The blocks of a language model, in order; None where its family keeps them otherwise than as one list."""
    count = llm.config.num_hidden_layers
    return next((module for module in llm.modules() if isinstance(module, nn.ModuleList) and len(module) == count), None)


def layer_range(part: str) -> range | None:
    """The layers of one number or range, both ends included; None where it is neither."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
    span = range(int(found[1]), int(found[2] or found[1]) + 1) if found else None
    return span or None
