"""Training losses of text: next-token cross entropy and auxiliary CTC.

Shapes: N target tokens, P speech positions of all utterances, U utterances, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100


def next_token_loss(logits_NV: Tensor, targets_N: Tensor, count: Tensor | int, smoothing: float = 0.0) -> Tensor:
    """Cross entropy summed over targets and divided by `count` (the targets of the whole optimiser step), in float32."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="sum", label_smoothing=smoothing) / count


def ctc_loss(logits_PV: Tensor, patches_U: Tensor, targets_N: Tensor, lengths_U: Tensor, count: Tensor | int) -> Tensor:
    """CTC over the CTC frames (P, `patches_U` an utterance), summed and divided by `count`; the blank is the last class.

    Utterances too short for their text (fewer positions than tokens and repeats) add nothing, nor do those of unknown text (length -1).
    """
    known_U = lengths_U >= 0
    log_probs_PV = F.log_softmax(logits_PV.float(), -1)
    pieces = [piece for piece, known in zip(log_probs_PV.split(patches_U.tolist()), known_U.tolist(), strict=True) if known]
    if not pieces:
        return 0.0 * log_probs_PV.sum()
    padded_TUV = torch.nn.utils.rnn.pad_sequence(pieces)
    patches_U, lengths_U = patches_U[known_U], lengths_U[known_U]
    total = F.ctc_loss(padded_TUV, targets_N, patches_U, lengths_U, blank=logits_PV.shape[-1] - 1, reduction="sum", zero_infinity=True)
    return total / count
