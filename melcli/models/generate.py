"""Decoding: greedy, sampled and beam search over utterances of different length at once, with a key-value cache.

The loop is ours because transformers' `generate` pays for generality at every step, keeps finished rows in the batch and copies its cache.
`SpeechLM.generate` works too and gives the same tokens.
Shapes: U utterances, B rows (U, or U x beams), L positions, V vocabulary, F frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melcli.models.cache import roomy_cache
from melcli.models.masks import additive
from melcli.models.speech_lm import SpeechLM

COMPACT_AT = 0.75  # finished rows leave the batch once fewer than this share is still at work
LOOP_TOKENS = 16  # a stretch that repeats itself at least 4 times over so many tokens is a loop
LOOP_TIMES = 4


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Tokens without the stop token, why they ended (`eos`, `length`, `repetition`), and their mean log probability."""

    tokens: list[int]
    finish_reason: str
    score: float


@dataclass(frozen=True, slots=True)
class Greedy:
    """The most probable token at each step."""

    def pick(self, logits_BV: Tensor) -> Tensor:
        return logits_BV.argmax(-1)


@dataclass(slots=True)
class Sample:
    """Draws from the distribution sharpened by `temperature`, restricted to its most probable part `top_p`."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    _generator: torch.Generator | None = field(default=None, repr=False)

    def pick(self, logits_BV: Tensor) -> Tensor:
        if self._generator is None or self._generator.device != logits_BV.device:
            self._generator = torch.Generator(logits_BV.device).manual_seed(self.seed)
        probs_BV = torch.softmax(logits_BV.float() / self.temperature, -1)
        if self.top_p < 1:
            ordered, order = probs_BV.sort(-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered >= self.top_p] = 0
            probs_BV = torch.zeros_like(probs_BV).scatter(-1, order, ordered)
        return torch.multinomial(probs_BV, 1, generator=self._generator)[:, 0]


@dataclass(frozen=True, slots=True)
class Beam:
    """Beam search; a hypothesis of n tokens is worth its log probability divided by n ** length_penalty."""

    width: int = 4
    length_penalty: float = 1.0


def loop_period(tokens: Sequence[int]) -> int | None:
    """The period of a repetition at the end of `tokens`, if it is long enough to be a loop."""
    for period in range(1, LOOP_TOKENS // LOOP_TIMES + 9):
        times = max(LOOP_TIMES, math.ceil(LOOP_TOKENS / period))
        span = period * times
        if len(tokens) >= span and list(tokens[-span + period :]) == list(tokens[-span:-period]):
            return period
    return None


def without_loop(tokens: list[int], period: int) -> list[int]:
    """`tokens` with the repetition at their end said once."""
    end = len(tokens)
    while end - 2 * period >= 0 and tokens[end - 2 * period : end - period] == tokens[end - period : end]:
        end -= period
    return tokens[:end]


class _Rows:
    """The state of a batch under decoding: the cache, which cached positions are real, and where each row stands."""

    def __init__(self, model: SpeechLM, input_ids_BL: Tensor, valid_BL: Tensor, speech: Tensor | None, lengths_U: Tensor | None, room: int) -> None:
        self.model = model
        self.backbone = model.llm.get_decoder()
        self.head = model.get_output_embeddings()
        self.cache = roomy_cache(model.config.text_config.num_hidden_layers, room)
        out = model(
            input_ids=input_ids_BL,
            attention_mask=valid_BL,
            speech=speech,
            speech_lengths=lengths_U,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits_BV = self._allowed(out.logits[:, -1])
        self.next_B = valid_BL.sum(1)
        self.valid_BL = torch.cat([valid_BL.bool(), valid_BL.new_ones(len(valid_BL), room, dtype=torch.bool)], 1)
        self.held = valid_BL.shape[1]

    def advance(self, tokens_B: Tensor) -> None:
        """Feed one token a row and compute what comes next."""
        self.held += 1
        mask = self.valid_BL[:, None, None, : self.held]
        if self.model.llm.config._attn_implementation == "eager":
            mask = additive(mask, self.model.dtype)
        out = self.backbone(
            inputs_embeds=self.model.get_input_embeddings()(tokens_B[:, None]),
            attention_mask=mask,
            position_ids=self.next_B[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.next_B = self.next_B + 1
        self.logits_BV = self._allowed(self.head(out.last_hidden_state[:, -1]))

    def _allowed(self, logits_BV: Tensor) -> Tensor:
        """The speech token stands for audio: no text may hold it."""
        logits_BV[:, self.model.config.speech_token_id] = -math.inf
        return logits_BV

    def select(self, rows: Tensor) -> None:
        self.cache.reorder_cache(rows)
        self.valid_BL, self.next_B, self.logits_BV = self.valid_BL[rows], self.next_B[rows], self.logits_BV[rows]


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    valid = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, valid


@torch.inference_mode()
def decode(
    model: SpeechLM,
    prompts: Sequence[Sequence[int]],
    speech: Tensor | None,
    lengths_U: Tensor | None,
    max_tokens: Sequence[int],
    strategy: Greedy | Sample | Beam | None = None,
) -> list[Hypothesis]:
    """Continue each prompt until its stop token, its own limit or a loop.

    prompts: token ids holding the speech token once per patch; speech [F, M] packed in the same order, lengths_U frames of each.
    """
    strategy = strategy or Greedy()
    if not prompts:
        return []
    ids, valid = _left_padded(prompts, model.config.pad_token_id, model.device)
    rows = _Rows(model, ids, valid, speech, lengths_U, max(max_tokens) + 1)
    if isinstance(strategy, Beam):
        return _beam(rows, model.config.stop_token_ids, max_tokens, strategy)
    return _one_path(rows, model.config.stop_token_ids, max_tokens, strategy)


def _one_path(rows: _Rows, stops: Sequence[int], max_tokens: Sequence[int], strategy: Greedy | Sample) -> list[Hypothesis]:
    count = len(max_tokens)
    tokens: list[list[int]] = [[] for _ in range(count)]
    reasons: list[str | None] = [None] * count
    scores = torch.zeros(count, device=rows.logits_BV.device)
    here = list(range(count))  # which utterance each row of the batch is
    here_B = torch.arange(count, device=rows.logits_BV.device)
    stop = set(stops)
    while True:
        picked_B = strategy.pick(rows.logits_BV)
        picked_logit_B = rows.logits_BV.gather(1, picked_B[:, None])[:, 0].float()
        scores[here_B] += torch.where(
            torch.tensor([reasons[u] is None for u in here], device=scores.device), picked_logit_B - rows.logits_BV.float().logsumexp(-1), 0.0
        )
        alive = []
        for row, token in enumerate(picked_B.tolist()):
            utterance = here[row]
            if reasons[utterance] is not None:
                continue
            reasons[utterance] = _extend(tokens[utterance], token, stop, max_tokens[utterance])
            if reasons[utterance] is None:
                alive.append(row)
        if not alive:
            break
        if len(alive) <= COMPACT_AT * len(here):
            keep = torch.tensor(alive, device=picked_B.device)
            rows.select(keep)
            picked_B, here_B, here = picked_B[keep], here_B[keep], [here[row] for row in alive]
        rows.advance(picked_B)
    values = scores.tolist()
    return [Hypothesis(t, r or "length", s / (len(t) + 1)) for t, r, s in zip(tokens, reasons, values, strict=True)]


def _extend(tokens: list[int], token: int, stop: set[int], limit: int) -> str | None:
    """Append a token; the reason to end here, if there is one."""
    if token in stop:
        return "eos"
    tokens.append(token)
    period = loop_period(tokens)
    if period:
        tokens[:] = without_loop(tokens, period)
        return "repetition"
    return "length" if len(tokens) >= limit else None


def _beam(rows: _Rows, stops: Sequence[int], max_tokens: Sequence[int], strategy: Beam) -> list[Hypothesis]:
    """Every utterance keeps `width` live hypotheses until `width` are finished and none alive can beat the best."""
    count, width = len(max_tokens), strategy.width
    device = rows.logits_BV.device
    live: list[list[tuple[list[int], float]]] = [[([], 0.0)] for _ in range(count)]
    done: list[list[Hypothesis]] = [[] for _ in range(count)]
    order = list(range(count))  # utterances still at work
    spans = [1] * count  # live hypotheses of each, in the rows' order
    worth = lambda score, length: score / (length**strategy.length_penalty)  # noqa: E731
    while order:
        log_probs_BV = torch.log_softmax(rows.logits_BV.float(), -1)
        best_BK, tokens_BK = log_probs_BV.topk(min(2 * width, log_probs_BV.shape[1]), -1)
        best, picks = best_BK.tolist(), tokens_BK.tolist()
        keep: list[int] = []
        fed: list[int] = []
        next_order, next_spans = [], []
        at = 0
        for utterance, span in zip(order, spans, strict=True):
            options = sorted(
                ((live[utterance][i][1] + best[at + i][j], i, picks[at + i][j]) for i in range(span) for j in range(len(picks[at + i]))),
                reverse=True,
            )
            new: list[tuple[list[int], float]] = []
            new_rows: list[int] = []
            for rank, (score, i, token) in enumerate(options[: 2 * width]):
                prefix = live[utterance][i][0]
                if token in stops:
                    if rank >= width:
                        continue
                    done[utterance].append(Hypothesis(prefix, "eos", worth(score, len(prefix) + 1)))
                elif len(new) < width:
                    extended = [*prefix, token]
                    reason = _extend(list(prefix), token, set(), max_tokens[utterance])
                    if reason:
                        period = loop_period(extended)
                        final = without_loop(extended, period) if period else extended
                        done[utterance].append(Hypothesis(final, reason, worth(score, len(extended))))
                    else:
                        new.append((extended, score))
                        new_rows.append(at + i)
            at += span
            finished = sorted(done[utterance], key=lambda h: -h.score)[:width]
            done[utterance] = finished
            hopeless = len(finished) >= width and (not new or worth(new[0][1], len(new[0][0])) < finished[0].score)
            if new and not hopeless:
                live[utterance] = new
                next_order.append(utterance)
                next_spans.append(len(new))
                keep += new_rows
                fed += [prefix[-1] for prefix, _ in new]
        order, spans = next_order, next_spans
        if order:
            rows.select(torch.tensor(keep, device=device))
            rows.advance(torch.tensor(fed, device=device))
    return [max(finished, key=lambda h: (h.finish_reason == "eos", h.score)) for finished in done]
