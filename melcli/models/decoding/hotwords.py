"""Words that are likely to be said, made likelier while decoding: shallow fusion with a trie of their tokens.

After Zhao et al. 2019, "Shallow-Fusion End-to-End Contextual Biasing": each token that goes on with a hotword earns a bonus, and a beam search takes
back what was earned by a beginning that turns out to be something else.
Shapes: B rows (hypotheses), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from melcli.errors import UsageError

BONUS = 2.0  # log probability a token; chosen with benchmarks/hotwords.py


class Hotwords:
    """Phrases as token sequences: as they stand at the beginning of a text, and inside one."""

    def __init__(self, tokenizer: Any, phrases: Sequence[str], bonus: float = BONUS) -> None:
        self.bonus = bonus
        self.inside: dict[tuple[int, ...], set[int]] = {}  # what may follow each beginning of a phrase
        self.first: dict[tuple[int, ...], set[int]] = {}
        whole = set()
        for phrase in phrases:
            for first, trie in ((False, self.inside), (True, self.first)):
                tokens = token_ids(tokenizer, phrase, first)
                whole.add(tokens)
                for length in range(len(tokens)):
                    trie.setdefault(tokens[:length], set()).add(tokens[length])
        self.longest = max(map(len, whole), default=0)
        # tokens of a beginning that earned something which may be taken back: those after the last hotword that is whole in it
        self.open = {b: len(b) - max((n for n in range(1, len(b) + 1) if b[:n] in whole), default=0) for b in (*self.inside, *self.first)}

    def favour(self, scores_BV: Tensor, texts: Sequence[Sequence[int]]) -> None:
        """Add the bonuses to the scores of what may come next in each row, in place, and take that of a beginning back from all that does not go on
        with it. texts: what each row holds so far."""
        for row, tokens in enumerate(texts):
            likely: dict[int, float] = {}
            earned = 0.0
            for beginning, following in self._open(tokens):
                so_far = self.bonus * self.open[beginning]
                earned = max(earned, so_far)
                for token in following:
                    likely[token] = max(likely.get(token, 0.0), so_far + self.bonus)
            if earned:
                scores_BV[row] -= earned
            for token, bonus in likely.items():
                scores_BV[row, token] += bonus

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
    """Tokens of a phrase at the beginning of a text, or after another word; in small letters where the model writes no others.

    Raises UsageError where it cannot write the phrase.
    """

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    for written in (phrase, phrase.lower()):
        tokens = ids(written) if first else ids(f"a {written}")[len(ids("a")) :]
        if tokens and tokenizer.unk_token_id not in tokens:
            return tuple(tokens)
    raise UsageError(f"--hotwords: this model cannot write '{phrase}': its tokenizer does not know all characters of it")
