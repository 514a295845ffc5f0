"""CTC prefix scores: how well a beginning of the text goes with the CTC head's frames, whatever follows it.

After Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition". Their recursions over time are written as
cumulative sums, so that all hypotheses and all frames are computed at once.
Shapes: U utterances, T frames of the longest, C classes (the blank is the last), N hypotheses, M continuations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

LEAST = -1e30  # log of zero that sums and differences survive
FLOOR = -25.0  # log probability of a class at least: cumulative sums stay within float32
AFTER = -1e6  # and of every class in the frames after an utterance's last, where nothing is heard any more
SPAN = 80.0  # what is less than exp(-SPAN) of what it is added to counts as that: exponentials below float32's normal numbers are slow
SPAN_DOUBLE = 700.0  # the same in float64
TINY = 1e-307
FORGOTTEN = 100.0  # a frame by which a prefix was said with less than exp(-FORGOTTEN) of its best frame's probability no longer matters
CHUNK = 16  # frames
FEW = 4096  # values: below, one call of torch is as fast as our dozen


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Log probabilities [N, T] of having said exactly the prefix by frame t, ending in its last class or in a blank, and, either way, by the frame
    before (ready).

    utterance_N: whose frames. last_N: the last class, -1 of an empty prefix. score_N: log probability that the text begins so.
    """

    in_class: Tensor
    in_blank: Tensor
    ready: Tensor
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
        log_probs_UTC = pad_sequence(list(log_probs.split(frames_U.tolist())), batch_first=True, padding_value=AFTER)
        self.log_probs_UCT = log_probs_UTC.transpose(1, 2).contiguous()
        self.by_now_UCT = self.log_probs_UCT.cumsum(-1)  # of staying in the class from the first frame
        self.before_UCT = self.by_now_UCT - self.log_probs_UCT
        self.last_frame_U = frames_U - 1  # counted from the first that is still looked at
        self.blank = logits_PC.shape[-1] - 1

    def start(self) -> Prefixes:
        """The empty prefix of every utterance."""
        blanks_UT = self.by_now_UCT[:, self.blank]
        here = torch.arange(len(blanks_UT), device=blanks_UT.device)
        ready = self.before_UCT[:, self.blank]
        return Prefixes(torch.full_like(blanks_UT, LEAST), blanks_UT, ready, here, torch.full_like(here, -1), torch.zeros_like(blanks_UT[:, 0]))

    def whole(self, prefixes: Prefixes) -> Tensor:
        """Log probability [N] that the prefix is all of the text."""
        at = self.last_frame_U[prefixes.utterance_N][:, None]
        return torch.logaddexp(prefixes.in_class.gather(1, at), prefixes.in_blank.gather(1, at))[:, 0]

    def forget(self, prefixes: Prefixes) -> Prefixes:
        """The prefixes from the first frame on that matters to what may follow any of them. No others may be asked of any more."""
        likely_T = (prefixes.ready >= prefixes.ready.amax(1, keepdim=True) - FORGOTTEN).any(0)
        first = min(int(likely_T.int().argmax()), int(self.last_frame_U[prefixes.utterance_N].min()))
        if first == 0:
            return prefixes
        for name in ("log_probs_UCT", "by_now_UCT", "before_UCT"):
            setattr(self, name, getattr(self, name)[..., first:])
        self.last_frame_U = self.last_frame_U - first
        return replace(prefixes, **{name: getattr(prefixes, name)[:, first:] for name in ("in_class", "in_blank", "ready")})

    def append(self, prefixes: Prefixes, rows_N: Tensor, added_N: Tensor, score_N: Tensor | None = None) -> Prefixes:
        """Those prefixes, each with one class more. score_N: what it scores, where that is known or nobody asks; else it is computed."""
        utterance_N = prefixes.utterance_N[rows_N]
        enter_NT = self._enter(prefixes, rows_N, added_N)
        if score_N is None:
            score_N = _log_sum(enter_NT + self.log_probs_UCT[utterance_N, added_N])
        in_class = self._stay(enter_NT, utterance_N, added_N)
        in_blank = self._stay(_later(in_class), utterance_N, torch.full_like(added_N, self.blank))
        return Prefixes(in_class, in_blank, _later(_log_add(in_class, in_blank)), utterance_N, added_N, score_N)

    def score(self, prefixes: Prefixes, rows_N: Tensor, added_N: Tensor) -> Tensor:
        """The score_N that `append` gives, at a fraction of its cost."""
        enter_NT = self._enter(prefixes, rows_N, added_N)
        return _log_sum(enter_NT.add_(self.log_probs_UCT[prefixes.utterance_N[rows_N], added_N]))

    def _enter(self, prefixes: Prefixes, rows_N: Tensor, added_N: Tensor) -> Tensor:
        """Log probabilities [N, T] that all was said by the frame before, ready for the class: after itself it needs a blank."""
        enter_NT = prefixes.ready[rows_N]
        again = (added_N == prefixes.last_N[rows_N]).nonzero()[:, 0]
        if len(again):
            enter_NT[again] = _later(prefixes.in_blank[rows_N[again]])
        return enter_NT

    def _stay(self, enter_NT: Tensor, utterance_N: Tensor, class_N: Tensor) -> Tensor:
        """y[t] = log(exp(y[t-1]) + exp(enter[t])) + the class's log probability at t, for all t at once."""
        return _log_cumulative_sum(enter_NT - self.before_UCT[utterance_N, class_N]).add_(self.by_now_UCT[utterance_N, class_N])


def _later(x_NT: Tensor) -> Tensor:
    """What was true by the frame before."""
    return F.pad(x_NT[:, :-1], (1, 0), value=LEAST)


def _log_add(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b).add_((a - b).abs_().neg_().clamp_min_(-SPAN).exp_().log1p_())


def _log_sum(x_NT: Tensor) -> Tensor:
    """Over time; x_NT is scratch."""
    most_N1 = x_NT.amax(1, keepdim=True)
    return x_NT.sub_(most_N1).clamp_min_(-SPAN).exp_().sum(1).log_().add_(most_N1[:, 0])


def _log_cumulative_sum(x_NT: Tensor) -> Tensor:
    """torch.logcumsumexp over time, which goes through it value by value: in chunks, of which only the ends are done so.

    Sums are relative to a chunk's most and all before it. Of values that rise by -FLOOR a frame a chunk's first still counts in float64.
    """
    if x_NT.numel() < FEW or x_NT.device.type != "cpu":
        return torch.logcumsumexp(x_NT, 1)
    count, frames = x_NT.shape
    x_NCK = F.pad(x_NT, (0, -frames % CHUNK), value=LEAST).view(count, -1, CHUNK)
    most_NC1 = x_NCK.amax(-1, keepdim=True)
    sums_NCK = (x_NCK - most_NC1).double().clamp_min_(-SPAN_DOUBLE).exp_().cumsum_(-1)
    before_NC1 = _later(torch.logcumsumexp(most_NC1[..., 0] + sums_NCK[..., -1].log(), 1).float())[..., None]
    unit_NC1 = torch.maximum(most_NC1, before_NC1)
    sums_NCK.mul_((most_NC1 - unit_NC1).double().exp_()).add_((before_NC1 - unit_NC1).double().exp_())
    return sums_NCK.clamp_min_(TINY).log_().float().add_(unit_NC1).view(count, -1)[:, :frames]


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
            rows_N = self._tensor([parent - offset for parent, _ in new])
            unknown_N = torch.full(rows_N.shape, torch.nan, device=rows_N.device)  # nobody asks for a stem's score
            stems.append(scorer.append(stems[-1], rows_N, self._tensor([added for _, added in new]), unknown_N))
            offset += len(stems[-2].last_N)
            for m in longer:
                at[m] = offset + number[at[m], classes[m][length - 1]]
        self.stems = Prefixes.join(stems) if len(stems) > 1 else prefixes
        self.at = at  # of each continuation, what all but its last class make
        self.score_M = prefixes.score_N[self._tensor(rows)]
        ends = [m for m, c in enumerate(classes) if c]
        if ends:
            stems_N, last_N = self._tensor([at[m] for m in ends]), self._tensor([classes[m][-1] for m in ends])
            self.score_M[self._tensor(ends)] = scorer.score(self.stems, stems_N, last_N)

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.scorer.last_frame_U.device)

    def select(self, chosen: Sequence[int]) -> Prefixes:
        """The prefixes that these continuations make, in this order."""
        ends = [i for i, m in enumerate(chosen) if self.classes[m]]
        same = [i for i, m in enumerate(chosen) if not self.classes[m]]
        parts = []
        if ends:
            stems_N, last_N = self._tensor([self.at[chosen[i]] for i in ends]), self._tensor([self.classes[chosen[i]][-1] for i in ends])
            parts.append(self.scorer.append(self.stems, stems_N, last_N, self.score_M[self._tensor([chosen[i] for i in ends])]))
        if same:
            parts.append(self.stems.select([self.at[chosen[i]] for i in same]))
        if len(parts) == 1:
            return parts[0]
        place = {i: at for at, i in enumerate([*ends, *same])}
        return Prefixes.join(parts).select([place[i] for i in range(len(chosen))])
