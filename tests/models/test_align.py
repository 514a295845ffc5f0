"""Forced alignment against every alignment there is, and word times of the bundled clip."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from melcli import registry
from melcli.audio import io, vad
from melcli.audio.stretches import Speech
from melcli.models.align import align
from melcli.models.hints import Hints
from melcli.transcribe import Transcriber

CLIP = Path(registry.__file__).parent / "assets" / "clips" / "garden-rms.wav"


def best_by_hand(log_probs_TC: torch.Tensor, target: list[int]) -> list[tuple[int, int]] | None:
    """All ways of giving frames to states, the best of them."""
    frames, blank = len(log_probs_TC), log_probs_TC.shape[1] - 1
    found, best = None, -torch.inf
    for path in itertools.product(range(blank + 1), repeat=frames):
        said = [c for i, c in enumerate(path) if c != blank and (i == 0 or path[i - 1] != c)]
        score = float(sum(log_probs_TC[t, c] for t, c in enumerate(path)))
        if said == target and score > best:
            runs = [(c, [t for t, _ in group]) for c, group in itertools.groupby(enumerate(path), key=lambda x: x[1])]
            found, best = [(at[0], at[-1] + 1) for c, at in runs if c != blank], score
    return found


def test_it_finds_the_best_alignment() -> None:
    g = torch.Generator().manual_seed(0)
    targets = [[0], [0, 1], [1, 1], [0, 1, 0], [], [2, 2, 0]]
    log_probs = [torch.log_softmax(2 * torch.randn(5 + i % 2, 4, generator=g), -1) for i in range(len(targets))]
    assert align(log_probs, targets) == [best_by_hand(each, target) for each, target in zip(log_probs, targets, strict=True)]


def test_text_that_does_not_fit() -> None:
    log_probs = [torch.log_softmax(torch.randn(2, 4), -1), torch.log_softmax(torch.randn(1, 4), -1), torch.log_softmax(torch.randn(9, 4), -1)]
    assert align(log_probs, [[0, 1, 2], [0], [0]])[0] is None
    assert align(log_probs, [[1, 1], [0], [0]])[:2] == [None, [(0, 1)]]
    assert align([], []) == []


def test_nothing_to_align() -> None:
    log_probs_TC = torch.zeros(7, 4).log_softmax(-1)
    assert align([log_probs_TC], [[]]) == [[]]
    assert align([log_probs_TC, log_probs_TC[:1]], [[], []]) == [[], []]


@pytest.fixture(scope="module")
def found():
    transcriber = Transcriber.load("tiny-en", device="cpu", hints=Hints(word_times=True))
    cutter = Speech(16000, 18, vad.load())
    (piece,) = [*cutter.push(io.load(CLIP, 16000)), *cutter.finish()]
    (batch,) = transcriber.recogniser.recognise([piece.wave_S])
    return batch[0]


def test_words_of_a_clip(found) -> None:
    """Where the words are: read off the waveform of the clip, within 100 ms."""
    assert " ".join(word.word for word in found.words) == found.text == "she opened the door and looked out into the garden"
    assert all(a.start < a.end <= b.start for a, b in itertools.pairwise(found.words))
    assert found.words[0].start < 0.25 and found.words[-1].end > 2.5
