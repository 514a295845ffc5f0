"""Decoding: greedy, sampled and beam search over utterances of different length at once, with a key-value cache.

The loop is ours because transformers' `generate` pays for generality at every step, keeps finished rows in the batch and copies its cache.
`SpeechLM.generate` works too and gives the same tokens.
Shapes: U utterances, B rows, L positions, V vocabulary, F frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from melcli.models.decoding.beam import Beam, Speller, beam_search
from melcli.models.decoding.draft import Draft, Drafter
from melcli.models.decoding.hotwords import Hotwords
from melcli.models.decoding.hypothesis import Hypothesis, extend
from melcli.models.decoding.rows import Rows, Spread
from melcli.models.speech_lm import SpeechLM

COMPACT_AT = 0.75  # finished rows leave the batch once fewer than this share is still at work


@dataclass(frozen=True, slots=True)
class Greedy:
    """The most probable token at each step."""

    def pick(self, logits_BV: Tensor) -> Tensor:
        return logits_BV.argmax(-1)


@dataclass(frozen=True, slots=True)
class ByCtc:
    """What the CTC head hears: the most probable class of each frame, repeats and blanks taken out; of one that hears sounds, their words."""


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


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    valid = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return ids, valid


Strategy = Greedy | ByCtc | Sample | Beam


@torch.inference_mode()
def decode(
    model: SpeechLM,
    prompts: Sequence[Sequence[int]],
    speech: Tensor | None,
    lengths_U: Tensor | None,
    max_tokens: Sequence[int],
    strategy: Strategy | None = None,
    drafter: Drafter | None = None,
    speller: Speller | None = None,
    stops: Sequence[int] = (),
    hotwords: Hotwords | None = None,
    spread: Spread | None = None,
) -> list[Hypothesis]:
    """Continue each prompt until its stop token, its own limit or a loop. stops: further tokens to stop at.

    prompts: token ids holding the speech token once per patch; speech [F, M] packed in the same order, lengths_U frames of each.
    drafter: makes drafts from the CTC head's logits, for greedy decoding in fewer steps. speller: what tokens are to the CTC head, for joint
    beam search. hotwords: what a beam search favours. spread: where the positions of what is written are.
    """
    strategy = strategy or (ByCtc() if model.writes_by_ctc else Greedy())
    if not prompts:
        return []
    if isinstance(strategy, ByCtc) and model.config.ctc_at_input and speech is not None:
        return _by_ctc(*model.heard(speech, lengths_U), max_tokens, drafter)
    ids, valid = _left_padded(prompts, model.config.pad_token_id, model.device)
    rows = Rows(model, ids, valid, speech, lengths_U, max(max_tokens) + 1, spread)
    stops = [*model.config.stop_token_ids, *stops]
    if isinstance(strategy, ByCtc):
        return _by_ctc(rows.ctc_logits, rows.patches_U * model.config.ctc_rate, max_tokens, drafter)
    if isinstance(strategy, Beam):
        found = beam_search(rows, stops, max_tokens, strategy, speller, hotwords)
    else:
        found = _one_path(rows, stops, max_tokens, strategy, drafter if isinstance(strategy, Greedy) else None)
    if rows.ctc_logits is None:
        return found
    heard = rows.ctc_logits.split((rows.patches_U * model.config.ctc_rate).tolist())
    return [replace(hypothesis, ctc_logits=logits) for hypothesis, logits in zip(found, heard, strict=True)]


def _one_path(
    rows: Rows, stops: Sequence[int], max_tokens: Sequence[int], strategy: Greedy | Sample, drafter: Drafter | None = None
) -> list[Hypothesis]:
    """One hypothesis an utterance. With drafts, a step reads the last token and guesses of what follows, and keeps the guesses that were right."""
    count = len(max_tokens)
    stop = set(stops)
    paths = [_Path(limit) for limit in max_tokens]
    for path, draft in zip(paths, _drafts(rows, drafter, count), strict=True):
        path.draft = draft
    blocks: list[list[int]] = [[] for _ in paths]
    logits_BQV = rows.logits_BV[:, None]
    alive = paths
    while True:
        picked_BQ = strategy.pick(logits_BQV.flatten(0, 1)).view(logits_BQV.shape[:2])
        scores_BQ = (logits_BQV.gather(2, picked_BQ[..., None])[..., 0].float() - logits_BQV.float().logsumexp(-1)).tolist()
        kept = [
            path.take(picked, scores, block[1:], stop)
            for path, picked, scores, block in zip(alive, picked_BQ.tolist(), scores_BQ, blocks, strict=True)
        ]
        if rows.fresh:
            rows.settle(torch.tensor(kept, device=picked_BQ.device))
        at_work = [row for row, path in enumerate(alive) if path.reason is None]
        if not at_work:
            return [Hypothesis(path.tokens, path.reason or "length", path.score / (len(path.tokens) + 1)) for path in paths]
        if len(at_work) <= COMPACT_AT * len(alive):
            rows.select(torch.tensor(at_work, device=picked_BQ.device))
            alive = [alive[row] for row in at_work]
        blocks = [path.block() for path in alive]
        width = max(map(len, blocks))
        logits_BQV = rows.advance(torch.tensor([block + [0] * (width - len(block)) for block in blocks], device=picked_BQ.device))


def _drafts(rows: Rows, drafter: Drafter | None, count: int) -> list[Draft | None]:
    if drafter is None or rows.ctc_logits is None:
        return [None] * count
    return [Draft(tokens) for tokens in drafter(rows.ctc_logits, rows.patches_U * rows.model.config.ctc_rate)]


def _by_ctc(ctc_logits: Tensor, frames_U: Tensor, max_tokens: Sequence[int], drafter: Drafter) -> list[Hypothesis]:
    """What the CTC head heard, up to so many tokens each, with the mean log probability of a frame."""
    found = []
    for tokens, limit, logits_TC in zip(drafter(ctc_logits, frames_U), max_tokens, ctc_logits.split(frames_U.tolist()), strict=True):
        score = float(logits_TC.float().log_softmax(-1).amax(-1).mean())
        found.append(Hypothesis(tokens[:limit], "eos" if len(tokens) <= limit else "length", score, logits_TC))
    return found


@dataclass(slots=True)
class _Path:
    """The hypothesis of one utterance under way."""

    limit: int
    tokens: list[int] = field(default_factory=list)
    score: float = 0.0
    reason: str | None = None
    last: int = 0
    draft: Draft | None = None

    def block(self) -> list[int]:
        """What to read next: the last token and what the draft guesses after it."""
        if self.reason is not None or self.draft is None:
            return [self.last]
        return [self.last, *self.draft.guess()[: self.limit - len(self.tokens) - 1]]

    def take(self, picked: Sequence[int], scores: Sequence[float], guesses: Sequence[int], stop: set[int]) -> int:
        """Add what the model picked, as far as the guesses it rests on were right; how many tokens of the block stay in the cache."""
        if self.reason is not None:
            return 0
        right = 0
        while True:
            self.last = picked[right]
            self.score += scores[right]
            self.reason = extend(self.tokens, self.last, stop, self.limit)
            hit = self.draft is not None and self.draft.follow(self.last)
            if self.reason is not None or not hit or right >= len(guesses):
                break
            right += 1
        if self.draft is not None and guesses:
            self.draft.adapt(right, len(guesses))
        return right + 1
