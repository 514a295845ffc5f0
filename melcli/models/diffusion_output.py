"""Continuous latents and a small diffusion head, after LatentLM (arXiv 2412.08635) and VibeVoice (arXiv 2508.19205).

Shapes: see speech_output.py; R frames a patch, Z numbers of a latent, H hidden width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melcli.models.mel_output import MelOutput
from melcli.models.noise import Noise
from melcli.models.speech_output import Said, check_numbers, stop_loss
from melcli.models.spoken_layout import Layout

TIMES = (0.999, 0.001)  # of diffusion, from noise to latent; at the very ends one of both has no weight
UNCONDITIONAL = 0.1  # share of patches that the head learns without the state, for guidance


class DiffusionOutput(MelOutput):
    """A sigma-VAE of patches, z = mu + sigma x noise with a random scalar sigma ~ N(0, `sigma`), whose latents a head predicts from the state.

    Latents are normalised to unit variance each (in place of a loss on |mu|), so that sigma and the diffusion's noise have a scale. The head is an
    MLP of `layers` blocks modulated by state and time, trained to predict v (arXiv 2202.00512) on a cosine schedule and run with DPM-Solver++
    (arXiv 2211.01095, second order) in `steps` steps under classifier-free guidance of strength `guidance`. Encoder and decoder learn from
    reconstruction alone, as if they had been trained before.
    Losses: `mel` as in `vae`, of reconstructed patches; `diffusion`, squared error of v, at `diffusion_weight`; `stop` as in `vae`.
    """

    parts = ("mel", "diffusion", "stop")

    def __init__(
        self,
        width: int,
        n_mels: int,
        *,
        frames: int = 1,
        norm: str = "global",
        floor: float | None = None,
        prenet: int = 256,
        dropout: float = 0.0,
        hidden: int = 256,
        postnet: int = 256,
        postnet_layers: int = 5,
        latent: int = 64,
        sigma: float = 0.5,
        layers: int = 3,
        steps: int = 10,
        guidance: float = 1.3,
        diffusion_weight: float = 1.0,
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
            reads=latent,
        )
        check_numbers(1, whole=True, hidden=hidden, latent=latent, layers=layers, steps=steps)
        check_numbers(0, sigma=sigma, diffusion_weight=diffusion_weight, stop_weight=stop_weight, stop_positive=stop_positive)
        check_numbers(1, guidance=guidance)
        size = frames * n_mels
        self.encoder = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, latent))
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.head = DiffusionHead(width, latent, hidden, layers)
        self.stop = nn.Linear(width, 1)
        self.latent_size, self.sigma, self.solver_steps, self.guidance = latent, sigma, steps, guidance
        self.diffusion_weight, self.stop_weight, self.stop_positive = diffusion_weight, stop_weight, stop_positive

    def weights(self, step: int | None) -> dict[str, float]:
        return {"mel": 1.0, "diffusion": self.diffusion_weight, "stop": self.stop_weight}

    def encode(self, y_PX: Tensor, noise: Noise) -> Tensor:
        """Latents of patches, [P, Z], with the noise that makes neighbours of a latent decodable."""
        mu_PZ = self.encoder(y_PX.to(self.stop.weight.dtype)).float()
        mu_PZ = F.layer_norm(mu_PZ, mu_PZ.shape[-1:])
        return mu_PZ + self.sigma * noise.normal(mu_PZ[:, :1]) * noise.normal(mu_PZ)

    def decode(self, z_PZ: Tensor) -> Tensor:
        """Patches of latents, [P, X]."""
        return self.decoder(z_PZ.to(self.stop.weight.dtype)).float()

    def embed(self, mel_FM: Tensor, frames_U: Tensor, noise: Noise) -> Tensor:
        y_PX = Layout.of(frames_U, self.stride).patches(self.normal(mel_FM)).flatten(1)
        return self.prenet(self.encode(y_PX, noise).detach(), noise)

    def losses(self, h_SD: Tensor, mel_FM: Tensor, frames_U: Tensor, counts: Mapping[str, Tensor | int], noise: Noise) -> dict[str, Tensor]:
        layout = Layout.of(frames_U, self.stride)
        y_FM = self.normal(mel_FM)
        y_PRM = layout.patches(y_FM)
        z_PZ = self.encode(y_PRM.flatten(1), noise)
        said_PRM = self.decode(z_PZ).view_as(y_PRM)
        z_PZ, h_PD = z_PZ.detach(), h_SD[layout.predicts_P]
        time_P1 = TIMES[1] + (TIMES[0] - TIMES[1]) * noise.uniform(z_PZ[:, :1])
        alpha, sigma = torch.cos(time_P1 * math.pi / 2), torch.sin(time_P1 * math.pi / 2)
        epsilon = noise.normal(z_PZ)
        told_P1 = noise.uniform(z_PZ[:, :1]) >= UNCONDITIONAL
        v_PZ = self.head(alpha * z_PZ + sigma * epsilon, time_P1, h_PD * told_P1)
        wrong = (v_PZ - (alpha * epsilon - sigma * z_PZ)).square().mean(-1).sum()
        return {
            "mel": self.regression(said_PRM, y_FM, frames_U, layout, counts["frames"]),
            "diffusion": wrong / counts["states"],
            "stop": stop_loss(self.stop(h_SD)[:, 0], layout.ends_S, self.stop_positive, counts["states"]),
        }

    def say(self, h_ND: Tensor, noise: Noise, temperature: float = 1.0) -> Said:
        start_NZ = temperature * noise.normal(h_ND.new_zeros(len(h_ND), self.latent_size, dtype=torch.float32))
        stop_N = self.stop(h_ND)[:, 0].float().sigmoid()
        return Said(self._solve(start_NZ, h_ND), stop_N, stop_N > 0.5)

    def _solve(self, x_NZ: Tensor, h_ND: Tensor) -> Tensor:
        """DPM-Solver++(2M) from noise to latents."""
        times = torch.linspace(*TIMES, self.solver_steps + 1, dtype=torch.float64)
        alphas, sigmas = torch.cos(times * math.pi / 2).tolist(), torch.sin(times * math.pi / 2).tolist()
        before, last = None, 0.0
        for i, time in enumerate(times.tolist()[:-1]):
            clean_NZ = alphas[i] * x_NZ - sigmas[i] * self._v(x_NZ, time, h_ND)
            step = math.log(alphas[i + 1] / sigmas[i + 1]) - math.log(alphas[i] / sigmas[i])
            slope = clean_NZ if before is None else clean_NZ + (clean_NZ - before) * (step / (2 * last))
            x_NZ = (sigmas[i + 1] / sigmas[i]) * x_NZ - alphas[i + 1] * math.expm1(-step) * slope
            before, last = clean_NZ, step
        return x_NZ

    def _v(self, x_NZ: Tensor, time: float, h_ND: Tensor) -> Tensor:
        time_N1 = x_NZ.new_full((len(x_NZ), 1), time)
        told = self.head(x_NZ, time_N1, h_ND)
        return told if self.guidance == 1 else torch.lerp(self.head(x_NZ, time_N1, torch.zeros_like(h_ND)), told, self.guidance)

    def frames(self, patches_PX: Tensor) -> Tensor:
        return super().frames(self.decode(patches_PX))


class DiffusionHead(nn.Module):
    """v from a noisy latent, its time and the state: blocks whose norms are shifted, scaled and gated by both (DiT, arXiv 2212.09748)."""

    def __init__(self, width: int, latent: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.half = 32
        self.inner = nn.Linear(latent, hidden)
        self.time = nn.Sequential(nn.Linear(2 * self.half, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.state = nn.Linear(width, hidden)
        self.modulate = nn.ModuleList([nn.Linear(hidden, 3 * hidden) for _ in range(layers)])
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden)) for _ in range(layers)])
        self.out = nn.Linear(hidden, latent)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_NZ: Tensor, time_N1: Tensor, h_ND: Tensor) -> Tensor:
        kind = self.out.weight.dtype
        waves = time_N1.float() * torch.exp(torch.arange(self.half, device=time_N1.device) * (math.log(1000.0) / self.half))
        told_NH = F.silu(self.time(torch.cat([waves.sin(), waves.cos()], -1).to(kind)) + self.state(h_ND.to(kind)))
        x_NH = self.inner(x_NZ.to(kind))
        for modulate, block in zip(self.modulate, self.blocks, strict=True):
            shift, scale, gate = modulate(told_NH).chunk(3, -1)
            x_NH = x_NH + gate * block(F.layer_norm(x_NH, x_NH.shape[-1:]) * (1 + scale) + shift)
        return self.out(F.layer_norm(x_NH, x_NH.shape[-1:])).float()
