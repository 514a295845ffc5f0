"""What chance adds to a speech output: training, teacher forcing and speaking differ in where it comes from, and in nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """Draws numbers in the shape, the format and on the device of a tensor."""

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers."""
        ...

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in [0, 1)."""
        ...

    def keep(self, like: Tensor, share: float) -> Tensor:
        """A dropout mask: 1 / share with that probability, else 0."""
        ...


class Drawn:
    """From torch's own generator, as training draws; what it gives is in the checkpoints' random state."""

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.rand_like(like)

    def keep(self, like: Tensor, share: float) -> Tensor:
        return (self.uniform(like) < share).to(like.dtype) / share


class Still:
    """None at all: everything is kept, and every distribution stands at its mean."""

    def normal(self, like: Tensor) -> Tensor:
        return torch.zeros_like(like)

    def uniform(self, like: Tensor) -> Tensor:
        return torch.full_like(like, 0.5)

    def keep(self, like: Tensor, share: float) -> Tensor:
        return torch.ones_like(like)


class Seeded:
    """From a generator of each row's own, so that what a row gets depends neither on the other rows nor on the device.

    A single seed is for all rows together, of which there may be any number.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        self.generators = [self.generators[row] for row in rows]

    def of(self, row: int) -> Seeded:
        """What one row alone draws from, the same generator."""
        alone = Seeded([])
        alone.generators = [self.generators[row]]
        return alone

    def normal(self, like: Tensor) -> Tensor:
        return self._each(like, torch.randn)

    def uniform(self, like: Tensor) -> Tensor:
        return self._each(like, torch.rand)

    def keep(self, like: Tensor, share: float) -> Tensor:
        return (self.uniform(like) < share).to(like.dtype) / share

    def _each(self, like: Tensor, draw: Callable[..., Tensor]) -> Tensor:
        if len(self.generators) == 1:
            drawn = draw(like.shape, generator=self.generators[0])
        else:
            drawn = torch.stack([draw(like.shape[1:], generator=generator) for generator in self.generators])
        return drawn.to(like.device, like.dtype)


def seed_of(*parts: object) -> int:
    """A seed that stands for these values, the same on every machine."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
