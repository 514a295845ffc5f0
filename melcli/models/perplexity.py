"""How likely a language model finds texts: any causal language model of transformers, from safetensors.

Shapes: B texts, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from melcli.errors import CheckpointError
from melcli.models import causal_lm, checkpoint
from melcli.models.decoding.recognise import by_length
from melcli.models.hardware import pick_device

POSITIONS = 4096  # of a batch


class LanguageModel:
    """A language model that reads texts. begins: the token that is put before each, its own beginning or end of texts; None where it has neither."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        own = (tokenizer.bos_token_id, tokenizer.eos_token_id, model.config.bos_token_id)
        self.begins: int | None = next((one for one in own if isinstance(one, int)), None)
        self.longest: int = getattr(model.config, "max_position_embeddings", None) or 2048

    @classmethod
    def load(cls, name: str, *, device: str = "auto", offline: bool = False) -> tuple[LanguageModel, str]:
        """A checkpoint by folder or hub id (openai-community/gpt2-medium), and what was loaded, in words. Raises CheckpointError."""
        folder = checkpoint.resolve(name, offline=offline, flag="--lm")
        fields = checkpoint.read_config(folder)
        if fields.get("model_type") == "speech_lm":
            raise CheckpointError(f"--lm {name}: is a model of melcli, and texts are judged by another: give a causal language model of transformers")
        causal_lm.check(folder, fields)
        tokenizer = causal_lm.read_tokenizer(folder)
        model, _ = causal_lm.read_llm(folder, lambda name: False, lambda name: name.endswith(IGNORED))
        where, _ = pick_device(device)
        count = sum(parameter.numel() for parameter in model.parameters())
        return cls(model.eval().to(where), tokenizer), f"{name}: {type(model).__name__} of transformers, {count / 1e6:.1f} M parameters"

    @torch.inference_mode()
    def nats(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """(-log p, tokens) of each text, natural logarithm, read by itself from its beginning; (0, 0) of an empty one.

        Where there is no token to begin with, the first one of the text is read only.
        """
        ids = self.tokenizer([text.strip() for text in texts], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        begin = [] if self.begins is None else [self.begins]
        rows = [[*begin, *tokens][: self.longest] if tokens else [] for tokens in ids]
        found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
        for batch in by_length([len(row) for row in rows], POSITIONS):
            kept = [i for i in batch if len(rows[i]) > 1]
            if not kept:
                continue
            width = max(len(rows[i]) for i in kept)
            ids_BL = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in kept], device=self.model.device)
            valid_BL = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in kept], device=self.model.device)
            logits_BLV = self.model(input_ids=ids_BL, attention_mask=valid_BL).logits[:, :-1].float()
            losses_BL = torch.nn.functional.cross_entropy(logits_BLV.transpose(1, 2), ids_BL[:, 1:], reduction="none") * valid_BL[:, 1:]
            for i, loss in zip(kept, losses_BL.double().sum(1).tolist(), strict=True):
                found[i] = (loss, len(rows[i]) - 1)
        return found


IGNORED = ("attn.bias", "attn.masked_bias")  # masks that old GPT-2 files hold as tensors
