"""Weights of eight bits: a matrix as whole numbers from -127 to 127 and a factor for each of its rows, multiplied out when it is read.

A row's factor is its largest weight / 127, so that a weight is off by at most half of that. Vectors, small tensors and statistics stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

FILE = "model.int8.safetensors"  # a name that nothing takes for weights which are to be read as they are
SCALE = ".scale"
LEAST = 4096  # numbers, below which nothing is saved


def fits(tensor: Tensor) -> bool:
    """Whether a tensor is worth packing."""
    return tensor.is_floating_point() and tensor.dim() > 1 and tensor.numel() >= LEAST


def pack(tensors: Mapping[str, Tensor], keep: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """Each matrix as NAME (int8, its shape) and NAME.scale (float32, a number a row); keep(name, tensor) is what is written of all others."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if fits(tensor):
            found[name], found[name + SCALE] = rows(tensor)
        else:
            found[name] = keep(name, tensor)
    return found


def rows(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The whole numbers of a matrix and the factor of each row."""
    flat = tensor.float().flatten(1)
    scale = flat.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * 127) / 127
    return (flat / scale[:, None]).round().to(torch.int8).view(tensor.shape), scale


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that were packed, in float32; others as they are."""
    packed = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + SCALE in tensors}
    factors = {name + SCALE for name in packed}
    return {n: (t.float() * tensors[n + SCALE].view(-1, *[1] * (t.dim() - 1)) if n in packed else t) for n, t in tensors.items() if n not in factors}


def rounded(tensor: Tensor) -> Tensor:
    """A tensor as it is after packing and unpacking, in its own number format."""
    if not fits(tensor):
        return tensor
    whole, scale = rows(tensor)
    return (whole.float() * scale.view(-1, *[1] * (tensor.dim() - 1))).to(tensor.dtype)
