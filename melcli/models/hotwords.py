"""Words that are likely to be said, made likelier while decoding: shallow fusion with a trie of their tokens.

After Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual Biasing": each token that goes on with a hotword earns a bonus, and a beam search takes
back what was earned by a beginning that turns out to be something else.
Shapes: B rows (hypotheses), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

BONUS = 1.5  # log probability a token; chosen with benchmarks/hotwords.py


class Hotwords:
    """Phrases as token sequences: as they stand at the beginning of a text, and inside one."""

    def __init__(self, tokenizer: Any, phrases: Sequence[str], bonus: float = BONUS) -> None:
        self.bonus = bonus
        self.inside: dict[tuple[int, ...], set[int]] = {}  # what may follow each beginning of a phrase
        self.first: dict[tuple[int, ...], set[int]] = {}
        self.whole: set[tuple[int, ...]] = set()
        for phrase in phrases:
            for tokens, trie in ((token_ids(tokenizer, phrase, first=False), self.inside), (token_ids(tokenizer, phrase, first=True), self.first)):
                self.whole.add(tokens)
                for length in range(len(tokens)):
                    trie.setdefault(tokens[:length], set()).add(tokens[length])
        self.longest = max(map(len, self.whole), default=0)

    def favour(self, scores_BV: Tensor, texts: Sequence[Sequence[int]], retract: bool = False) -> None:
        """Add the bonuses to the scores of what may come next in each row, in place. texts: what each row holds so far.

        retract: take back the bonus of a beginning from all that does not go on with it; for searches that follow several hypotheses.
        """
        for row, tokens in enumerate(texts):
            likely: dict[int, float] = {}
            earned = 0.0
            for beginning, following in self._open(tokens):
                earned = max(earned, self.bonus * len(beginning))
                for token in following:
                    likely[token] = max(likely.get(token, 0.0), self.bonus * (len(beginning) + 1))
            if retract and earned:
                scores_BV[row] -= earned
            for token, bonus in likely.items():
                scores_BV[row, token] += bonus if retract else self.bonus

    def _open(self, tokens: Sequence[int]) -> Iterator[tuple[tuple[int, ...], set[int]]]:
        """The beginnings of hotwords that the text ends with, and what may follow each; the empty one among them."""
        for length in range(min(len(tokens), self.longest - 1) + 1):
            beginning = tuple(tokens[len(tokens) - length :])
            if beginning in self.inside and (length < len(tokens) or not self.first):
                yield beginning, self.inside[beginning]
            if length == len(tokens) and beginning in self.first:
                yield beginning, self.first[beginning]

    def sequences(self) -> dict[tuple[int, ...], float]:
        """The bonus of the last token of each sequence, as transformers' `generate` takes it (`sequence_bias`)."""
        tries = (self.inside, self.first)
        return {(*beginning, token): self.bonus for trie in tries for beginning, following in trie.items() for token in following}


def token_ids(tokenizer: Any, phrase: str, first: bool) -> tuple[int, ...]:
    """Tokens of a phrase at the beginning of a text, or after another word."""
    if first:
        return tuple(tokenizer(phrase, add_special_tokens=False)["input_ids"])
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"]
    both = tokenizer(f"a {phrase}", add_special_tokens=False)["input_ids"]
    return tuple(both[len(anchor) :])
