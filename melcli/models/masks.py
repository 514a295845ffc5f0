"""Who may look at whom.

Shapes: B rows, L positions, Q positions that look, K positions that may be looked at.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PretrainedConfig


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


def for_layers(allowed_B1QK: Tensor, back_BQK: Tensor, config: PretrainedConfig) -> Tensor | dict[str, Tensor]:
    """A boolean mask as the layers of a backbone take it: those with a sliding window look no further back than that.

    transformers gives a window to the masks that it makes itself, and not to one that it is given. back: by how much a position is older than
    the one that looks, in their document. A dictionary by the kind of layer where config.layer_types has several.
    """
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not window or allowed_B1QK.shape[-1] <= window or (kinds and "sliding_attention" not in kinds):
        return allowed_B1QK
    near_B1QK = allowed_B1QK & (back_BQK < window)[:, None]
    return {"full_attention": allowed_B1QK, "sliding_attention": near_B1QK} if kinds else near_B1QK


def added(mask: Tensor | dict[str, Tensor], dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """What `for_layers` gives, as transformers' eager attention wants it: something to add to attention scores."""
    return {kind: additive(one, dtype) for kind, one in mask.items()} if isinstance(mask, dict) else additive(mask, dtype)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """A boolean mask as numbers: zero where the query may look, else the lowest there is."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)
