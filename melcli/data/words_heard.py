"""Which words of an utterance lie in its first seconds: what a model that goes on with it has heard, and what it has still to say."""

from __future__ import annotations

from typing import Any

from melcli.data.utterance import Utterance


def words_by_time(utterance: Utterance, seconds: float) -> int | None:
    """Words whose middle lies in the first seconds, from the times of words (`words`: [[word, start, end], ...]), which must be the words of the
    text; None where there are none."""
    times = utterance.extra.get("words")
    if not isinstance(times, list) or len(times) != len((utterance.text or "").split()) or not all(map(_timed, times)):
        return None
    return sum((start + end) / 2 < seconds + (utterance.start or 0.0) for _, start, end in times)


def _timed(word: Any) -> bool:
    return isinstance(word, list | tuple) and len(word) == 3 and all(isinstance(time, int | float) for time in word[1:])


def words_by_letters(utterance: Utterance, seconds: float) -> int | None:
    """The same as if all letters, and the spaces between words, took the same time; None where the duration is unknown."""
    if not utterance.duration:
        return None
    words = (utterance.text or "").split()
    reach = min(1.0, seconds / utterance.duration) * (sum(map(len, words)) + len(words))
    count = end = 0
    for word in words:
        if end + (len(word) + 1) / 2 >= reach:
            break
        count, end = count + 1, end + len(word) + 1
    return count
