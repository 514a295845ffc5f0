"""Discrete speech: codes of a frozen codebook and the end in one softmax, after MELD (arXiv 2605.29859, known to us by its abstract and notes on it).

Shapes: see speech_output.py; R frames a patch, K codes, X = R x M.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melcli.errors import ConfigError
from melcli.models.mel_output import MelOutput
from melcli.models.noise import Noise
from melcli.models.speech_output import Said, check_numbers
from melcli.models.spoken_layout import Layout

ITERATIONS = 12  # of k-means
SAMPLE = 32_768  # patches that it looks at
SEED = 1


class CodebookOutput(MelOutput):
    """p(code or end) from the state; the patch is the code's row + MLP(row, state), then the post-net.

    codes: rows of the codebook, k-means of the training data's patches, which stays as it is. softness: standard deviation, in mean distances of
    patches from their codes, of the posterior over codes that training draws from and p is fitted to; 0 for the nearest code alone.
    Losses: `mel` as in `vae`; `kl`, divergence of p from the posterior, or -log p(end), a mean over states, at `code_weight`; `slow`, squared
    distance of the expected rows of neighbouring patches (our reading of the slowness loss), at `slow_weight` 0.2.
    """

    parts = ("mel", "kl", "slow")

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
        codes: int = 1024,
        softness: float = 0.5,
        code_weight: float = 1.0,
        slow_weight: float = 0.2,
    ) -> None:
        super().__init__(
            width, n_mels, frames=frames, norm=norm, floor=floor, prenet=prenet, dropout=dropout, postnet=postnet, postnet_layers=postnet_layers
        )
        check_numbers(1, whole=True, hidden=hidden)
        check_numbers(2, whole=True, codes=codes)
        check_numbers(0, softness=softness, code_weight=code_weight, slow_weight=slow_weight)
        size = frames * n_mels
        self.register_buffer("codebook", torch.zeros(codes, size))
        self.register_buffer("spread", torch.ones(()))  # mean squared distance of patches from their codes
        self.codes = nn.Linear(width, codes + 1)  # the last is the end
        self.residual = nn.Sequential(nn.Linear(size + width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, size))
        self.softness, self.code_weight, self.slow_weight = softness, code_weight, slow_weight

    def measure(self, mels: Sequence[Tensor]) -> None:
        super().measure(mels)
        frames_U = torch.tensor([len(mel_TM) for mel_TM in mels])
        patches_PX = Layout.of(frames_U, self.stride).patches(self.normal(torch.cat([mel_TM.float() for mel_TM in mels]))).flatten(1)
        if len(patches_PX) < len(self.codebook):
            raise ConfigError(f"model.speech_output.codes: {len(self.codebook)}, and the data sampled for them holds {len(patches_PX)} patches")
        codebook, spread = k_means(patches_PX, len(self.codebook))
        self.codebook.copy_(codebook)
        self.spread.fill_(spread)

    def weights(self, step: int | None) -> dict[str, float]:
        return {"mel": 1.0, "kl": self.code_weight, "slow": self.slow_weight}

    def decode(self, code_N: Tensor, h_ND: Tensor) -> Tensor:
        """The patch of each code after each state, [N, X]."""
        row_NX = self.codebook.float()[code_N]
        inner = torch.cat([row_NX.to(h_ND.dtype), h_ND], -1)
        return row_NX + self.residual(inner.to(self.codes.weight.dtype)).float()

    def posterior(self, y_PX: Tensor) -> Tensor:
        """Probability of each code given a patch, [P, K]."""
        distance_PK = torch.cdist(y_PX.float(), self.codebook.float()).square()
        if not self.softness:
            return F.one_hot(distance_PK.argmin(-1), len(self.codebook)).float()
        return torch.softmax(-distance_PK / (2 * self.softness**2 * self.spread.float().clamp_min(1e-6)), -1)

    def losses(self, h_SD: Tensor, mel_FM: Tensor, frames_U: Tensor, counts: Mapping[str, Tensor | int], noise: Noise) -> dict[str, Tensor]:
        layout = Layout.of(frames_U, self.stride)
        y_FM = self.normal(mel_FM)
        y_PRM = layout.patches(y_FM)
        q_PK = self.posterior(y_PRM.flatten(1))
        log_p_SC = self.codes(h_SD.to(self.codes.weight.dtype)).float().log_softmax(-1)
        log_p_PC = log_p_SC[layout.predicts_P]
        said_PRM = self.decode(drawn(q_PK, noise), h_SD[layout.predicts_P]).view_as(y_PRM)
        divergence = (torch.special.xlogy(q_PK, q_PK) - q_PK * log_p_PC[:, :-1]).sum() - log_p_SC[layout.ends_S, -1].sum()
        expected_PX = log_p_PC[:, :-1].softmax(-1) @ self.codebook.float()
        inner_P = ~layout.first_PR[1:, 0]
        slow = ((expected_PX[1:] - expected_PX[:-1]).square().mean(-1) * inner_P).sum()
        return {
            "mel": self.regression(said_PRM, y_FM, frames_U, layout, counts["frames"]),
            "kl": divergence / counts["states"],
            "slow": slow / counts["states"],
        }

    def say(self, h_ND: Tensor, noise: Noise, temperature: float = 1.0) -> Said:
        logits_NC = self.codes(h_ND.to(self.codes.weight.dtype)).float()
        stop_N = logits_NC.softmax(-1)[:, -1]
        if temperature:
            code_N = drawn((logits_NC[:, :-1] / temperature).softmax(-1), noise)
            end_N = noise.uniform(stop_N[:, None])[:, 0] < stop_N
        else:
            code_N, end_N = logits_NC[:, :-1].argmax(-1), logits_NC.argmax(-1) == logits_NC.shape[-1] - 1
        return Said(self.decode(code_N, h_ND), stop_N, end_N)


def drawn(p_NK: Tensor, noise: Noise) -> Tensor:
    """A code from each row of probabilities."""
    level_N1 = noise.uniform(p_NK[:, :1])
    return (p_NK.cumsum(-1) <= level_N1 * p_NK.sum(-1, keepdim=True)).sum(-1).clamp_max(p_NK.shape[-1] - 1)


def k_means(x_PX: Tensor, count: int) -> tuple[Tensor, float]:
    """Centres [count, X] of patches, and their mean squared distance from them (Lloyd, 1982), from a start that is the same every time."""
    generator = torch.Generator().manual_seed(SEED)
    x_PX = x_PX[torch.randperm(len(x_PX), generator=generator)[: max(SAMPLE, count)]]
    centre_KX = x_PX[:count].clone()
    for _ in range(ITERATIONS):
        nearest_P = torch.cdist(x_PX, centre_KX).argmin(-1)
        sizes_K1 = torch.bincount(nearest_P, minlength=count)[:, None]
        sums_KX = torch.zeros_like(centre_KX).index_add_(0, nearest_P, x_PX)
        centre_KX = torch.where(sizes_K1 > 0, sums_KX / sizes_K1.clamp_min(1), centre_KX)
    return centre_KX, float(torch.cdist(x_PX, centre_KX).amin(-1).square().mean())
