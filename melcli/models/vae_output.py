"""The next-token variational autoencoder of MELLE (arXiv 2407.08551) and Mel-LLM (arXiv 2606.10231).

Shapes: see speech_output.py; R frames a patch, Z = R x M numbers of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from melcli.models.mel_output import MelOutput
from melcli.models.noise import Noise
from melcli.models.speech_output import Said, check_numbers, masked_mean, stop_loss
from melcli.models.spoken_layout import Layout


class VaeOutput(MelOutput):
    """[mu, log variance] from the state, z drawn, y' = z + MLP(z), y'' = y' + post-net(y').

    Losses, all of them means over frames and bins (the paper's sums, divided by as many numbers, so that their weights are the paper's and do not
    depend on length), the last over states:
      mel   |y - y'| + (y - y')^2 + |y - y''| + (y - y'')^2
      kl    1/2 [sigma^2 + (mu - y)^2 - 1 - log sigma^2], the divergence from N(y, 1): `kl_weight` 0.1, and 0 in the first `kl_after` steps.
            Mel-LLM's 0.05 is reported without saying whether it has the 1/2.
      flux  -|mu - y of the frame before|, but no more than `flux_limit` times what the frame itself differs by: `flux_weight` 0.5. The paper's has no
            limit (`flux_limit: null`): before the divergence holds it, mu flees from the frame before for as long as the MLP makes up for it.
      stop  binary cross entropy, the end counting `stop_positive` times: `stop_weight` 1. MELLE marks the last frame; here the state after the last
            patch says that nothing follows, as a text's end token does.
    The autoregression reads y', as in MELLE; y'' is what is heard.
    """

    parts = ("mel", "kl", "flux", "stop")

    def __init__(
        self,
        width: int,
        n_mels: int,
        *,
        frames: int = 1,
        norm: str = "global",
        floor: float | None = None,
        prenet: int = 256,
        dropout: float = 0.5,
        hidden: int = 256,
        postnet: int = 256,
        postnet_layers: int = 5,
        kl_weight: float = 0.1,
        kl_after: int = 10_000,
        flux_weight: float = 0.5,
        flux_limit: float | None = 1.0,
        stop_weight: float = 1.0,
        stop_positive: float = 100.0,
    ) -> None:
        super().__init__(
            width,
            n_mels,
            frames=frames,
            norm=norm,
            floor=floor,
            prenet=prenet,
            dropout=dropout,
            postnet=postnet,
            postnet_layers=postnet_layers,
        )
        check_numbers(1, whole=True, hidden=hidden)
        check_numbers(0, whole=True, kl_after=kl_after)
        check_numbers(0, kl_weight=kl_weight, flux_weight=flux_weight, stop_weight=stop_weight, stop_positive=stop_positive)
        if flux_limit is not None:
            check_numbers(0, flux_limit=flux_limit)
        size = frames * n_mels
        self.latent = nn.Linear(width, 2 * size)
        with torch.no_grad():
            self.latent.weight[size:].zero_()
            self.latent.bias[size:].fill_(FIRST_LOG_VARIANCE)
        self.residual = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.stop = nn.Linear(width, 1)
        self.kl_weight, self.kl_after, self.flux_weight, self.flux_limit = kl_weight, kl_after, flux_weight, flux_limit
        self.stop_weight, self.stop_positive = stop_weight, stop_positive

    def weights(self, step: int | None) -> dict[str, float]:
        kl = 0.0 if step is not None and step < self.kl_after else self.kl_weight
        return {"mel": 1.0, "kl": kl, "flux": self.flux_weight, "stop": self.stop_weight}

    def distribution(self, h_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance [N, Z] of the latent, in float32."""
        mu_NZ, log_variance_NZ = self.latent(h_ND.to(self.latent.weight.dtype)).float().chunk(2, -1)
        return mu_NZ, log_variance_NZ.clamp_max(MOST_LOG_VARIANCE)

    def decode(self, z_NZ: Tensor) -> Tensor:
        """y' of latents, [N, Z]."""
        return z_NZ + self.residual(z_NZ.to(self.latent.weight.dtype)).float()

    def losses(self, h_SD: Tensor, mel_FM: Tensor, frames_U: Tensor, counts: Mapping[str, Tensor | int], noise: Noise) -> dict[str, Tensor]:
        layout = Layout.of(frames_U, self.stride)
        y_FM = self.normal(mel_FM)
        y_PRM = layout.patches(y_FM)
        mu_PZ, log_variance_PZ = self.distribution(h_SD[layout.predicts_P])
        said_PRM = self.decode(mu_PZ + (0.5 * log_variance_PZ).exp() * noise.normal(mu_PZ)).view_as(y_PRM)
        mu_PRM, log_variance_PRM = mu_PZ.view_as(y_PRM), log_variance_PZ.view_as(y_PRM)
        frames = counts["frames"]
        return {
            "mel": self.regression(said_PRM, y_FM, frames_U, layout, frames),
            "kl": masked_mean(divergence(mu_PRM, log_variance_PRM, y_PRM), layout.valid_PR, frames),
            "flux": -masked_mean(self._flux(mu_PRM, y_PRM, layout.before(y_FM)), layout.valid_PR & ~layout.first_PR, frames),
            "stop": stop_loss(self.stop(h_SD)[:, 0], layout.ends_S, self.stop_positive, counts["states"]),
        }

    def _flux(self, mu_PRM: Tensor, y_PRM: Tensor, before_PRM: Tensor) -> Tensor:
        """How far means are from the frame before, as far as that counts."""
        flux_PRM = (mu_PRM - before_PRM).abs()
        return flux_PRM if self.flux_limit is None else flux_PRM.minimum(self.flux_limit * (y_PRM - before_PRM).abs())

    def say(self, h_ND: Tensor, noise: Noise, temperature: float = 1.0) -> Said:
        mu_NZ, log_variance_NZ = self.distribution(h_ND)
        std_NZ = (0.5 * log_variance_NZ).exp()
        z_NZ = mu_NZ + temperature * std_NZ * noise.normal(mu_NZ) if temperature else mu_NZ
        stop_N = self.stop(h_ND)[:, 0].float().sigmoid()
        return Said(self.decode(z_NZ), stop_N, stop_N > 0.5, std_NZ.mean(-1))


FIRST_LOG_VARIANCE = -3.0  # standard deviations begin at a fifth of a bin's own: from 1 on, the first thousand steps would mostly hear noise
MOST_LOG_VARIANCE = 6.0  # its exponential is 20 standard deviations of a bin: beyond that it could only overflow


def divergence(mu: Tensor, log_variance: Tensor, y: Tensor) -> Tensor:
    """KL divergence of N(mu, sigma^2) from N(y, 1), each number of it."""
    return 0.5 * (log_variance.exp() + (mu - y).square() - 1 - log_variance)
