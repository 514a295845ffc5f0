"""The adversarial stage of a vocoder's training: discriminators of periods and of resolutions, with hinge losses and feature matching.

Shapes: B crops, S samples.

HiFi-GAN's multi-period discriminator (Kong, Kim, Bae 2020, arXiv 2010.05646) and UnivNet's multi-resolution one (Jang et al. 2021, arXiv
2106.07889), losses as in Vocos (arXiv 2306.00814).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from melcli.training.vocoder_loss import magnitudes

PERIODS = (2, 3, 5, 7, 11)
RESOLUTIONS = (2048, 1024, 512)
SLOPE = 0.1

Judgement = tuple[Tensor, list[Tensor]]


class PeriodDiscriminator(nn.Module):
    """Judges the samples laid out in rows of one period."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = (1, channels, 4 * channels, 8 * channels, 8 * channels)
        self.layers = nn.ModuleList(weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), (2, 0))) for a, b in pairwise(widths))
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wave_BS: Tensor) -> Judgement:
        missing = -wave_BS.shape[1] % self.period
        x = nn.functional.pad(wave_BS[:, None], (0, missing), mode="reflect")[:, 0].unflatten(1, (-1, self.period))[:, None]
        return _through(x, self.layers, self.out)


class ResolutionDiscriminator(nn.Module):
    """Judges the magnitudes of one STFT."""

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        shapes = (((3, 9), (1, 1)), ((3, 9), (1, 2)), ((3, 9), (1, 2)), ((3, 3), (1, 1)))
        widths = (1, channels, channels, channels, channels)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, kernel, stride, (kernel[0] // 2, kernel[1] // 2)))
            for (a, b), (kernel, stride) in zip(pairwise(widths), shapes, strict=True)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, wave_BS: Tensor) -> Judgement:
        return _through(magnitudes(wave_BS, self.n_fft)[:, None].pow(0.3), self.layers, self.out)  # loud and soft bins in one range


def _through(x: Tensor, layers: nn.ModuleList, out: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        x = nn.functional.leaky_relu(layer(x), SLOPE)
        features.append(x)
    return out(x), features


class Discriminators(nn.Module):
    """All of them, of one width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.each = nn.ModuleList([PeriodDiscriminator(p, channels) for p in PERIODS] + [ResolutionDiscriminator(n, channels) for n in RESOLUTIONS])

    def forward(self, wave_BS: Tensor) -> list[Judgement]:
        return [one(wave_BS) for one in self.each]

    def own_loss(self, real_BS: Tensor, made_BS: Tensor) -> Tensor:
        """What they learn from: hinge loss, real above 1, made below -1."""
        both = self(torch.cat([real_BS, made_BS.detach()]))
        losses = [(1 - score[: len(real_BS)]).relu().mean() + (1 + score[len(real_BS) :]).relu().mean() for score, _ in both]
        return torch.stack(losses).mean()

    def generator_loss(self, real_BS: Tensor, made_BS: Tensor) -> tuple[Tensor, Tensor]:
        """(adversarial loss, feature matching) of what was made. Its gradient goes to that alone where parameters are frozen."""
        with torch.no_grad():
            real = self(real_BS)
        made = self(made_BS)
        fooled = torch.stack([(1 - score).relu().mean() for score, _ in made]).mean()
        matched = [(a - b).abs().mean() for (_, seen), (_, wanted) in zip(made, real, strict=True) for a, b in zip(seen, wanted, strict=True)]
        return fooled, torch.stack(matched).mean()
