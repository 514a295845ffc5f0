"""Intervals against theory, simulation and kaldialign; blocks; equal draws."""

from __future__ import annotations

import math
import time

import kaldialign
import numpy as np
import pytest

from melcli.scoring.bootstrap import Blocks, Interval, blocks, draw_sums, interval, intervals, rates
from melcli.scoring.wer import ErrorCounts
from tests.scoring.handmade import row


def counts(errors: np.ndarray, words: np.ndarray) -> list[ErrorCounts]:
    return [ErrorCounts(1, int(w), int(e), 0, 0, 5 * int(w), 2 * int(e)) for e, w in zip(errors, words, strict=True)]


def single(n: int) -> Blocks:
    return Blocks("utterance", np.arange(n), n)


def test_of_a_mean_it_is_the_textbook_interval() -> None:
    errors = np.random.default_rng(1).binomial(20, 0.1, 2000)
    wer, cer = intervals(counts(errors, np.full(2000, 20)), single(2000))
    half = 1.96 * 100 * errors.std() / 20 / math.sqrt(2000)
    mean = 100 * errors.mean() / 20
    assert wer is not None and cer is not None
    assert (wer.low, wer.high) == pytest.approx((mean - half, mean + half), abs=0.06 * half)
    assert (cer.low, cer.high) == pytest.approx((wer.low * 2 / 5, wer.high * 2 / 5))


def test_it_holds_the_truth_in_19_of_20_sets() -> None:
    generator = np.random.default_rng(2)
    held = 0
    for trial in range(200):
        words = generator.integers(3, 40, 300)
        errors = generator.binomial(words, generator.beta(1, 9, 300))  # one in ten on average, utterances unlike each other
        found = intervals(counts(errors, words), single(300), draws=400, seed=trial)[0]
        held += found is not None and found.low <= 10 <= found.high
    assert 182 <= held <= 198


def test_it_agrees_with_kaldialign() -> None:
    generator = np.random.default_rng(3)
    words = [[f"w{generator.integers(9)}" for _ in range(generator.integers(3, 20))] for _ in range(300)]
    heard = [[w if generator.random() > 0.2 else "x" for w in said] for said in words]
    theirs = kaldialign.bootstrap_wer_ci(words, heard, replications=2000)
    errors = np.array([sum(a != b for a, b in zip(said, other, strict=True)) for said, other in zip(words, heard, strict=True)])
    ours = intervals(counts(errors, np.array([len(said) for said in words])), single(300))[0]
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((100 * theirs["ci95min"], 100 * theirs["ci95max"]), abs=0.15)


def test_blocks_that_err_together_are_drawn_together() -> None:
    errors = np.repeat(np.random.default_rng(4).integers(0, 10, 20), 50)  # 20 speakers, each with one rate
    rows = [row(str(i), "a", "b", speaker=f"s{i // 50}") for i in range(1000)]
    drawn = blocks(rows)
    assert (drawn.unit, drawn.count) == ("speaker", 20)
    by_speaker, alone = (intervals(counts(errors, np.full(1000, 10)), each)[0] for each in (drawn, single(1000)))
    assert by_speaker is not None and alone is not None
    assert by_speaker.high - by_speaker.low > 4 * (alone.high - alone.low)


def test_which_blocks() -> None:
    assert blocks([row(str(i), "a", "b", parent_id=str(i // 2), speaker=str(i)) for i in range(20)]).unit == "call"
    assert blocks([row(str(i), "a", "b", speaker="one" if i else None) for i in range(20)]).unit == "utterance"
    assert blocks([row(str(i), "a", "b", speaker=str(i % 4)) for i in range(20)]).unit == "utterance"  # four are too few


def test_columns_are_drawn_together_and_the_seed_decides() -> None:
    table_UK = np.random.default_rng(5).integers(0, 9, (50, 1)) * np.array([[1.0, 3.0]])
    sums_DK = draw_sums(table_UK, single(50), 100, seed=7)
    assert np.array_equal(3 * sums_DK[:, 0], sums_DK[:, 1]) and sums_DK.shape == (100, 2)
    assert np.array_equal(sums_DK, draw_sums(table_UK, single(50), 100, seed=7))
    assert not np.array_equal(sums_DK, draw_sums(table_UK, single(50), 100, seed=8))


def test_too_little_has_no_interval() -> None:
    assert intervals([ErrorCounts(1, 3, 1)], single(1)) == (None, None) == intervals([], single(0))
    assert intervals([ErrorCounts(1, ins=2), ErrorCounts(1, ins=1)], single(2)) == (None, None)
    assert interval(rates([ErrorCounts(1, 2, 1)] * 3, single(3))[0]) == Interval(50, 50)


def test_a_hundred_thousand_utterances_take_seconds() -> None:
    generator = np.random.default_rng(6)
    many = counts(generator.poisson(1.0, 100_000), generator.integers(5, 30, 100_000))
    began = time.process_time()
    found = intervals(many, single(100_000), draws=1000)[0]
    assert found is not None and found.high - found.low < 0.2
    assert time.process_time() - began < 10
