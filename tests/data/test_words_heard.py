"""Which words are over when the prompt is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from melcli.audio import io
from melcli.data.digit_strings import digit_strings
from melcli.data.load import load_utterance
from melcli.data.utterance import Utterance
from melcli.data.words_heard import words_by_letters, words_by_time

TIMES = [["one", 10.5, 11], ["two", 12, 13.4], ["three", 14, 15]]


def timed(words: object) -> Utterance:
    return Utterance("a", ("a.wav",), "one two three", 9.0, start=10.0, extra={"words": words})


def test_by_their_times() -> None:
    assert [words_by_time(timed(TIMES), seconds) for seconds in (0.0, 2.5, 3.0, 9.0)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "words",
    [
        None,
        TIMES[:2],
        [{"word": "one"}, *TIMES[1:]],
        [["one", "a", "b"], *TIMES[1:]],
        [["one", 1], *TIMES[1:]],
        [["one", float("nan"), 11], *TIMES[1:]],
        [["one", True, 11], *TIMES[1:]],
        [["one", 10**400, 10**400], *TIMES[1:]],
        [["one", 11, 10.5], *TIMES[1:]],
        [["one", 10, 10], ["two", 10, 10], ["three", 10, 10]],
        [["one", 15, 16], *TIMES[1:]],  # not in this order
        [["one", 0.5, 1], ["two", 2, 3.4], ["three", 4, 5]],  # from the utterance's own beginning
        [*TIMES[:2], ["three", 24, 25]],
    ],
)
def test_what_are_no_times_of_these_words(words: object) -> None:
    assert words_by_time(timed(words), 3.0) is None


def test_as_transcribe_writes_them() -> None:
    named = [dict(zip(("word", "start", "end"), one, strict=True)) for one in TIMES]
    assert words_by_time(timed(named), 3.0) == words_by_time(timed(TIMES), 3.0) == 2


def test_by_letters() -> None:
    assert [words_by_letters(timed(None), seconds) for seconds in (0.0, 1.2, 1.4, 3.8, 3.9, 7.0, 7.1, 20.0)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert words_by_letters(Utterance("a", ("a.wav",), "one two"), 3.0) is None
    for text in (None, "", "one", "一二三四五六"):  # one word says nothing of where in it the cut is
        assert words_by_letters(Utterance("a", ("a.wav",), text, 3.0, extra={"words": [["one", 0, 1]]}), 1.0) is None
        assert words_by_time(Utterance("a", ("a.wav",), text, 3.0, extra={"words": [["one", 0, 1]]}), 1.0) is None


def test_strings_of_digits_know_when_each_is_said(shared_data: Path) -> None:
    """Their times are where the sound is: nothing is between them."""
    rate = 16000
    clips = [
        Utterance(f"{i}", (str(path),), "seven", io.probe(path).duration, "george")
        for i, path in enumerate(sorted((shared_data / "digits/audio/george").glob("7_george_*.flac"))[:8])
    ]
    (one,) = digit_strings(clips, 1, 5, 5, 1)
    wave_S = load_utterance(one, rate)
    times = one.extra["words"]
    assert [word for word, _, _ in times] == (one.text or "").split() and times[-1][2] == pytest.approx(one.duration, abs=1e-3)
    for (_, _, end), (_, start, _) in itertools.pairwise(times):
        gap = wave_S[round(end * rate) + 200 : round(start * rate) - 200]
        assert len(gap) > 0 and float(gap.abs().max()) < 1e-3
    assert all(float(wave_S[round(start * rate) : round(end * rate)].abs().max()) > 1e-2 for _, start, end in times)
