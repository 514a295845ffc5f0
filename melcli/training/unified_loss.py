"""Losses of a unified encoder: pairs that belong together, the distance within a pair, and spelling.

Shapes: B pairs, V vectors of an utterance, W width of a vector, R CTC frames a vector, C classes of CTC.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melcli.models.unified_encoder import similarity

SHARPEST = 100.0  # inverse temperature that is never passed, as in CLIP (arXiv 2103.00020)


class Contrast(nn.Module):
    """The symmetric contrastive loss of CLIP (arXiv 2103.00020) over the mean cosine of a pair's vectors, with a learnt temperature.

    Pairs with the same text are all right answers for each other, and none is a counter-example.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(1.0 / temperature).log())

    def forward(self, speech_BVW: Tensor, text_BVW: Tensor, same_BB: Tensor) -> Tensor:
        """same_BB: True where two pairs have the same text, so on the diagonal."""
        logits_BB = similarity(speech_BVW.float(), text_BVW.float()) * self.sharpness.exp().clamp_max(SHARPEST)
        right_BB = logits_BB.masked_fill(~same_BB, -torch.inf)
        ways = [logits_BB.logsumexp(way) - right_BB.logsumexp(way) for way in (0, 1)]
        return (ways[0].mean() + ways[1].mean()) / 2


def distance(speech_BVW: Tensor, text_BVW: Tensor) -> Tensor:
    """The mean of 1 - cosine of the vectors of a pair."""
    return (1 - F.cosine_similarity(speech_BVW.float(), text_BVW.float(), dim=-1)).mean()


class Spelling(nn.Module):
    """CTC over the characters of the text from the vectors of either branch through the same linear head, `rate` frames a vector.

    What tells a pair from the others of a batch may be little; this keeps the whole text in the vectors, and in the same directions of both branches.
    Texts that are longer than the frames allow are left out.
    """

    def __init__(self, width: int, classes: int, rate: int) -> None:
        super().__init__()
        self.rate, self.classes = rate, classes
        self.head = nn.Linear(width, rate * classes)

    def forward(self, z_BVW: Tensor, targets: list[list[int]]) -> Tensor:
        """targets: characters from 1; 0 is the blank. The mean over characters."""
        even_BVW = F.normalize(z_BVW.float(), dim=-1) * math.sqrt(z_BVW.shape[-1])  # numbers near one, as a linear layer wants them
        log_BRC = self.head(even_BVW).reshape(len(z_BVW), -1, self.classes).log_softmax(-1)
        lengths_B = torch.tensor([len(one) for one in targets])
        frames_B = torch.full_like(lengths_B, log_BRC.shape[1])
        packed = torch.tensor([one for own in targets for one in own], device=z_BVW.device)
        losses_B = F.ctc_loss(log_BRC.transpose(0, 1), packed, frames_B, lengths_B, reduction="none", zero_infinity=True)
        return losses_B.sum() / lengths_B.sum().clamp_min(1).to(z_BVW.device)


def recalls(speech_UVW: Tensor, text_UVW: Tensor, texts: list[str], ranks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """How often, in percent, the right text is among the k nearest of a speech (`speech to text @k`), and a speech of it among those of a text.

    Any utterance with the same text is right; each different text, and each utterance, is one candidate.
    """
    kinds = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    of_U = torch.tensor([kinds[text] for text in texts], device=speech_UVW.device)
    first_K = torch.tensor([texts.index(text) for text in kinds], device=speech_UVW.device)
    near_UK = similarity(speech_UVW, text_UVW[first_K])
    found: dict[str, float] = {}
    for rank in ranks:
        top_Uk = near_UK.topk(min(rank, near_UK.shape[1]), dim=1).indices
        found[f"speech to text @{rank}"] = round(100 * float((top_Uk == of_U[:, None]).any(1).float().mean()), 2)
    for rank in ranks:
        top_Kk = near_UK.T.topk(min(rank, near_UK.shape[0]), dim=1).indices
        right_Kk = of_U[top_Kk] == torch.arange(len(kinds), device=of_U.device)[:, None]
        found[f"text to speech @{rank}"] = round(100 * float(right_Kk.any(1).float().mean()), 2)
    return found
