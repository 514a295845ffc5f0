"""Another tokenizer for a model that has learnt with one: tokens that both have keep their rows.

Shapes: V tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from melcli.models.config import SpeechLMConfig


def renew(config: SpeechLMConfig, tables: Sequence[str], tensors: dict[str, Tensor], old: Any, new: Any) -> str:
    """Give a model's configuration and tensors the rows of another tokenizer; what was kept, in words.

    tables: names of the tensors [V, D] that have a row a token. A token has the row of the one that is written the same; else, as `A` beside `a`,
    of the one in small letters; else a random one of the table's own spread. The special tokens of the configuration must be in both.
    """
    there = {old.decode([i]): i for i in old.get_vocab().values()}
    written = {i: new.decode([i]) for i in new.get_vocab().values()}
    same = {i: there[text] for i, text in written.items() if text in there}
    small = {i: there[text.lower()] for i, text in written.items() if i not in same and text.lower() in there}
    from_VN = torch.tensor([*(same | small).items()])
    for name in tables:
        rows_VD = tensors[name].float()
        table_VD = torch.randn(max(written) + 1, rows_VD.shape[1]) * rows_VD.std()
        table_VD[from_VN[:, 0]] = rows_VD[from_VN[:, 1]]
        tensors[name] = table_VD
    for field in ("speech_token_id", "spoken_token_id", "pad_token_id"):
        if (i := getattr(config, field)) is not None:
            setattr(config, field, new.convert_tokens_to_ids(old.convert_ids_to_tokens(i)))
    for field in ("stop_token_ids", "end_token_ids"):
        setattr(config, field, new.convert_tokens_to_ids(old.convert_ids_to_tokens(getattr(config, field))))
    config.text_config.vocab_size = max(written) + 1
    kept = f"{len(same)} of {len(written)} tokens as they were"
    return f"{kept}, {len(small)} as in small letters, {len(written) - len(same) - len(small)} random"
