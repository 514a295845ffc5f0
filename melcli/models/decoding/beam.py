"""Beam search over many utterances at once, by the language model alone or jointly with the CTC head.

Shapes: B rows (live hypotheses of all utterances), V vocabulary, K candidates a row, N candidates of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melcli.models.decoding.ctc_prefix import Continuations, PrefixScorer
from melcli.models.decoding.hotwords import Hotwords
from melcli.models.decoding.hypothesis import Hypothesis, extend, loop_period, without_loop
from melcli.models.decoding.rows import Rows
from melcli.models.decoding.tree import Tree

Speller = Callable[[int, bool], Sequence[int]]
"""(token, whether it begins the text) -> the CTC head's classes that it stands for."""


@dataclass(frozen=True, slots=True)
class Beam:
    """Beam search; a hypothesis of n tokens is worth its log probability divided by n ** length_penalty.

    ctc_weight: share of the CTC head's prefix score in that log probability, for models with such a head: it knows what was said and what was not.
    """

    width: int = 4
    length_penalty: float = 1.0
    ctc_weight: float = 0.3

    def worth(self, score: float, length: int) -> float:
        """What a log probability of so many tokens, the stop token included, counts for."""
        return score / length**self.length_penalty


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A live hypothesis with one more token. lm: the language model's log probability. score: the joint one."""

    row: int
    tokens: list[int]
    lm: float
    score: float
    number: int = 0


@dataclass(slots=True)
class _Search:
    """The search for one utterance: hypotheses under way, in the rows' order, and finished ones, best first."""

    limit: int
    live: list[_Candidate]
    done: list[Hypothesis] = field(default_factory=list)

    def choose(self, candidates: list[_Candidate], stops: Sequence[int], beam: Beam) -> None:
        """Go on with the best candidates; those that end here are done."""
        new: list[_Candidate] = []
        ranked = sorted(candidates, key=lambda c: -c.score)[: 2 * beam.width]
        for rank, candidate in enumerate(ranked):
            tokens = candidate.tokens
            worth = beam.worth(candidate.score, len(tokens))
            if tokens[-1] in stops:
                if rank < beam.width:
                    self._finish(Hypothesis(tokens[:-1], "eos", worth), beam.width)
            elif len(new) < beam.width:
                reason = extend(tokens[:-1], tokens[-1], set(), self.limit)
                if reason:
                    period = loop_period(tokens)
                    self._finish(Hypothesis(without_loop(tokens, period) if period else tokens, reason, worth), beam.width)
                else:
                    new.append(candidate)
        hopeless = len(self.done) >= beam.width and (not new or beam.worth(new[0].score, len(new[0].tokens)) < self.done[0].score)
        self.live = [] if hopeless else new

    def _finish(self, hypothesis: Hypothesis, width: int) -> None:
        self.done = sorted([*self.done, hypothesis], key=lambda h: -h.score)[:width]

    def result(self) -> Hypothesis:
        """The best that ended by itself, or else the best."""
        return max(self.done, key=lambda h: (h.finish_reason == "eos", h.score))


def beam_search(
    rows: Rows, stops: Sequence[int], max_tokens: Sequence[int], beam: Beam, speller: Speller | None = None, hotwords: Hotwords | None = None
) -> list[Hypothesis]:
    """Every utterance keeps `width` live hypotheses until `width` are finished and none alive can beat the best."""
    joint = _Joint(rows, speller, stops) if speller is not None and rows.ctc_logits is not None and beam.ctc_weight > 0 else None
    searches = [_Search(limit, [_Candidate(0, [], 0.0, 0.0)]) for limit in max_tokens]
    alive = searches
    logits_BV, tree = rows.logits_BV, Tree(rows)
    while alive:
        log_probs_BV = torch.log_softmax(logits_BV.float(), -1)
        if hotwords:
            hotwords.favour(log_probs_BV, [hypothesis.tokens for search in alive for hypothesis in search.live])
        lm_BK, tokens_BK = log_probs_BV.topk(min(2 * beam.width, log_probs_BV.shape[1]), -1)
        if joint:  # the CTC head may know of an end that the language model does not see
            ends_BE = torch.tensor(stops[:1], device=tokens_BK.device).expand(len(tokens_BK), -1)
            missing = (tokens_BK != ends_BE).all(-1, keepdim=True)
            lm_BK = torch.cat([lm_BK, torch.where(missing, log_probs_BV.gather(1, ends_BE), -torch.inf)], 1)
            tokens_BK = torch.cat([tokens_BK, ends_BE], 1)
        live = [hypothesis for search in alive for hypothesis in search.live]
        lm_BK = lm_BK + torch.tensor([[h.lm] for h in live], device=lm_BK.device)
        scores_BK = lm_BK if joint is None else (1 - beam.ctc_weight) * lm_BK + beam.ctc_weight * joint.ask(tokens_BK)
        lm, tokens, scores = lm_BK.tolist(), tokens_BK.tolist(), scores_BK.tolist()
        row, width = 0, tokens_BK.shape[1]
        for search in alive:
            candidates = []
            for hypothesis in search.live:
                candidates += [
                    _Candidate(row, [*hypothesis.tokens, tokens[row][k]], lm[row][k], scores[row][k], row * width + k)
                    for k in range(width)
                    if scores[row][k] > -torch.inf
                ]
                row += 1
            search.choose(candidates, stops, beam)
        alive = [search for search in alive if search.live]
        if alive:
            chosen = [hypothesis for search in alive for hypothesis in search.live]
            if joint:
                joint.select([h.number for h in chosen])
            logits_BV = tree.grow([h.row for h in chosen], [h.tokens[-1] for h in chosen])
    return [search.result() for search in searches]


class _Joint:
    """The CTC head's scores of all candidates of a step."""

    def __init__(self, rows: Rows, speller: Speller, stops: Sequence[int]) -> None:
        self.scorer = PrefixScorer(rows.ctc_logits, rows.patches_U * rows.model.config.ctc_rate)
        self.speller = speller
        self.stops = set(stops)
        self.prefixes = self.scorer.start()

    def ask(self, tokens_BK: Tensor) -> Tensor:
        """Log probability [B, K] that the text begins as the candidate does, or, for a stop token, that it ends there."""
        empty = (self.prefixes.last_N < 0).tolist()
        candidates = [(row, token) for row, tokens in enumerate(tokens_BK.tolist()) for token in tokens]
        classes = [() if token in self.stops else self.speller(token, empty[row]) for row, token in candidates]
        self.next = Continuations(self.scorer, self.prefixes, [row for row, _ in candidates], classes)
        ends_BK = torch.isin(tokens_BK, torch.tensor(sorted(self.stops), device=tokens_BK.device))
        return torch.where(ends_BK, self.scorer.whole(self.prefixes)[:, None], self.next.score_M.view_as(tokens_BK))

    def select(self, candidates: Sequence[int]) -> None:
        """Go on with these candidates, counted over all rows."""
        self.prefixes = self.scorer.forget(self.next.select(candidates))
