"""How many speech positions an utterance of so many frames (or samples) has: one rule, asked by inputs, processor and batch plan alike.

A step is (kernel, stride, padding), padding of both sides together: n becomes (n + padding - kernel) // stride + 1, and
ceil(n / k) is (k, k, k - 1). A chain is a sequence of steps; where several chains run side by side the shortest result counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import TypeVar

from torch import Tensor

from melcli.audio.mel_spec import MelSpec

Count = TypeVar("Count", int, Tensor)
Step = tuple[int, int, int]
Chain = tuple[Step, ...]


def every(stride: int) -> Step:
    """The step of ceil(n / stride)."""
    return (stride, stride, stride - 1)


def mel_step(spec: MelSpec) -> Step:
    """The step from samples to mel frames."""
    return (spec.span, spec.hop_length, 2 * spec.fft_pad - spec.hop_length * spec.drop_last)


def least(chain: Chain) -> int:
    """The fewest frames that give a position; shorter utterances are filled with zeros up to it."""
    return reduce(lambda n, step: max(1, (n - 1) * step[1] + step[0] - step[2]), reversed(chain), 1)


def along(chain: Chain, frames: Count) -> Count:
    """Positions that a chain makes of frames, of which there are enough."""
    for kernel, stride, padding in chain:
        frames = (frames + padding - kernel) // stride + 1
    return frames


class Subsampling:
    """The rule of one speech input.

    stride: frames from one position to the next. positions(0) is 0; anything else has at least one.
    """

    def __init__(self, chains: Sequence[Chain]) -> None:
        self.chains = tuple(tuple(tuple(step) for step in chain) for chain in chains)
        self.stride = prod(stride for _, stride, _ in self.chains[0])
        self._least = max(map(least, self.chains))

    @classmethod
    def of_stride(cls, stride: int) -> Subsampling:
        """ceil(n / stride)."""
        return cls([(every(stride),)])

    def positions(self, frames: Count) -> Count:
        """Positions of utterances of so many frames: an int for an int, a tensor for a tensor."""
        if isinstance(frames, Tensor):
            enough = frames.clamp_min(self._least)
            counts = [along(chain, enough) for chain in self.chains]
            return reduce(lambda a, b: a.minimum(b), counts) * (frames > 0)
        return min(along(chain, max(frames, self._least)) for chain in self.chains) if frames else 0
