"""A trigram language model of words, for a search that writes whole words: estimated from texts by modified Kneser-Ney smoothing (Chen and Goodman
1999, "An empirical study of smoothing techniques for language modeling"), kept as a back-off automaton in a few arrays.

Shapes: V words, S two-word contexts, B two-word sequences, T three-word sequences, N questions asked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
DISCOUNTS = (0.5, 1.0, 1.5)  # of what was seen once, twice and more often, where there is too little text to measure them


@dataclass(frozen=True)
class Ngram:
    """Words are numbers below V; V + 0, 1 and 2 stand for the beginning of a sentence, its end, and a word that is none of them.

    A state is the context that the next word is judged by: below V + 3 the last word alone, from there on one of the S pairs of words.
    """

    size: int
    unigram_V: Array  # log probabilities, of the end of a sentence too
    backoff_V: Array  # log weight of the unigram after each word, where the pair was not kept
    pair_last_S: Array
    pair_keys_S: Array  # sorted, first * (V + 3) + last
    pair_backoff_S: Array
    bigram_keys_B: Array
    bigram_B: Array
    trigram_keys_T: Array  # context * (V + 3) + word
    trigram_T: Array

    @property
    def start(self) -> int:
        """The state at the beginning of a sentence."""
        return self.size

    @property
    def end(self) -> int:
        """The word that ends a sentence."""
        return self.size + 1

    @property
    def unknown(self) -> int:
        """Any word that is not known."""
        return self.size + 2

    def log_prob(self, state_N: Array, word_N: Array) -> Array:
        """Natural logarithm [N] of the probability of each word in its state, float32."""
        width = self.size + 3
        paired = state_N >= width
        context_N = np.where(paired, state_N - width, 0)
        last_N = np.where(paired, self.pair_last_S[context_N] if len(self.pair_last_S) else 0, state_N)
        found_N, at_N = _find(self.bigram_keys_B, last_N * width + word_N)
        score_N = np.where(found_N, _take(self.bigram_B, at_N), self.backoff_V[last_N] + self.unigram_V[word_N])
        found_N, at_N = _find(self.trigram_keys_T, context_N * width + word_N)
        further_N = np.where(found_N, _take(self.trigram_T, at_N), _take(self.pair_backoff_S, context_N) + score_N)
        return np.where(paired, further_N, score_N).astype(np.float32)

    def after(self, state_N: Array, word_N: Array) -> Array:
        """The state [N] that each word leads to."""
        width = self.size + 3
        paired = state_N >= width
        last_N = np.where(paired, _take(self.pair_last_S, np.where(paired, state_N - width, 0)), state_N)
        found_N, at_N = _find(self.pair_keys_S, last_N * width + word_N)
        return np.where(found_N, at_N + width, word_N)

    def widened(self, more: int) -> Ngram:
        """The same with `more` words behind the others, which share with the unknown ones what was theirs, and stand in no sequence.

        Where an unknown word is kept in a sequence it stays as likely: there all probabilities add up to a little more than one.
        """

        def moved(words: Array) -> Array:
            return words + more * (words >= self.size)

        old, new = self.size + 3, self.size + 3 + more
        share = self.unigram_V[self.unknown] - np.float32(np.log(more + 1))
        words, ends = np.split(self.unigram_V, [self.size])
        before, after = np.split(self.backoff_V, [self.size])
        return Ngram(
            self.size + more,
            np.concatenate([words, np.full(more, share, np.float32), ends[:2], [share]]).astype(np.float32),
            np.concatenate([before, np.zeros(more, np.float32), after]),
            moved(self.pair_last_S),
            moved(self.pair_keys_S // old) * new + moved(self.pair_keys_S % old),
            self.pair_backoff_S,
            moved(self.bigram_keys_B // old) * new + moved(self.bigram_keys_B % old),
            self.bigram_B,
            self.trigram_keys_T // old * new + moved(self.trigram_keys_T % old),
            self.trigram_T,
        )

    def arrays(self) -> dict[str, Array]:
        """All of it, as `read` takes it: sequences in order, by how many follow each context, numbers in as few bytes as hold them."""
        width = self.size + 3
        small = np.uint16 if width < 2**16 else np.int32
        return {
            "unigram": self.unigram_V.astype(np.float32),
            "backoff": self.backoff_V.astype(np.float16),
            "bigram_count": np.bincount(self.bigram_keys_B // width, minlength=width).astype(np.int32),
            "bigram_word": (self.bigram_keys_B % width).astype(small),
            "bigram": self.bigram_B.astype(np.float16),
            "pair_first": (self.pair_keys_S // width).astype(small),
            "pair_last": self.pair_last_S.astype(small),
            "pair_backoff": self.pair_backoff_S.astype(np.float16),
            "trigram_count": np.bincount(self.trigram_keys_T // width, minlength=len(self.pair_keys_S)).astype(np.int32),
            "trigram_word": (self.trigram_keys_T % width).astype(small),
            "trigram": self.trigram_T.astype(np.float16),
        }

    @classmethod
    def read(cls, arrays: Mapping[str, Array]) -> Ngram:
        """From `arrays`. Raises KeyError for what is missing, ValueError for what does not fit together."""
        unigram_V = arrays["unigram"]
        width = len(unigram_V)
        likely = [arrays[name] for name in ("unigram", "backoff", "bigram", "pair_backoff", "trigram")]
        flat = all(array.ndim == 1 for array in arrays.values()) and all(np.isfinite(array).all() for array in likely)
        held = all(int(arrays[f"{name}_count"].sum(dtype=np.int64)) == len(arrays[f"{name}_word"]) for name in ("bigram", "trigram"))
        if not flat or not held or any(np.any(arrays[f"{name}_count"] < 0) for name in ("bigram", "trigram")):
            raise ValueError("its tables do not fit together")
        wide = {name: arrays[name].astype(np.int64) for name in ("bigram_word", "pair_first", "pair_last", "trigram_word")}
        bigram_of = np.repeat(np.arange(len(arrays["bigram_count"])), arrays["bigram_count"])
        trigram_of = np.repeat(np.arange(len(arrays["trigram_count"])), arrays["trigram_count"])
        made = cls(
            width - 3,
            unigram_V,
            arrays["backoff"].astype(np.float32),
            wide["pair_last"],
            wide["pair_first"] * width + wide["pair_last"],
            arrays["pair_backoff"].astype(np.float32),
            bigram_of * width + wide["bigram_word"],
            arrays["bigram"].astype(np.float32),
            trigram_of * width + wide["trigram_word"],
            arrays["trigram"].astype(np.float32),
        )
        keys = (made.pair_keys_S, made.bigram_keys_B, made.trigram_keys_T)
        known = all(np.all((words >= 0) & (words < width)) for words in wide.values()) and len(arrays["trigram_count"]) == len(made.pair_keys_S)
        pairs = ((made.backoff_V, unigram_V), (made.bigram_B, made.bigram_keys_B), (made.trigram_T, made.trigram_keys_T))
        fit = all(len(a) == len(b) for a, b in (*pairs, (made.pair_backoff_S, made.pair_keys_S)))
        if width < 4 or not known or not fit or any(np.any(np.diff(key) <= 0) for key in keys):
            raise ValueError("its tables do not fit together")
        return made


def estimate(sentences: Iterable[Sequence[int]], size: int, *, least: int = 2) -> Ngram:
    """The model of sentences in numbers of words, all others than 0 to size - 1 being words that are not known.

    least: how often three words must follow each other for the model to keep them; two, one less. What is dropped still shapes what is kept.
    """
    width = size + 3
    begin, end, unknown = size, size + 1, size + 2
    stream: list[int] = []
    for sentence in sentences:
        stream += [begin, *(word if 0 <= word < size else unknown for word in sentence), end]
    words = np.array(stream or [begin, end], np.int64)
    inner = words[1:] != begin  # pairs within a sentence
    pairs, pair_counts = np.unique((words[:-1] * width + words[1:])[inner], return_counts=True)
    within = inner[:-1] & inner[1:]
    context = words[:-2] * width + words[1:-1]
    context_at = np.searchsorted(pairs, context[within])
    triples, triple_counts = np.unique(context_at * width + words[2:][within], return_counts=True)

    ones = np.bincount(pairs % width, minlength=width).astype(np.float64)  # words by how many others they follow
    low = _interpolated(np.zeros(width, np.int64), ones, np.full(width, 1.0 / (width - 1)))[0]
    low[begin] = 1e-12
    follows = np.bincount(np.searchsorted(pairs, pairs[triples // width] % width * width + triples % width), minlength=len(pairs))
    followed = np.where(pairs // width == begin, pair_counts, follows).astype(np.float64)
    middle, _ = _interpolated(pairs // width, followed, low[pairs % width])
    back = np.searchsorted(pairs, pairs[triples // width] % width * width + triples % width)
    high, _ = _interpolated(triples // width, triple_counts.astype(np.float64), middle[back])

    kept = triple_counts >= least
    wanted = pair_counts >= max(1, least - 1)
    wanted[np.unique(triples[kept] // width)] = True
    wanted[np.unique(back[kept])] = True
    contexts = np.unique(triples[kept] // width)  # pairs that something is kept after
    backoff = _left_over(pairs[wanted] // width, middle[wanted], low[pairs[wanted] % width], width)
    at = np.searchsorted(contexts, triples[kept] // width)
    pair_backoff = _left_over(at, high[kept], middle[back[kept]], len(contexts))
    return Ngram(
        size,
        np.log(low).astype(np.float32),
        np.log(backoff).astype(np.float32),
        pairs[contexts] % width,
        pairs[contexts],
        np.log(pair_backoff).astype(np.float32),
        pairs[wanted],
        np.log(middle[wanted]).astype(np.float32),
        at * width + triples[kept] % width,
        np.log(high[kept]).astype(np.float32),
    )


def _interpolated(context_N: Array, count_N: Array, lower_N: Array) -> tuple[Array, Array]:
    """Probability of each of N seen words in its context, and the share of each context that the lower order is given."""
    taken_N = np.minimum(np.array([0.0, *_discounts(count_N)])[np.minimum(count_N, 3).astype(np.int64)], count_N)
    total = np.maximum(np.bincount(context_N, count_N), 1e-12)
    share = np.bincount(context_N, taken_N) / total
    return (count_N - taken_N) / total[context_N] + share[context_N] * lower_N, share


def _discounts(count_N: Array) -> Sequence[float]:
    """What is taken from counts of 1, 2 and 3 or more, by how often each count comes. Of little text that may be no discount: then DISCOUNTS."""
    seen = [float((count_N == k).sum()) for k in (1, 2, 3, 4)]
    if not all(seen):
        return DISCOUNTS
    ratio = seen[0] / (seen[0] + 2 * seen[1])
    found = [k - (k + 1) * ratio * seen[k] / seen[k - 1] for k in (1, 2, 3)]
    return found if all(0 <= discount <= k for k, discount in enumerate(found, 1)) else DISCOUNTS


def _left_over(context_N: Array, kept_N: Array, lower_N: Array, contexts: int) -> Array:
    """Weight of the lower order in each context, so that all words together have a probability of one."""
    high = 1 - np.bincount(context_N, kept_N, minlength=contexts)
    low = 1 - np.bincount(context_N, lower_N, minlength=contexts)
    return np.clip(high, 1e-6, 1) / np.clip(low, 1e-6, 1)


def _find(keys: Array, asked_N: Array) -> tuple[Array, Array]:
    """Whether each is among the sorted keys, and where."""
    if not len(keys):
        return np.zeros(len(asked_N), bool), np.zeros(len(asked_N), np.int64)
    at_N = np.minimum(np.searchsorted(keys, asked_N), len(keys) - 1)
    return keys[at_N] == asked_N, at_N


def _take(values: Array, at_N: Array) -> Array:
    return values[at_N] if len(values) else np.zeros(len(at_N), np.float32)
