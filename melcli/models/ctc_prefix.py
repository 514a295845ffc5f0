"""CTC prefix scores: how well a beginning of the text goes with the CTC head's frames, whatever follows it.

After Watanabe et al. 2017, "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition". Their recursions over time are written as
cumulative sums, so that all hypotheses and all frames are computed at once.
Shapes: U utterances, T frames of the longest, C classes (the blank is the last), N hypotheses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

LEAST = -1e30  # log of zero that sums and differences survive
FLOOR = -25.0  # log probability of a class at least: cumulative sums stay within float32


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Log probabilities [N, T] of having said exactly the prefix by frame t, ending in its last class or in a blank.

    utterance_N: whose frames. last_N: the last class, -1 of an empty prefix.
    """

    ends_in_class: Tensor
    ends_in_blank: Tensor
    utterance_N: Tensor
    last_N: Tensor

    def select(self, rows: Tensor) -> Prefixes:
        """These hypotheses, in this order."""
        return Prefixes(self.ends_in_class[rows], self.ends_in_blank[rows], self.utterance_N[rows], self.last_N[rows])


class PrefixScorer:
    """logits_PC: the CTC head's output for all utterances end to end, frames_U of each."""

    def __init__(self, logits_PC: Tensor, frames_U: Tensor) -> None:
        log_probs = torch.log_softmax(logits_PC.float(), -1).clamp_min(FLOOR)
        self.log_probs_UTC = pad_sequence(list(log_probs.split(frames_U.tolist())), batch_first=True)
        self.last_frame_U = frames_U - 1
        self.blank = logits_PC.shape[-1] - 1

    def start(self) -> Prefixes:
        """The empty prefix of every utterance."""
        blanks = self.log_probs_UTC[..., self.blank].cumsum(-1)
        count = len(blanks)
        here = torch.arange(count, device=blanks.device)
        return Prefixes(torch.full_like(blanks, LEAST), blanks, here, torch.full((count,), -1, device=blanks.device))

    def whole(self, prefixes: Prefixes) -> Tensor:
        """Log probability [N] that the prefix is all of the text."""
        at = self.last_frame_U[prefixes.utterance_N][:, None]
        return torch.logaddexp(prefixes.ends_in_class.gather(1, at), prefixes.ends_in_blank.gather(1, at))[:, 0]

    def extend(self, prefixes: Prefixes, classes: Sequence[Sequence[int]]) -> tuple[Prefixes, Tensor]:
        """Each prefix with its own classes appended, and the log probability [N] that the text begins so; nan where nothing was appended."""
        count = len(classes)
        scores_N = torch.full((count,), math.nan, device=self.log_probs_UTC.device)
        for step in range(max(map(len, classes), default=0)):
            rows = torch.tensor([n for n in range(count) if len(classes[n]) > step], device=scores_N.device)
            added = torch.tensor([classes[n][step] for n in rows.tolist()], device=scores_N.device)
            longer, score = self._append(prefixes.select(rows), added)
            scores_N[rows] = score
            if len(rows) == count:
                prefixes = longer
            else:
                prefixes = Prefixes(
                    prefixes.ends_in_class.index_copy(0, rows, longer.ends_in_class),
                    prefixes.ends_in_blank.index_copy(0, rows, longer.ends_in_blank),
                    prefixes.utterance_N,
                    prefixes.last_N.index_copy(0, rows, added),
                )
        return prefixes, scores_N

    def _append(self, prefixes: Prefixes, added_N: Tensor) -> tuple[Prefixes, Tensor]:
        of_class = self.log_probs_UTC[prefixes.utterance_N, :, added_N]
        of_blank = self.log_probs_UTC[prefixes.utterance_N, :, self.blank]
        same = (added_N == prefixes.last_N)[:, None]
        ready = torch.where(same, prefixes.ends_in_blank, torch.logaddexp(prefixes.ends_in_class, prefixes.ends_in_blank))
        empty = (prefixes.last_N < 0)[:, None]
        before = torch.cat([torch.where(empty, 0.0, LEAST), ready[:, :-1]], 1)  # the prefix said by the frame before
        in_class = _accumulate(before, of_class)
        in_blank = _accumulate(_delayed(in_class), of_blank)
        inside = torch.arange(before.shape[1], device=before.device) <= self.last_frame_U[prefixes.utterance_N][:, None]
        score = torch.where(inside, before + of_class, LEAST).logsumexp(1)
        return Prefixes(in_class, in_blank, prefixes.utterance_N, added_N), score


def _delayed(x_NT: Tensor) -> Tensor:
    return torch.nn.functional.pad(x_NT[:, :-1], (1, 0), value=LEAST)


def _accumulate(enter_NT: Tensor, stay_NT: Tensor) -> Tensor:
    """y[t] = log(exp(y[t-1]) + exp(enter[t])) + stay[t], for all t at once."""
    total = stay_NT.cumsum(-1)
    return total + torch.logcumsumexp((enter_NT - (total - stay_NT)).clamp_min(LEAST), -1)
