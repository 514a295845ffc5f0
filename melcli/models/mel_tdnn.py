"""A speech input with time-delay layers: for small models, which learn sounds sooner from what is near than by attention to everything.

Shapes: F frames of all utterances, M mel bins, U utterances, P patches (speech positions), H width of the layers, G frames at half the stride.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melcli.errors import ConfigError
from melcli.models import steady
from melcli.models.mel_norm import build_normaliser
from melcli.models.speech_input import FRAMES, LEAN_CHANNELS, SpeechInput, a_few_at_a_time, first_convolution, frame_index, respace

STRETCH = 32  # frames that have the same channels dropped: numbers drawn for each frame would take as long as the layer
REACHES = (1, 2, 3, 4)  # frames to either side that layers look, in turn


def _normed(x_GH: Tensor, norm: nn.LayerNorm) -> Tensor:
    """norm(x_GH) in float32, whatever the weights are in."""
    return F.layer_norm(x_GH, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)


class TimeDelay(nn.Module):
    """x + Linear(SiLU(Linear([n(t - reach), n(t), n(t + reach)]))), n a layer norm of x: one time-delay layer (Waibel et al., 1989; Peddinti et al.,
    2015) in a residual block, as two products of large matrices."""

    def __init__(self, width: int, inner: int, reach: int, dropout: float) -> None:
        super().__init__()
        self.reach = reach
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(3 * width, inner)
        self.down = nn.Linear(inner, width)

    def forward(self, x_GH: Tensor, inside_G1: Tensor, dtype: torch.dtype) -> Tensor:
        near_GH = (_normed(x_GH, self.norm) * inside_G1).to(dtype)
        wide_GH = F.pad(near_GH, (0, 0, self.reach, self.reach))
        both = torch.cat([wide_GH[: len(x_GH)], near_GH, wide_GH[2 * self.reach :]], 1)
        inner = F.silu(self.up(both))
        if self.training and self.dropout:
            stretches = -(-len(inner) // STRETCH)
            kept = F.dropout(inner.new_ones(stretches, 1, inner.shape[1]), self.dropout).expand(-1, STRETCH, -1)
            inner = inner * kept.reshape(stretches * STRETCH, -1)[: len(inner)]
        return x_GH + self.down(inner)


class MelTdnn(SpeechInput):
    """Convolutions of stride two in time and frequency, time-delay layers, and every two frames to a position.

    With stride 8 the layers run at 25 frames/s, and ten of them see a second to either side. Packed utterances are kept apart by frames of zeros, as
    many as the farthest reach. dropout: of the channels within the layers, for stretches of frames.
    """

    def __init__(
        self,
        width: int,
        n_mels: int,
        *,
        stride: int = 8,
        channels: int = 32,
        hidden: int = 256,
        inner: int = 512,
        layers: int = 10,
        dropout: float = 0.0,
        norm: str = "utterance",
    ) -> None:
        super().__init__()
        if stride not in (4, 8, 16):
            raise ConfigError(f"model.speech_input.stride: {stride} is not one of 4, 8, 16")
        if not 0 <= dropout < 1:
            raise ConfigError(f"model.speech_input.dropout: {dropout} is not a share from 0 to 1")
        self.stride = stride
        self.normalise = build_normaliser(norm, n_mels)
        convolutions, bins, factor = [], n_mels, 1
        while factor < stride // 2:
            convolutions.append(nn.Conv2d(channels if convolutions else 1, channels, 3, 2, 1))
            bins, factor = -(-bins // 2), factor * 2
        self.conv = nn.ModuleList(convolutions)
        self.into = nn.Linear(channels * bins, hidden)
        self.layers = nn.ModuleList(TimeDelay(hidden, inner, REACHES[i % len(REACHES)], dropout) for i in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(2 * hidden, width)
        for layer in self.conv:  # weights that keep the variance of what goes through (He et al., 2015, arXiv 1502.01852), and no biases
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        return a_few_at_a_time(self._embed, mel_FM, frames_U)

    def _embed(self, mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        half = self.stride // 2
        patches_U = -(-frames_U // self.stride)
        slots_U = (patches_U + (max(REACHES) + 1) // 2) * self.stride  # behind each utterance at least as many frames of zeros as layers reach
        if slots_U.device.type == "cpu":
            slots_U[-1] += -slots_U.sum() % FRAMES
        x = respace(self.normalise(mel_FM, frames_U), frames_U, slots_U).to(self.into.weight.dtype)[None, None]
        factor = 1
        for i, layer in enumerate(self.conv):
            lean = i == 0 and x.device.type == "cpu" and layer.out_channels <= LEAN_CHANNELS
            x, factor = first_convolution(x, layer) if lean else layer(x), factor * 2
            x = F.relu(x) * self.valid(frames_U, slots_U, factor).to(x.dtype)[:, None]
        inside_G1 = self.valid(frames_U, slots_U, half)[:, None]
        x_GH = self.into(x[0].permute(1, 0, 2).flatten(1))
        dtype, x_GH = x_GH.dtype, x_GH.float()  # sums of many layers want more digits than products
        for layer in self.layers:
            x_GH = layer(x_GH, inside_G1, dtype)
        x_GH = _normed(x_GH, self.norm) * inside_G1
        pairs_PH = x_GH.view(-1, 2 * x_GH.shape[1])[frame_index(patches_U, slots_U // self.stride)]
        return steady.apply(self.out, pairs_PH.to(self.out.weight.dtype)), patches_U
