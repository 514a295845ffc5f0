"""Recordings cut into pieces: by the VAD, with the ends where the sound is, and whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from melcli import registry
from melcli.audio import io, vad
from melcli.audio.segment import Cutter, Piece, Whole, frame_levels
from melcli.audio.stretches import AROUND_SECONDS, Speech

RATE = 16000
CLIPS = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))


@pytest.fixture(scope="module")
def network() -> vad.Network:
    return vad.load()


def cut(cutter: Cutter, wave_S: torch.Tensor, block: int = 30 * RATE) -> list[Piece]:
    return [*(piece for part in wave_S.split(block) for piece in cutter.push(part)), *cutter.finish()]


def trimmed(clip: Path) -> torch.Tensor:
    """A clip from its first to its last 10 ms that are no more than 35 dB below the loudest."""
    wave_S = io.load(clip, RATE)
    levels = frame_levels(wave_S, RATE, 0.01)
    loud = torch.nonzero(levels > levels.max() - 35)[:, 0]
    return wave_S[int(loud[0]) * 160 : (int(loud[-1]) + 1) * 160]


def assembled(gaps: list[float], noise: float = 0.0) -> tuple[torch.Tensor, list[tuple[float, float]]]:
    """The bundled clips in turn with gaps before and between them, and where each begins and ends."""
    g = torch.Generator().manual_seed(3)
    parts, times, at = [], [], 0
    for i, gap in enumerate(gaps):
        speech_S = trimmed(CLIPS[i % len(CLIPS)])
        parts += [torch.zeros(round(gap * RATE)), speech_S]
        at += round(gap * RATE)
        times.append((at / RATE, (at + len(speech_S)) / RATE))
        at += len(speech_S)
    wave_S = torch.cat([*parts, torch.zeros(RATE)])
    return wave_S + noise * torch.randn(len(wave_S), generator=g), times


@pytest.mark.parametrize("noise", [0.0, 3e-4, 2e-3], ids=["digital silence", "-70 dBFS", "-54 dBFS"])
def test_ends_lie_within_50_ms(network: vad.Network, noise: float) -> None:
    wave_S, times = assembled([0.8, 1.0, 2.0, 0.7, 5.0, 1.3], noise)
    pieces = cut(Speech(RATE, 18, network), wave_S)
    assert len(pieces) == len(times)
    errors = [abs(a - b) for p, t in zip(pieces, times, strict=True) for a, b in ((p.start, t[0]), (p.end, t[1]))]
    assert max(errors) <= 0.05, errors


def test_blocks_change_nothing(network: vad.Network) -> None:
    wave_S, _ = assembled([0.8, 1.0, 2.0, 0.7])
    whole = cut(Speech(RATE, 3, network), wave_S)
    for block in (1000, 16000, 77777):
        parts = cut(Speech(RATE, 3, network), wave_S, block)
        assert [(p.start, p.end) for p in parts] == [(p.start, p.end) for p in whole]
        assert all(torch.equal(a.wave_S, b.wave_S) for a, b in zip(parts, whole, strict=True))


def test_samples_are_those_of_the_recording_with_a_little_around(network: vad.Network) -> None:
    wave_S, _ = assembled([0.8, 1.0, 2.0])
    for piece in cut(Speech(RATE, 18, network), wave_S, 16000):
        first = round((piece.start - piece.before) * RATE)
        assert 0 < piece.before <= AROUND_SECONDS + 1e-6
        assert torch.equal(piece.wave_S, wave_S[first : first + len(piece.wave_S)])
        assert len(piece.wave_S) / RATE >= piece.end - piece.start


@pytest.mark.parametrize("most", [2.0, 4.0])
def test_what_is_too_long_is_cut_and_nothing_is_lost_or_heard_twice(network: vad.Network, most: float) -> None:
    wave_S = torch.cat([trimmed(CLIPS[i % len(CLIPS)]) for i in range(8)])
    pieces = cut(Speech(RATE, most, network), wave_S, 16000)
    assert max(len(p.wave_S) for p in pieces) <= most * RATE
    assert all(a.end <= b.start for a, b in itertools.pairwise(pieces))
    ends = [round((p.start - p.before) * RATE) for p in pieces]
    assert all(first + len(p.wave_S) <= following for first, p, following in zip(ends, pieces, ends[1:], strict=False))
    assert sum(p.end - p.start for p in pieces) > 0.9 * len(wave_S) / RATE


def breathing(gap: float) -> torch.Tensor:
    """The bundled clips with a gap before each, and in it 0.45 s of noise at either end: sound that is no speech."""
    g = torch.Generator().manual_seed(0)
    breath_S, parts = 10 ** (-45 / 20) * torch.randn(round(0.45 * RATE), generator=g), []
    for clip in CLIPS * 2:
        parts += [torch.zeros(round(gap * RATE)), breath_S, trimmed(clip), breath_S]
    wave_S = torch.cat(parts)
    return wave_S + 10 ** (-70 / 20) * torch.randn(len(wave_S), generator=g)


def close(gap: float) -> torch.Tensor:
    """The bundled clips one after the other, so near that a pause seems a closure inside a word."""
    wave_S = torch.cat([part for clip in CLIPS * 3 for part in (torch.zeros(round(gap * RATE)), trimmed(clip))])
    return wave_S + 10 ** (-70 / 20) * torch.randn(len(wave_S), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("made", "gap", "most"), [(breathing, 1.0, 2.0), (breathing, 1.0, 3.3), (breathing, 0.1, 2.7), (close, 0.11, 2.0), (close, 0.11, 6.3)]
)
def test_ends_that_are_moved_make_no_piece_too_long_nor_two_overlap(
    network: vad.Network, made: Callable[[float], torch.Tensor], gap: float, most: float
) -> None:
    wave_S = made(gap)
    pieces = cut(Speech(RATE, most, network), wave_S)
    assert max(len(p.wave_S) for p in pieces) <= most * RATE
    assert all(a.end <= b.start for a, b in itertools.pairwise(pieces))
    assert all(p.start < p.end and p.before >= 0 for p in pieces)
    parts = cut(Speech(RATE, most, network), wave_S, 5000)
    assert [(p.start, p.end, len(p.wave_S)) for p in parts] == [(p.start, p.end, len(p.wave_S)) for p in pieces]


def test_nothing_is_no_piece(network: vad.Network) -> None:
    assert cut(Speech(RATE, 18, network), torch.zeros(5 * RATE)) == []
    assert cut(Speech(RATE, 18, network), torch.zeros(0)) == []
    speech_S = trimmed(CLIPS[0])
    assert cut(Speech(RATE, 18, network), speech_S * 1e-4 / speech_S.abs().max()) == []  # the energy gate


def test_whole_recordings_are_cut_where_they_are_quietest() -> None:
    wave_S = 0.1 * torch.randn(50 * RATE, generator=torch.Generator().manual_seed(0))
    wave_S[round(12.4 * RATE) : round(12.7 * RATE)] = 0
    for block in (1000, 50 * RATE):
        pieces = cut(Whole(RATE, 18), wave_S, block)
        assert 12.4 < pieces[0].end < 12.7 and pieces[-1].end == 50
        assert all(a.end == b.start for a, b in itertools.pairwise(pieces)) and pieces[0].start == 0
        assert max(len(p.wave_S) for p in pieces) <= 18 * RATE
        assert torch.equal(torch.cat([p.wave_S for p in pieces]), wave_S)
    (silent,) = cut(Whole(RATE, 18), torch.zeros(RATE))
    assert (silent.start, silent.end, silent.wave_S) == (0, 1, None)
