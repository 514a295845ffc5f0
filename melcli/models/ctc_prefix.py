"""CTC prefix scores: how well a beginning of the text goes with the CTC head's frames, whatever follows it.

After Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition". Their recursions over time are written as
cumulative sums, so that all hypotheses and all frames are computed at once.
Shapes: U utterances, T frames of the longest, C classes (the blank is the last), N hypotheses, M continuations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

LEAST = -1e30  # log of zero that sums and differences survive
FLOOR = -25.0  # log probability of a class at least: cumulative sums stay within float32


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Log probabilities [N, T] of having said exactly the prefix by frame t, ending in its last class or in a blank.

    utterance_N: whose frames. last_N: the last class, -1 of an empty prefix. score_N: log probability that the text begins so.
    """

    in_class: Tensor
    in_blank: Tensor
    utterance_N: Tensor
    last_N: Tensor
    score_N: Tensor

    def select(self, rows: Sequence[int]) -> Prefixes:
        """These hypotheses, in this order."""
        at = torch.tensor(rows, dtype=torch.long, device=self.last_N.device)
        return Prefixes(*(getattr(self, name)[at] for name in self.__slots__))

    @classmethod
    def join(cls, parts: Sequence[Prefixes]) -> Prefixes:
        """All of them, one after another."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__slots__))


class PrefixScorer:
    """logits_PC: the CTC head's output for all utterances end to end, frames_U of each."""

    def __init__(self, logits_PC: Tensor, frames_U: Tensor) -> None:
        log_probs = torch.log_softmax(logits_PC.float(), -1).clamp_min(FLOOR)
        self.log_probs_UCT = pad_sequence(list(log_probs.split(frames_U.tolist())), batch_first=True).transpose(1, 2).contiguous()
        self.last_frame_U = frames_U - 1
        self.blank = logits_PC.shape[-1] - 1

    def start(self) -> Prefixes:
        """The empty prefix of every utterance."""
        blanks = self.log_probs_UCT[:, self.blank].cumsum(-1)
        here = torch.arange(len(blanks), device=blanks.device)
        return Prefixes(torch.full_like(blanks, LEAST), blanks, here, torch.full_like(here, -1), torch.zeros_like(blanks[:, 0]))

    def whole(self, prefixes: Prefixes) -> Tensor:
        """Log probability [N] that the prefix is all of the text."""
        at = self.last_frame_U[prefixes.utterance_N][:, None]
        return torch.logaddexp(prefixes.in_class.gather(1, at), prefixes.in_blank.gather(1, at))[:, 0]

    def append(self, prefixes: Prefixes, added_N: Tensor, score_N: Tensor | None = None) -> Prefixes:
        """Each prefix with one class more. score_N: what it scores, where that is known or nobody asks; else it is computed."""
        before, of_class = self._enter(prefixes, added_N)
        of_blank = self.log_probs_UCT[prefixes.utterance_N, self.blank]
        in_class = _accumulate(before, of_class)
        in_blank = _accumulate(F.pad(in_class[:, :-1], (1, 0), value=LEAST), of_blank)
        return Prefixes(in_class, in_blank, prefixes.utterance_N, added_N, self._sum(before + of_class, prefixes) if score_N is None else score_N)

    def score(self, prefixes: Prefixes, added_N: Tensor) -> Tensor:
        """The score_N that `append` gives, at a fraction of its cost."""
        before, of_class = self._enter(prefixes, added_N)
        return self._sum(before + of_class, prefixes)

    def _enter(self, prefixes: Prefixes, added_N: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities [N, T] that all was said by the frame before, ready for the class; and those of the class."""
        same = (added_N == prefixes.last_N)[:, None]
        ready = torch.where(same, prefixes.in_blank, torch.logaddexp(prefixes.in_class, prefixes.in_blank))
        before = F.pad(ready[:, :-1], (1, 0))
        before[:, 0] = torch.where(prefixes.last_N < 0, 0.0, LEAST)
        return before, self.log_probs_UCT[prefixes.utterance_N, added_N]

    def _sum(self, log_probs_NT: Tensor, prefixes: Prefixes) -> Tensor:
        frames = torch.arange(log_probs_NT.shape[1], device=log_probs_NT.device)
        return log_probs_NT.masked_fill(frames > self.last_frame_U[prefixes.utterance_N][:, None], LEAST).logsumexp(1)


def _accumulate(enter_NT: Tensor, stay_NT: Tensor) -> Tensor:
    """y[t] = log(exp(y[t-1]) + exp(enter[t])) + stay[t], for all t at once."""
    total = stay_NT.cumsum(-1)
    return total + torch.logcumsumexp((enter_NT - (total - stay_NT)).clamp_min(LEAST), -1)


class Continuations:
    """Many continuations of a few prefixes, by one class or several, scored without computing anything twice.

    Continuation m appends `classes[m]` to prefix `rows[m]`; one that appends nothing scores as its prefix. score_M: log probabilities.
    What they share is computed once, and of the last class no more than its score: `select` does the rest for those that go on.
    """

    def __init__(self, scorer: PrefixScorer, prefixes: Prefixes, rows: Sequence[int], classes: Sequence[Sequence[int]]) -> None:
        self.scorer = scorer
        self.classes = classes
        at, offset, stems = list(rows), 0, [prefixes]  # by length: prefixes with that many classes appended; each continuation's place among them
        for length in range(1, max(map(len, classes), default=0)):
            longer = [m for m, c in enumerate(classes) if len(c) > length]
            new = dict.fromkeys((at[m], classes[m][length - 1]) for m in longer)
            number = {stem: i for i, stem in enumerate(new)}
            parents = stems[-1].select([parent - offset for parent, _ in new])
            unknown_N = torch.full_like(parents.score_N, torch.nan)  # nobody asks for a stem's score
            stems.append(scorer.append(parents, self._tensor([added for _, added in new]), unknown_N))
            offset += len(stems[-2].last_N)
            for m in longer:
                at[m] = offset + number[at[m], classes[m][length - 1]]
        self.stems = Prefixes.join(stems) if len(stems) > 1 else prefixes
        self.at = at  # of each continuation, what all but its last class make
        self.score_M = prefixes.score_N[self._tensor(rows)]
        ends = [m for m, c in enumerate(classes) if c]
        if ends:
            self.score_M[self._tensor(ends)] = scorer.score(self.stems.select([at[m] for m in ends]), self._tensor([classes[m][-1] for m in ends]))

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.scorer.last_frame_U.device)

    def select(self, chosen: Sequence[int]) -> Prefixes:
        """The prefixes that these continuations make, in this order."""
        ends = [i for i, m in enumerate(chosen) if self.classes[m]]
        same = [i for i, m in enumerate(chosen) if not self.classes[m]]
        parts = [self.stems.select([self.at[chosen[i]] for i in same])]
        if ends:
            stems = self.stems.select([self.at[chosen[i]] for i in ends])
            last, score_N = self._tensor([self.classes[chosen[i]][-1] for i in ends]), self.score_M[self._tensor([chosen[i] for i in ends])]
            parts.append(self.scorer.append(stems, last, score_N))
        place = {i: at for at, i in enumerate([*same, *ends])}
        return Prefixes.join(parts).select([place[i] for i in range(len(chosen))])
