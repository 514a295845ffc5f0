"""Whose voice is taken: pairs that depend on seed and id alone, and recordings cut where it is quiet."""

from __future__ import annotations

import pytest
import torch

from melcli.data.utterance import Utterance
from melcli.scoring.tts import prompts


def utterance(name: str, speaker: str | None, duration: float = 5.0) -> Utterance:
    return Utterance(name, (f"/audio/{name}.wav",), f"text of {name}", duration, speaker)


MANY = {f"{speaker}{i}": utterance(f"{speaker}{i}", speaker) for speaker in "ab" for i in range(6)}


def test_pairs_are_of_one_speaker_and_never_oneself() -> None:
    pairs = prompts.other_recordings(MANY, 0)
    assert all(other is not None and other.id != name and other.speaker == MANY[name].speaker for name, other in pairs.items())
    assert pairs == prompts.other_recordings(dict(reversed(MANY.items())), 0)
    assert pairs != prompts.other_recordings(MANY, 1)


def test_recordings_of_an_unfit_length_are_no_prompts() -> None:
    some = {"a": utterance("a", "x"), "b": utterance("b", "x", 1.0), "c": utterance("c", "x", 30.0), "d": utterance("d", None)}
    found = prompts.other_recordings(some, 0)
    assert found["a"] is None and found["d"] is None and found["b"] == some["a"]


def test_the_cut_is_in_the_pause() -> None:
    wave_S = 0.1 * torch.randn(16000 * 6, generator=torch.Generator().manual_seed(0))
    wave_S[round(3.1 * 16000) : round(3.2 * 16000)] *= 0.001
    at = prompts.cut_place(wave_S, 16000)
    assert at is not None and 3.1 <= at <= 3.2
    assert prompts.cut_place(wave_S[: 16000 * 4], 16000) is None


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ("the old bridge was", 4),
        ("the cold bridge", 3),
        ("the hold bridge was closed four", 6),
        ("", 0),
        ("the old bridge was closed for repairs", 7),
    ],
)
def test_words_of_the_prompt(heard: str, expected: int) -> None:
    assert prompts.words_before("The old bridge was closed for repairs.", heard) == expected


def test_halves() -> None:
    one = Utterance("a", ("a.wav",), "one two three", 9.0, start=10.0, extra={"words": [["one", 10.5, 11], ["two", 12, 13.4], ["three", 14, 15]]})
    first, rest = prompts.halves(one, 3.0, 2)
    assert (first.start, first.end, first.text) == (10.0, 13.0, "one two") and (rest.start, rest.end, rest.text, rest.duration) == (
        13.0,
        None,
        "three",
        6.0,
    )
