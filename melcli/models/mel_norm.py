"""Normalisation of mel features before the speech input.

Shapes: F frames of all utterances laid end to end, M mel bins, U utterances.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from melcli.errors import ConfigError, nearest

LEAST_STD = 0.3  # of a log-mel bin: one that hardly moves in the training data must not be blown up where it does


class NoNorm(nn.Module):
    """Leaves features as they are."""

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> Tensor:
        return mel_FM


class UtteranceNorm(nn.Module):
    """Zero mean and unit variance of each bin over each utterance, in float32.

    Short utterances hold too few frames for statistics of their own, so means are drawn towards the utterance's overall level and
    variances towards one, with the weight of `prior` frames.
    """

    def __init__(self, prior: float = 20.0) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> Tensor:
        x = mel_FM.float()
        utterance_F = torch.repeat_interleave(torch.arange(len(frames_U), device=x.device), frames_U, output_size=len(x))
        count_U1 = frames_U[:, None].float()
        total_UM = x.new_zeros(len(frames_U), x.shape[1]).index_add_(0, utterance_F, x)
        level_U1 = (total_UM / count_U1).mean(1, keepdim=True)
        mean_UM = (total_UM + self.prior * level_U1) / (count_U1 + self.prior)
        x = x - mean_UM[utterance_F]
        square_UM = x.new_zeros(len(frames_U), x.shape[1]).index_add_(0, utterance_F, x.square())
        scale_UM = torch.rsqrt((square_UM + self.prior) / (count_U1 + self.prior))
        return x * scale_UM[utterance_F]


class GlobalNorm(nn.Module):
    """Fixed statistics of the training data, kept as buffers: (x - global_mean) * global_invstd, as in Phi-4-multimodal."""

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.register_buffer("global_mean", torch.zeros(n_mels))
        self.register_buffer("global_invstd", torch.ones(n_mels))

    def set(self, mean_M: Tensor, std_M: Tensor) -> None:
        """Take statistics measured on the training data."""
        self.global_mean.copy_(mean_M)
        self.global_invstd.copy_(1.0 / std_M.clamp_min(LEAST_STD))

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> Tensor:
        return (mel_FM.float() - self.global_mean) * self.global_invstd


def build_normaliser(name: str, n_mels: int) -> nn.Module:
    """`none`, `utterance` or `global`."""
    kinds = {"none": NoNorm, "utterance": UtteranceNorm, "global": lambda: GlobalNorm(n_mels)}
    if name not in kinds:
        raise ConfigError(f"model.speech_input.norm: '{name}' is unknown; valid: {', '.join(kinds)}.{nearest(name, kinds)}")
    return kinds[name]()
