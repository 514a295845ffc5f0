"""Drafts: what the CTC head heard, as guesses that the language model checks many at a time instead of finding one token a step.

Greedy decoding with a draft gives the tokens it gives without one; a good draft only saves steps (speculative decoding, Leviathan et al. 2023,
arXiv 2211.17192, with the CTC head in the place of the small model). Shapes: T CTC frames of all utterances, C classes, U utterances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Drafter = Callable[[Tensor, Tensor], list[list[int]]]
"""(ctc_logits_TC, frames_U) -> a draft of tokens for each utterance."""

MOST = 8  # tokens guessed at once: a processor reads these and one more in less than twice the time of one
SEARCHED_BACK, SEARCHED_AHEAD = 3, 8  # where the thread is looked for after a wrong guess


def ctc_greedy(logits_TC: Tensor, frames_U: Tensor) -> list[list[int]]:
    """Classes of each utterance by its most probable path: repetitions once, then without blanks (the last class)."""
    best_T = logits_TC.argmax(-1)
    utterance_T = torch.repeat_interleave(torch.arange(len(frames_U), device=best_T.device), frames_U, output_size=len(best_T))
    new_T = torch.ones_like(best_T, dtype=torch.bool)
    new_T[1:] = (best_T[1:] != best_T[:-1]) | (utterance_T[1:] != utterance_T[:-1])
    kept = new_T & (best_T != logits_TC.shape[-1] - 1)
    counts = torch.bincount(utterance_T[kept], minlength=len(frames_U)).tolist()
    return [classes.tolist() for classes in best_T[kept].cpu().split(counts)]


class Draft:
    """The draft of one utterance and how far the true tokens have come in it."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = list(tokens)
        self.at = 0
        self.ahead = MOST // 2

    def guess(self) -> list[int]:
        """What may come next."""
        return self.tokens[self.at : self.at + self.ahead]

    def follow(self, token: int) -> bool:
        """Take the true next token; whether the draft had it there. Otherwise find it nearby, or take it for what stood in its place."""
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        places = [*range(self.at + 1, self.at + SEARCHED_AHEAD), *range(self.at - 1, self.at - 1 - SEARCHED_BACK, -1)]
        self.at = 1 + next((i for i in places if 0 <= i < len(self.tokens) and self.tokens[i] == token), self.at)
        return False

    def adapt(self, right: int, guessed: int) -> None:
        """Guess more after a block that was right throughout, less after one that was not."""
        self.ahead = min(2 * self.ahead, MOST) if right == guessed else max(right + 1, 2)
