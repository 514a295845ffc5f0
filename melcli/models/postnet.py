"""The convolutions that smooth what was predicted patch by patch.

Shapes: T frames, F frames of several utterances end to end, M mel bins, C channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from melcli.models.speech_input import respace


class PostNet(nn.Module):
    """y + Conv(y): `layers` convolutions over time, tanh between them (Shen et al., 2017, arXiv 1712.05884, without their batch norm).

    context: frames on either side that a frame depends on. Utterances end to end are kept apart by zero frames: each comes out as if alone.
    """

    def __init__(self, n_mels: int, channels: int = 256, layers: int = 5, kernel: int = 5) -> None:
        super().__init__()
        widths = [n_mels, *[channels] * (layers - 1), n_mels]
        self.convolutions = nn.ModuleList([nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in itertools.pairwise(widths)])
        self.gap = kernel // 2
        self.context = layers * self.gap
        nn.init.zeros_(self.convolutions[-1].weight)  # begins as nothing
        nn.init.zeros_(self.convolutions[-1].bias)

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> Tensor:
        slots_U = frames_U + self.gap
        held_1T = respace(torch.ones_like(mel_FM[:, :1]), frames_U, slots_U)[:, 0].bool()
        x = respace(mel_FM, frames_U, slots_U).T[None]
        mask = held_1T.to(x.dtype)
        for number, convolution in enumerate(self.convolutions):
            x = convolution(x.to(convolution.weight.dtype))
            x = (torch.tanh(x) if number < len(self.convolutions) - 1 else x) * mask
        return mel_FM + x[0].T[held_1T]


class Windowed:
    """A function of whole utterances that looks `context` frames to either side, on frames as they come.

    push(mel_TM) gives what is certain by now, flush() the rest; both together are what the whole would have given.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], context: int) -> None:
        self.run = run
        self.context = context
        self.held: Tensor | None = None  # frames that are still looked at
        self.done = 0  # of those held, how many were given out

    def push(self, mel_TM: Tensor) -> Tensor:
        self.held = mel_TM if self.held is None else torch.cat([self.held, mel_TM])
        return self._give(len(self.held) - self.context)

    def flush(self) -> Tensor:
        if self.held is None:
            raise ValueError("nothing was pushed")
        return self._give(len(self.held))

    def _give(self, end: int) -> Tensor:
        if end <= self.done:
            return self.held[:0]
        out = self.run(self.held)[self.done : end]
        drop = max(0, end - self.context)
        self.held, self.done = self.held[drop:], end - drop
        return out
