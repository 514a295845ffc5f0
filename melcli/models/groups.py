"""Packed sequences through a module that wants padded batches: sequences of like length together, and each put back where it was.

Shapes: P positions of all sequences, B sequences of one group, L the longest of a group, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

WASTE = 0.25  # share of a group's real positions that may be padding
POSITIONS = 8192  # positions of a group, padding included: bounds the memory of attention


def length_groups(lengths: Sequence[int], *, waste: float = WASTE, positions: int = POSITIONS) -> list[list[int]]:
    """Indices of sequences that go together, shortest first; waste 0 puts only equal lengths together."""
    groups: list[list[int]] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        area = length * (len(groups[-1]) + 1) if groups else 0
        if groups and area <= positions and area <= (1 + waste) * (real + length):
            groups[-1].append(index)
            real += length
        else:
            groups.append([index])
            real = length
    return groups


def in_groups(
    x_PD: Tensor, lengths: Sequence[int], run: Callable[[Tensor, Tensor], Sequence[Tensor]], *, waste: float = WASTE, positions: int = POSITIONS
) -> list[Tensor]:
    """What `run` gives for each sequence, in their order.

    run: takes x_BLD, padded with zeros on the right, and lengths_B, and returns one tensor a sequence, without the padding.
    """
    parts = x_PD.split(list(lengths))
    results: list[Tensor] = [x_PD] * len(parts)
    for group in length_groups(lengths, waste=waste, positions=positions):
        lengths_B = torch.tensor([lengths[i] for i in group], device=x_PD.device)
        for index, result in zip(group, run(pad_sequence([parts[i] for i in group], batch_first=True), lengths_B), strict=True):
            results[index] = result
    return results


def valid(lengths_B: Tensor, width: int) -> Tensor:
    """True where a padded batch holds a sequence, [B, width]."""
    return torch.arange(width, device=lengths_B.device) < lengths_B[:, None]
