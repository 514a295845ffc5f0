"""Words of a dictionary in what a CTC head hears: the dictionary, and the search against all that there is."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from melcli.data.sounds import ALPHABET, Sounds
from melcli.errors import CheckpointError
from melcli.models.decoding.dictionary import LIKELY, WORDS, Dictionary
from melcli.models.decoding.dictionary_search import DictionarySearch, Spelling

SPOKEN = Sounds({"a": ("ʌ",), "at": ("æt",), "cat": ("kæt",), "act": ("ækt",), "tack": ("tæk",), "kit": ("kɪt",), "kitt": ("kɪt",), "i": ("I", "i")})
TEXTS = ["a cat", "a cat at a kit", "act at a tack", "kit a cat", "i act", "i i at", "kitt"]


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    return Dictionary.build([text.split() for text in TEXTS], SPOKEN, least_words=1, least=1)


def frames(sounds: str, likely: float = 8.0, seed: int | None = None, spread: float = 1.0) -> np.ndarray:
    """Log probabilities [T, C] of these sounds, `_` being the blank, in noise."""
    rng = np.random.default_rng(seed)
    logits = spread * rng.standard_normal((len(sounds), len(ALPHABET) + 1)) if seed is not None else np.zeros((len(sounds), len(ALPHABET) + 1))
    for row, sound in zip(logits, sounds, strict=True):
        row[ALPHABET.find(sound) if sound != "_" else -1] += likely
    return torch.log_softmax(torch.tensor(logits), -1).float().numpy()


@pytest.mark.parametrize(
    ("sounds", "words"),
    [
        ("_kk_æ_tt_", "cat"),
        ("_ʌ_kæt_", "a cat"),
        ("ʌkæt", "a cat"),
        ("_kɪt_ʌ_kæt", "kit a cat"),
        ("I_ækt_", "i act"),
        ("i_i_æt", "i i at"),
        ("_____", ""),
        ("_kæ_", ""),
    ],
)
def test_words_by_their_sounds(dictionary: Dictionary, sounds: str, words: str) -> None:
    assert " ".join(DictionarySearch(dictionary)(frames(sounds))) == words


def test_the_likelier_of_words_that_sound_alike(dictionary: Dictionary) -> None:
    assert DictionarySearch(dictionary)(frames("_kɪt_ʌ_kæt")) == ["kit", "a", "cat"]
    assert DictionarySearch(dictionary)(frames("_kɪt_")) == ["kitt"]  # alone it is the only one that a sentence consists of


@pytest.mark.parametrize("seed", range(12))
def test_it_finds_the_best_of_all_sentences(seed: int) -> None:
    """Every sentence of up to three words, by its CTC probability in full and the word model; one pronunciation each."""
    spoken = Sounds({word: many[:1] for word, many in SPOKEN.words.items()})
    dictionary = Dictionary.build([text.split() for text in TEXTS], spoken, least_words=1, least=1)
    spelling = Spelling(width=2000, language_weight=0.7, word_bonus=0.3, margin=60.0)
    rng = np.random.default_rng(seed)
    noisy = frames("".join(rng.choice(list("_ʌkætɪI"), 9)), likely=2.5, seed=seed)
    noisy[:, :-1] = np.where(np.isin(list(ALPHABET), list("ʌkætɪI")), noisy[:, :-1], -30)
    ngram, number = dictionary.ngram, {word: i for i, word in enumerate(dictionary.words)}

    def worth(words: tuple[str, ...]) -> float:
        target = [ALPHABET.index(c) for word in words for c in spoken.of(word)[0]]
        log_probs = torch.from_numpy(noisy)[:, None]
        heard = -torch.nn.functional.ctc_loss(
            log_probs, torch.tensor([target]), torch.tensor([len(noisy)]), torch.tensor([len(target)]), blank=len(ALPHABET), reduction="sum"
        )
        state, score = np.array([ngram.start]), float(heard)
        for word in (*(number[w] for w in words), ngram.end):
            score += spelling.language_weight * float(ngram.log_prob(state, np.array([word]))[0])
            state = ngram.after(state, np.array([word]))
        return score + spelling.word_bonus * len(words)

    every = [words for count in (1, 2, 3) for words in itertools.product(dictionary.words, repeat=count)]
    scores = {words: worth(words) for words in every}
    found = tuple(DictionarySearch(dictionary, spelling)(noisy))
    assert len(found) > 3 or scores.get(found, -np.inf) == pytest.approx(max(scores.values()), abs=1e-3)


def test_hotwords_are_heard_rather_than_others(dictionary: Dictionary) -> None:
    heard = frames("_ʌ_kæt_", likely=3)
    assert DictionarySearch(dictionary)(heard) == ["a", "cat"]
    assert DictionarySearch(dictionary, hotwords=["tack"])(frames("_ʌ_tæk_", likely=3)) == ["a", "tack"]
    assert DictionarySearch(dictionary)(frames("_ʌ_kæb_", likely=12)) != ["a", "cab"]
    found = DictionarySearch(dictionary, hotwords=["cab", "elephant", "猫"])
    assert found(frames("_ʌ_kæb_", likely=12)) == ["a", "cab"]
    assert found(heard) == ["a", "cat"]


def test_it_is_as_it_was_when_read_again(dictionary: Dictionary, tmp_path: Path) -> None:
    dictionary.save(tmp_path)
    again = Dictionary.read(tmp_path)
    assert again.pronunciations == dictionary.pronunciations
    heard = frames("_kɪt_ʌ_kæt_i_ækt", likely=3, seed=4)
    assert DictionarySearch(again)(heard) == DictionarySearch(dictionary)(heard)


def test_rare_words_are_left_out_but_for_those_asked_for() -> None:
    lines = [text.split() for text in TEXTS]
    assert set(Dictionary.build(lines, SPOKEN, least_words=2).words) == {"a", "at", "cat", "act", "i", "kit"}
    assert set(Dictionary.build(lines, SPOKEN, least_words=3, also=["tack"]).words) == {"a", "at", "cat", "i", "tack"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / WORDS).unlink(), WORDS),
        (lambda folder: (folder / LIKELY).unlink(), LIKELY),
        (lambda folder: (folder / LIKELY).write_bytes((folder / LIKELY).read_bytes()[:200]), LIKELY),
        (lambda folder: (folder / WORDS).write_text("cat\tk?t\n"), "is no sound"),
        (lambda folder: (folder / WORDS).write_text("cat\tkæt\n", encoding="utf-8"), "do not belong together"),
    ],
)
def test_a_damaged_one_is_an_error_of_one_line(dictionary: Dictionary, tmp_path: Path, change, said: str) -> None:
    dictionary.save(tmp_path)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=said) as raised:
        Dictionary.read(tmp_path)
    assert "\n" not in str(raised.value)
