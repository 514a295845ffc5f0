"""Who may look at whom.

Shapes: B rows, L positions, K positions that may be looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor


def speech_runs(is_speech_BL: Tensor) -> Tensor:
    """A number for each unbroken stretch of speech in a row, 0 elsewhere."""
    starts = is_speech_BL.clone()
    starts[:, 1:] &= ~is_speech_BL[:, :-1]
    return torch.cumsum(starts, 1) * is_speech_BL


def packed_mask(documents_BL: Tensor, is_speech_BL: Tensor, bidirectional: bool) -> Tensor:
    """Boolean mask [B, 1, L, L] of rows that hold several documents: True where the query may look.

    Causal inside each document; with `bidirectional`, the positions of one stretch of speech see each other both ways. Document 0 is
    padding, whose positions see each other only, so that no row of the softmax is empty.
    """
    length = documents_BL.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=documents_BL.device).tril()[None]
    if bidirectional:
        runs_BL = speech_runs(is_speech_BL)
        allowed = allowed | ((runs_BL[:, :, None] == runs_BL[:, None, :]) & is_speech_BL[:, :, None])
    return (allowed & (documents_BL[:, :, None] == documents_BL[:, None, :]))[:, None]


def padded_mask(valid_BL: Tensor, is_speech_BL: Tensor, bidirectional: bool) -> Tensor:
    """The same for one document a row, padded on either side: valid_BL is 1 where a position is real."""
    return packed_mask(valid_BL.long(), is_speech_BL & valid_BL.bool(), bidirectional)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as something to add to attention scores, which transformers' eager attention does with whatever it is given."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)
