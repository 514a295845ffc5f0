"""Search for the words of a dictionary in what a CTC head hears, by sounds and by which words follow each other.

A prefix search (Hannun et al. 2014, arXiv 1408.2873) through the tree of all pronunciations, whose hypotheses are the words so far and a node of the
tree. Within a word the likeliest word that can still be meant stands for it. Hypotheses that nothing can tell apart any more, at the same node after
the same two words, are one: the better.
Shapes: T frames, C classes (the blank is the last), H hypotheses, E their extensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melcli.models.decoding.dictionary import Dictionary
from melcli.models.decoding.ngram import Array

NEVER = np.float32(-1e30)
UNHEARD = -9.0  # log probability below which a class is not there
SILENT = -0.02  # log probability of the blank above which nothing else is there


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a hypothesis is worth: the CTC head's log probability + language_weight * the word model's + word_bonus for each word.

    hotword_bonus: what a hotword is worth more. width: hypotheses that are followed; margin: those that are worth so much less than the best are
    given up.
    """

    width: int = 150
    language_weight: float = 0.9
    word_bonus: float = -0.5
    margin: float = 20.0
    hotword_bonus: float = 5.0


class _Histories:
    """The words so far, as a tree: of each history the one before it, its last word and the state of the word model."""

    def __init__(self, start: int) -> None:
        self.before, self.word, self.state = [-1], [-1], [start]
        self.number: dict[tuple[int, int], int] = {}
        self._states = np.array(self.state)

    def after(self, history_N: Array, word_N: Array, state_N: Array) -> Array:
        """The histories [N] with one word more each, and the states they lead to."""
        found = []
        for history, word, state in zip(history_N.tolist(), word_N.tolist(), state_N.tolist(), strict=True):
            number = self.number.setdefault((history, word), len(self.before))
            if number == len(self.before):
                self.before.append(history)
                self.word.append(word)
                self.state.append(state)
            found.append(number)
        return np.array(found, np.int64)

    def states(self, history_N: Array) -> Array:
        if len(self._states) < len(self.state):
            self._states = np.array(self.state)
        return self._states[history_N]

    def words(self, history: int) -> list[int]:
        found = []
        while history > 0:
            found.append(self.word[history])
            history = self.before[history]
        return found[::-1]


@dataclass(slots=True)
class _Beam:
    """Hypotheses: the words so far, the node, the class that was said last; log probabilities of ending in a blank or in that class; and
    what the words are worth: word model, bonus, and the likeliest word below the node. All [H]."""

    history: Array
    node: Array
    last: Array
    blank: Array
    said: Array
    worth: Array

    def take(self, chosen: Array) -> _Beam:
        return _Beam(*(getattr(self, name)[chosen] for name in self.__slots__))


class DictionarySearch:
    """The words in a CTC head's log probabilities.

    hotwords: words that are likely to be said. Those that the dictionary lacks sound as their spelling suggests, and are as rare as its rarest.
    """

    def __init__(self, dictionary: Dictionary, spelling: Spelling | None = None, hotwords: Sequence[str] = ()) -> None:
        self.ngram = dictionary.ngram
        self.spelling = spelling or Spelling()
        self.words, self.tree = dictionary.words, dictionary.tree
        self.rarest = float(self.ngram.unigram_V[: self.ngram.size].min())
        self.bonus_V = np.zeros(len(self.words), np.float32)
        if hotwords:
            unknown = {word: dictionary.sounds.of(word) for word in hotwords if word not in dictionary.pronunciations}
            spoken = {**dictionary.pronunciations, **{word: many for word, many in unknown.items() if many[0]}}
            self.words = list(spoken)
            self.bonus_V = np.where(np.isin(self.words, list(hotwords)), self.spelling.hotword_bonus, 0).astype(np.float32)
            likely_V = np.full(len(spoken), self.rarest, np.float32)
            likely_V[: self.ngram.size] = self.ngram.unigram_V[: self.ngram.size]
            self.tree = dictionary.tree_of(spoken, likely_V + self.bonus_V / max(self.spelling.language_weight, 1e-3))
        tree = self.tree
        self.hope_N = self.spelling.language_weight * tree.best_N
        self.edges_N, self.words_N = np.diff(tree.edge_from_N1), np.diff(tree.word_from_N1)

    def __call__(self, log_probs_TC: Array) -> list[str]:
        """The words of the best hypothesis; none where nothing is heard."""
        histories = _Histories(self.ngram.start)
        zero = np.zeros(1, np.float32)
        beam = _Beam(np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, -1), zero, zero + NEVER, zero + self.hope_N[0])
        for frame_C in log_probs_TC:
            blank = frame_C[-1]
            if blank > SILENT:
                beam.blank = np.logaddexp(beam.blank, beam.said) + blank
                beam.said = np.full_like(beam.said, NEVER)
                continue
            either_H = np.logaddexp(beam.blank, beam.said)
            again_H = beam.said + np.where(beam.last >= 0, frame_C[beam.last], 0)
            stayed = _Beam(beam.history, beam.node, beam.last, either_H + blank, again_H, beam.worth)
            floor = float((np.logaddexp(stayed.blank, stayed.said) + stayed.worth).max()) - self.spelling.margin
            further = self._further(beam, either_H, frame_C, floor)
            onward = self._onward(beam, either_H, frame_C, floor, histories)
            beam = self._merge([stayed, further, onward], histories)
        return self._finish(beam, histories)

    def _further(self, beam: _Beam, either_H: Array, frame_C: Array, floor: float) -> _Beam:
        """Each hypothesis with one sound more of a word."""
        tree = self.tree
        source_E, edge_E = _spread(tree.edge_from_N1[beam.node], self.edges_N[beam.node])
        heard = frame_C[tree.edge_sound_E[edge_E]] > UNHEARD
        source_E, edge_E = source_E[heard], edge_E[heard]
        sound_E, node_E = tree.edge_sound_E[edge_E], tree.edge_node_E[edge_E]
        said_E = _said(beam, either_H, source_E, sound_E, frame_C)
        worth_E = beam.worth[source_E] - self.hope_N[beam.node[source_E]] + self.hope_N[node_E]
        good = said_E + worth_E > floor
        return _entered(beam.history[source_E][good], node_E[good], sound_E[good], said_E[good], worth_E[good])

    def _onward(self, beam: _Beam, either_H: Array, frame_C: Array, floor: float, histories: _Histories) -> _Beam:
        """Each hypothesis that is at the end of a word with that word, and the first sound of another."""
        tree = self.tree
        source_W, at_W = _spread(tree.word_from_N1[beam.node], self.words_N[beam.node])
        word_W, node_W = tree.word_P[at_W], beam.node[source_W]
        state_W = histories.states(beam.history[source_W])
        worth_W = beam.worth[source_W] - self.hope_N[node_W] + self._likely(state_W, word_W)
        firsts = slice(int(tree.edge_from_N1[0]), int(tree.edge_from_N1[1]))
        heard = frame_C[tree.edge_sound_E[firsts]] > UNHEARD
        sound_R, node_R = tree.edge_sound_E[firsts][heard], tree.edge_node_E[firsts][heard]
        of_E, first_E = np.repeat(np.arange(len(word_W)), len(sound_R)), np.tile(np.arange(len(sound_R)), len(word_W))
        said_E = _said(beam, either_H, source_W[of_E], sound_R[first_E], frame_C)
        worth_E = worth_W[of_E] + self.hope_N[node_R[first_E]]
        good = said_E + worth_E > floor
        of_E, first_E = of_E[good], first_E[good]
        used, which_E = np.unique(of_E, return_inverse=True)
        after = self._after(state_W[used], word_W[used])
        history_E = histories.after(beam.history[source_W[used]], word_W[used], after)[which_E]
        return _entered(history_E, node_R[first_E], sound_R[first_E], said_E[good], worth_E[good])

    def _merge(self, parts: Sequence[_Beam], histories: _Histories) -> _Beam:
        """Ways to the same hypothesis as one, then the best of those that go on alike, then the best of all."""
        both = _Beam(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Beam.__slots__))
        nodes = len(self.hope_N)
        key = both.history * nodes + both.node
        order = np.argsort(key, kind="stable")
        firsts = np.flatnonzero(np.diff(key[order], prepend=-1))
        merged = both.take(order[firsts])
        merged.blank, merged.said = (_add_up(values[order], firsts) for values in (both.blank, both.said))
        total = np.logaddexp(merged.blank, merged.said) + merged.worth
        ranked = np.argsort(-total, kind="stable")
        ranked = ranked[total[ranked] > total[ranked[0]] - self.spelling.margin]
        _, first = np.unique(histories.states(merged.history[ranked]) * nodes + merged.node[ranked], return_index=True)
        return merged.take(ranked[np.sort(first)[: self.spelling.width]])

    def _finish(self, beam: _Beam, histories: _Histories) -> list[str]:
        """The words of the best that is at the end of one; beginnings of words are left out where there is nothing else."""
        tree, weight = self.tree, self.spelling.language_weight
        worth_H = np.logaddexp(beam.blank, beam.said) + beam.worth - self.hope_N[beam.node]
        source_W, at_W = _spread(tree.word_from_N1[beam.node], self.words_N[beam.node])
        word_W, state_W = tree.word_P[at_W], histories.states(beam.history[source_W])
        score_W = worth_H[source_W] + self._likely(state_W, word_W) + weight * self._ends(self._after(state_W, word_W))
        rest = np.flatnonzero(beam.node == 0) if len(word_W) or (beam.node == 0).any() else np.arange(len(beam.node))
        score_R = worth_H[rest] + weight * self._ends(histories.states(beam.history[rest]))
        best = int(np.concatenate([score_W, score_R]).argmax())
        if best < len(word_W):
            found = [*histories.words(int(beam.history[source_W[best]])), int(word_W[best])]
        else:
            found = histories.words(int(beam.history[rest[best - len(word_W)]]))
        return [self.words[word] for word in found]

    def _ends(self, state_N: Array) -> Array:
        """Log probability that a sentence ends there."""
        return self.ngram.log_prob(state_N, np.full(len(state_N), self.ngram.end))

    def _likely(self, state_N: Array, word_N: Array) -> Array:
        """What each word is worth in its state."""
        known_N = word_N < self.ngram.size
        log_prob_N = np.where(known_N, self.ngram.log_prob(state_N, np.where(known_N, word_N, 0)), self.rarest)
        return self.spelling.language_weight * log_prob_N + self.spelling.word_bonus + self.bonus_V[word_N]

    def _after(self, state_N: Array, word_N: Array) -> Array:
        return self.ngram.after(state_N, np.where(word_N < self.ngram.size, word_N, self.ngram.unknown))


def _said(beam: _Beam, either_H: Array, source_E: Array, sound_E: Array, frame_C: Array) -> Array:
    """Log probability of the sound in this frame after those hypotheses: after itself it needs a blank."""
    return np.where(beam.last[source_E] == sound_E, beam.blank[source_E], either_H[source_E]) + frame_C[sound_E]


def _entered(history_E: Array, node_E: Array, sound_E: Array, said_E: Array, worth_E: Array) -> _Beam:
    """Hypotheses that end in a sound."""
    return _Beam(history_E, node_E, sound_E, np.full_like(said_E, NEVER), said_E, worth_E)


def _spread(first_H: Array, count_H: Array) -> tuple[Array, Array]:
    """Of each hypothesis its own entries, from `first` on so many: whose they are, and where."""
    of_E = np.repeat(np.arange(len(count_H)), count_H)
    return of_E, np.arange(len(of_E)) - np.repeat(np.cumsum(count_H) - count_H - first_H, count_H)


def _add_up(values: Array, firsts: Array) -> Array:
    """Log of the sum of exponentials over stretches that begin at `firsts`."""
    most = np.maximum.reduceat(values, firsts)
    lengths = np.diff(firsts, append=len(values))
    return most + np.log(np.add.reduceat(np.exp(values - np.repeat(most, lengths)), firsts))
