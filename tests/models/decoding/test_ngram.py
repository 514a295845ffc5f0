"""The trigram model of words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from melcli.models.decoding.ngram import Ngram, estimate

WORDS = 12


def sentences(count: int, seed: int = 0) -> list[list[int]]:
    """From a chain in which three words follow each word, unequally often; some words are unknown."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sentence = [int(rng.integers(WORDS))]
        while rng.random() < 0.85:
            sentence.append(int((sentence[-1] * 5 + rng.choice([1, 2, 7], p=[0.7, 0.2, 0.1])) % (WORDS + 1)))
        found.append([-1 if word == WORDS else word for word in sentence])
    return found


@pytest.fixture(scope="module", params=[1, 2, 3])
def model(request: pytest.FixtureRequest) -> Ngram:
    return estimate(sentences(400), WORDS, least=request.param)


def all_of(model: Ngram, state: int) -> np.ndarray:
    """Probabilities of everything that may come next."""
    after = np.array([word for word in range(model.size + 3) if word != model.start])
    return np.exp(model.log_prob(np.full(len(after), state), after).astype(np.float64))


def test_probabilities_add_up_to_one_in_every_state(model: Ngram) -> None:
    states = range(model.size + 3 + len(model.pair_keys_S))
    assert len(model.pair_keys_S) > 10
    for state in states:
        if state != model.end:
            assert all_of(model, state).sum() == pytest.approx(1, abs=1e-3), state


def test_it_is_kneser_ney_where_nothing_is_dropped() -> None:
    """The interpolated formula word for word, from counts in dictionaries."""
    lines = sentences(300, seed=3)
    model = estimate(lines, WORDS, least=1)
    padded = [[model.start, *(word if word >= 0 else WORDS + 2 for word in line), model.end] for line in lines]
    counts: list[dict[tuple[int, ...], int]] = [{}, {}, {}, {}]
    for line in padded:
        for n in (2, 3):
            for i in range(len(line) - n + 1):
                gram = tuple(line[i : i + n])
                counts[n][gram] = counts[n].get(gram, 0) + 1
    lower: dict[tuple[int, ...], int] = {gram: count for gram, count in counts[2].items() if gram[0] == model.start}
    for gram in counts[3]:
        lower[gram[1:]] = lower.get(gram[1:], 0) + 1
    ones: dict[tuple[int, ...], int] = {}
    for gram in counts[2]:
        ones[gram[1:]] = ones.get(gram[1:], 0) + 1
    orders = [{}, ones, lower, counts[3]]

    def prob(context: tuple[int, ...], word: int) -> float:
        n = len(context) + 1
        seen = [sum(count == k for count in orders[n].values()) for k in (1, 2, 3, 4)]
        ratio = seen[0] / (seen[0] + 2 * seen[1]) if all(seen) else 0
        cut = [0, *(k - (k + 1) * ratio * seen[k] / seen[k - 1] for k in (1, 2, 3))] if all(seen) else [0, 0.5, 1.0, 1.5]
        here = {gram: count for gram, count in orders[n].items() if gram[:-1] == context}
        total = sum(here.values())
        below = prob(context[1:], word) if n > 1 else 1 / (WORDS + 2)
        if not total:
            return below
        taken = {gram: min(cut[min(count, 3)], count) for gram, count in here.items()}
        gram = (*context, word)
        return (here.get(gram, 0) - taken.get(gram, 0)) / total + sum(taken.values()) / total * below

    for line in padded[:40]:
        state = np.array([model.start])
        for before, word in itertools.pairwise(range(len(line))):
            context = tuple(line[max(0, before - 1) : before + 1])
            assert float(model.log_prob(state, np.array([line[word]]))[0]) == pytest.approx(np.log(prob(context, line[word])), abs=0.02)
            state = model.after(state, np.array([line[word]]))


def test_what_often_follows_is_likely() -> None:
    model = estimate([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 3], [4, 1, 3]] * 5, 5)
    state = model.after(model.after(np.array([model.start]), np.array([0])), np.array([1]))
    two, three, four = model.log_prob(np.repeat(state, 3), np.array([2, 3, 4]))
    assert two > three > four


def test_it_is_as_it_was_when_read_again(model: Ngram) -> None:
    again = Ngram.read(model.arrays())
    states = np.arange(model.size + 3 + len(model.pair_keys_S))
    for word in (0, 5, model.end):
        words = np.full(len(states), word)
        assert np.allclose(again.log_prob(states, words), model.log_prob(states, words), atol=0.01)
        assert (again.after(states, words) == model.after(states, words)).all()


@pytest.mark.parametrize("name", ["unigram", "backoff", "bigram", "bigram_count", "trigram_word", "pair_last", "pair_backoff"])
def test_tables_that_do_not_fit_together_are_an_error(model: Ngram, name: str) -> None:
    arrays = model.arrays()
    with pytest.raises(ValueError):
        Ngram.read({**arrays, name: arrays[name][:-1]})
    with pytest.raises(KeyError):
        Ngram.read({key: array for key, array in arrays.items() if key != name})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("bigram", lambda array: np.full_like(array, np.nan)),
        ("backoff", lambda array: np.full_like(array, np.inf)),
        ("unigram", lambda array: array[:, None]),
        ("trigram", lambda array: array[:, None]),
        ("bigram_count", lambda array: array + 2**30),
        ("trigram_word", lambda array: array.astype(np.int32) - 100),
    ],
)
def test_numbers_that_cannot_be_are_an_error(model: Ngram, name: str, change) -> None:
    arrays = model.arrays()
    with pytest.raises(ValueError):
        Ngram.read({**arrays, name: change(arrays[name])})


def test_hardly_any_text_is_enough() -> None:
    for lines in ([], [[0]], [[0, 1], [1, 0]]):
        model = estimate(lines, 2)
        assert np.isfinite(model.log_prob(np.array([model.start, 0, 1]), np.array([0, 1, model.end]))).all()


def test_little_text_gives_probabilities_too() -> None:
    """Of few words how often each count comes says nothing of discounts."""
    for seed in range(100):
        rng = np.random.default_rng(seed)
        lines = [rng.integers(10, size=rng.integers(1, 4)).tolist() for _ in range(200)]
        model = estimate(lines, 10, least=1)
        for state in (*range(10), model.start, *range(13, 13 + len(model.pair_keys_S))):
            found = all_of(model, state)
            assert np.isfinite(found).all() and found.sum() == pytest.approx(1, abs=1e-3), (seed, state)


def test_more_words_share_what_the_unknown_ones_had(model: Ngram) -> None:
    wide = Ngram.read(model.widened(3).arrays())
    assert wide.size == WORDS + 3
    after = np.arange(WORDS)
    pairs = model.pair_keys_S // (WORDS + 3), model.pair_last_S
    for state, wide_state in [(word, word) for word in range(WORDS)] + [(WORDS + 3 + i, WORDS + 6 + i) for i in range(len(pairs[0]))]:
        old = model.log_prob(np.full(WORDS, state), after)
        assert wide.log_prob(np.full(WORDS, wide_state), after) == pytest.approx(old, abs=5e-3)  # kept in sixteen bits
        assert 0.99 < all_of(wide, wide_state).sum() < 1.05
    new = np.exp(wide.log_prob(np.full(3, 0), np.arange(WORDS, WORDS + 3)))
    assert (new > 0).all() and np.ptp(new) == 0
    assert (wide.after(np.arange(WORDS), np.full(WORDS, WORDS)) == WORDS).all()  # a word in no sequence is a state by itself
