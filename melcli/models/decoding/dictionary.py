"""A dictionary that a model writes from: words, how they sound, and how likely they are to follow each other.

Beside a model's weights, `dictionary.txt` holds the words and `dictionary.safetensors` how likely they are.
Shapes: V words, P pronunciations, N nodes of the tree of sounds, E edges of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from melcli.data import sounds
from melcli.data.sounds import ALPHABET, Sounds
from melcli.errors import CheckpointError, first_line
from melcli.models.decoding.ngram import Array, Ngram, estimate

WORDS, LIKELY = "dictionary.txt", "dictionary.safetensors"


@dataclass(frozen=True)
class SoundTree:
    """All pronunciations as paths from one root. Children of a node stand together, by sound; so do the words that end at a node.

    edge_from_N1, word_from_N1: where those of each node begin. best_N: log probability of the likeliest word below a node, by itself.
    """

    edge_from_N1: Array
    edge_sound_E: Array
    edge_node_E: Array
    word_from_N1: Array
    word_P: Array
    best_N: Array

    @classmethod
    def build(cls, spelt_P: Sequence[Sequence[int]], word_P: Sequence[int], unigram_V: Array) -> SoundTree:
        """spelt_P: the sounds of each pronunciation, none of them empty; word_P: whose it is."""
        lengths_P = np.array([len(one) for one in spelt_P])
        sounds_PL = np.zeros((len(spelt_P), lengths_P.max()), np.int64)
        for row, one in zip(sounds_PL, spelt_P, strict=True):
            row[: len(one)] = one
        kinds = int(sounds_PL.max()) + 1
        node_P = np.zeros(len(spelt_P), np.int64)
        levels, edges, count = [], [], 1
        for depth in range(sounds_PL.shape[1]):
            longer = lengths_P > depth
            found, inverse = np.unique(node_P[longer] * kinds + sounds_PL[longer, depth], return_inverse=True)
            node_P[longer] = count + inverse
            levels.append(found // kinds)
            edges.append(found % kinds)
            count += len(found)
        words = np.array(word_P)
        order = np.lexsort((words, node_P))
        best_N = np.full(count, -np.inf, np.float32)
        np.maximum.at(best_N, node_P, unigram_V[words])
        first = count
        for parents in reversed(levels):  # from the leaves: a level's nodes are numbered after those of the level above
            first -= len(parents)
            np.maximum.at(best_N, parents, best_N[first : first + len(parents)])
        nodes = np.arange(count + 1)
        parent_E = np.concatenate(levels)
        ends = np.searchsorted(node_P[order], nodes)
        return cls(np.searchsorted(parent_E, nodes), np.concatenate(edges), np.arange(1, count), ends, words[order], best_N)


@dataclass(frozen=True)
class Dictionary:
    """pronunciations: of each word, in the order of their numbers, in the letters of data/sounds.py."""

    pronunciations: Mapping[str, Sequence[str]]
    ngram: Ngram

    @cached_property
    def words(self) -> list[str]:
        return list(self.pronunciations)

    @cached_property
    def sounds(self) -> Sounds:
        """How its words and others sound."""
        return Sounds(self.pronunciations)

    @cached_property
    def tree(self) -> SoundTree:
        """Of the classes of a CTC head that tells the sounds apart."""
        return self.tree_of(self.pronunciations, self.ngram.unigram_V)

    @staticmethod
    def tree_of(pronunciations: Mapping[str, Sequence[str]], likely_V: Array) -> SoundTree:
        """The same of other words, or words that are likelier than they are."""
        known = {sound: i for i, sound in enumerate(ALPHABET)}
        rows = {(tuple(known[c] for c in one), i) for i, many in enumerate(pronunciations.values()) for one in many}
        spelt = sorted(rows)
        return SoundTree.build([one for one, _ in spelt], [word for _, word in spelt], likely_V)

    @classmethod
    def build(
        cls, sentences: Iterable[Sequence[str]], spoken: Sounds, *, least_words: int = 2, least: int = 2, also: Iterable[str] = ()
    ) -> Dictionary:
        """From sentences in words: those that come at least `least_words` times, and `also` others; see `estimate` for `least`."""
        lines = list(sentences)
        counts = Counter(word for line in lines for word in line)
        words = sorted({*(word for word, count in counts.items() if count >= least_words), *also})
        found = {word: tuple(one for one in spoken.of(word) if one) for word in words}
        found = {word: many for word, many in found.items() if many}
        number = {word: i for i, word in enumerate(found)}
        return cls(found, estimate(([number.get(word, -1) for word in line] for line in lines), len(found), least=least))

    def with_words(self, words: Iterable[str], spoken: Sounds) -> Dictionary:
        """The same with those words that it lacks, all of them as likely as unknown ones; what nobody can pronounce stays out."""
        lacking = {word: tuple(one for one in spoken.of(word) if one) for word in sorted(set(words) - self.pronunciations.keys())}
        more = {word: many for word, many in lacking.items() if many}
        return Dictionary({**self.pronunciations, **more}, self.ngram.widened(len(more))) if more else self

    def save(self, folder: Path) -> None:
        """Its two files. Raises OSError."""
        (folder / WORDS).write_text(sounds.dump(self.pronunciations), encoding="utf-8")
        (folder / LIKELY).write_bytes(save({name: np.ascontiguousarray(array) for name, array in self.ngram.arrays().items()}))

    @classmethod
    def read(cls, folder: Path) -> Dictionary:
        """What `save` wrote. Raises CheckpointError."""
        words = sounds.read(folder / WORDS, CheckpointError)
        strange = set("".join(one for many in words.values() for one in many)) - set(ALPHABET)
        if strange:
            raise CheckpointError(f"{folder / WORDS}: {min(strange)!r} is no sound; there are {ALPHABET}")
        try:
            ngram = Ngram.read(load_file(folder / LIKELY))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / LIKELY}: cannot be read ({first_line(error)})") from None
        if ngram.size != len(words):
            raise CheckpointError(f"{folder}: {LIKELY} is of {ngram.size} words, {WORDS} has {len(words)}: they do not belong together")
        return cls(words, ngram)
