"""Layers over any number of rows, in shapes of which there are few.

For a processor oneDNN makes a kernel for each new shape and never forgets one of those for matrices in bfloat16, whatever its caches are told: with
batches of speech, where nearly every number of rows is new, a process would grow by megabytes a step. Rows are filled up with zeros to a multiple.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

ROWS = 128


def apply(layer: Callable[[Tensor], Tensor], x_NK: Tensor) -> Tensor:
    """layer(x_NK), for a layer that treats rows alike; x_NK has two dimensions."""
    missing = -len(x_NK) % ROWS if x_NK.device.type == "cpu" else 0
    return layer(F.pad(x_NK, (0, 0, 0, missing)))[: len(x_NK)] if missing else layer(x_NK)
