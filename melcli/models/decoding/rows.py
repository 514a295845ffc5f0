"""A batch under decoding: its key-value cache, which cached positions are real, and where each row stands.

Shapes: B rows, L positions of the prompt, K positions held, N of them after those settled, Q new positions, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from melcli.data.tasks import Encoder, Example
from melcli.models.cache import roomy_cache
from melcli.models.masks import added, for_layers
from melcli.models.speech_lm import SpeechLM


@dataclass(frozen=True, slots=True)
class Spread:
    """Positions that are not places in the sequence, as training spreads them (data/tasks.py).

    prompts: of each place of each prompt, what is written already included; own: places before that; first: the position of the first token that is
    written, which `pace` positions a token follow.
    """

    prompts: Sequence[Sequence[int]]
    own: Sequence[int]
    first: int
    pace: float


def spread_of(encoder: Encoder, asks: Sequence[Example], written: Sequence[int]) -> Spread | None:
    """The positions of prompts (see `Encoder.asked`) of which so many tokens are written already; None where they are places."""
    if not (encoder.replies and encoder.pace):
        return None
    own = [len(ask.input_ids) - count for ask, count in zip(asks, written, strict=True)]
    return Spread([ask.positions or () for ask in asks], own, encoder.around, encoder.pace)


class Rows:
    """Left-padded prompts that were read once and are continued by blocks of tokens.

    A block may hold guesses: `advance` reads it, `settle` says how much of it stays. What does not stay is never looked at again.
    spread: where positions are not places in the sequence.
    logits_BV: what comes after the prompts. ctc_logits, patches_U: of the prompts' speech, None without a CTC head.
    """

    def __init__(
        self,
        model: SpeechLM,
        input_ids_BL: Tensor,
        valid_BL: Tensor,
        speech: Tensor | None,
        lengths_U: Tensor | None,
        room: int,
        spread: Spread | None = None,
    ) -> None:
        self.model = model
        self.backbone = model.llm.get_decoder()
        self.cache = roomy_cache(model.config.text_config.num_hidden_layers, room)
        self.spread = spread
        self.own_B = None if spread is None else torch.tensor(list(spread.own), device=input_ids_BL.device)
        position_BL = (valid_BL.cumsum(1) - 1).clamp_min(0)  # prompts without speech are padded too
        for row, known in enumerate(spread.prompts if spread is not None else ()):
            position_BL[row, position_BL.shape[1] - len(known) :] = torch.tensor(list(known), device=position_BL.device)
        out = model(
            input_ids=input_ids_BL,
            attention_mask=valid_BL,
            position_ids=position_BL,
            speech=speech,
            speech_lengths=lengths_U,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits_BV = self._allowed(out.logits)[:, -1]
        self.ctc_logits = out.ctc_logits
        self.patches_U = None if lengths_U is None else model.speech_input.subsampling.positions(lengths_U)
        self.next_B = valid_BL.sum(1)
        self.valid_BK = valid_BL.bool()
        self.fresh = 0

    def advance(self, block_BQ: Tensor) -> Tensor:
        """Read a block of tokens a row; logits [B, Q, V] of what comes after each. Guesses follow what is certain."""
        self.fresh = block_BQ.shape[1]
        among_QQ = torch.ones(self.fresh, self.fresh, dtype=torch.bool, device=block_BQ.device).tril()
        at_BQ = self.next_B[:, None] + torch.arange(self.fresh, device=block_BQ.device)
        return self.read(block_BQ, among_QQ.expand(len(block_BQ), -1, -1), at_BQ, at_BQ)

    def read(self, block_BQ: Tensor, among_BQN: Tensor, at_BQ: Tensor, at_BN: Tensor) -> Tensor:
        """Logits [B, Q, V] after tokens that see what is real of the settled places, and of N later ones that the cache holds or is to hold, these
        last, those that among_BQN says. at_BQ, at_BN: which token of its text each is, the prompt counted."""
        mask = torch.cat([self.valid_BK[:, None, :].expand(-1, block_BQ.shape[1], -1), among_BQN], -1)[:, None]
        at_BK = torch.cat([self.valid_BK.long().cumsum(1) - 1, at_BN], 1)
        mask = for_layers(mask, at_BQ[:, :, None] - at_BK[:, None], self.model.config.text_config)
        if self.model.llm.config._attn_implementation == "eager":
            mask = added(mask, self.model.dtype)
        out = self.backbone(
            inputs_embeds=self.model.get_input_embeddings()(block_BQ),
            attention_mask=mask,
            position_ids=self._positions(at_BQ),
            past_key_values=self.cache,
            use_cache=True,
        )
        return self._allowed(self.model.logits(out.last_hidden_state))

    def _positions(self, place_BL: Tensor) -> Tensor:
        """Positions of places behind the prompts."""
        if self.spread is None:
            return place_BL
        return self.spread.first + ((place_BL - self.own_B[:, None]).double() * self.spread.pace).round().long()

    def settle(self, kept_B: Tensor) -> None:
        """Keep the first `kept_B` tokens of each row's last block."""
        stays = torch.arange(self.fresh, device=kept_B.device) < kept_B[:, None]
        self.valid_BK = torch.cat([self.valid_BK, stays], 1)
        self.next_B = self.next_B + kept_B

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, in this order."""
        for layer in self.cache.layers:
            layer.select(rows)
        self.valid_BK, self.next_B = self.valid_BK[rows], self.next_B[rows]
        self.own_B = None if self.own_B is None else self.own_B[rows]

    def keep(self, places_BN: Tensor) -> None:
        """Go on with these of the places after those settled, each row with its own."""
        settled = self.valid_BK.shape[1]
        prompt_BK = torch.arange(settled, device=places_BN.device).expand(len(places_BN), -1)
        for layer in self.cache.layers:
            layer.keep(torch.cat([prompt_BK, settled + places_BN], 1))

    def _allowed(self, logits: Tensor) -> Tensor:
        """Tokens that stand for speech are no text."""
        logits[..., self.model.place_holders] = -math.inf
        return logits
