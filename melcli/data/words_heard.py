"""Which words of an utterance lie in its first seconds: what a model that goes on with it has heard, and what it has still to say.

Both ways give None where they cannot know, and of a text of less than two words, such as one without spaces between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from melcli.data.utterance import Utterance

SLACK = 0.5  # seconds that times may lie beside the utterance
LATEST = 1e7  # seconds, four months: no recording has a word after that


def words_by_time(utterance: Utterance, seconds: float) -> int | None:
    """Words whose middle lies in the first seconds, from the times of words, which must be the words of the text: `words`, a list of
    [word, start, end] or of objects with these names, in seconds from the beginning of the file."""
    given, count = utterance.extra.get("words"), len((utterance.text or "").split())
    if not isinstance(given, list) or len(given) != count or count < 2:
        return None
    times = [(word.get("start"), word.get("end")) if isinstance(word, Mapping) else _last_two(word) for word in given]
    if not all(map(_in_order, times)) or not _within(utterance, times):
        return None
    return sum((start + end) / 2 < seconds + (utterance.start or 0.0) for start, end in times)


def words_by_letters(utterance: Utterance, seconds: float) -> int | None:
    """The same as if all letters, and the spaces between words, took the same time, and so from the duration."""
    words = (utterance.text or "").split()
    if not utterance.duration or len(words) < 2:
        return None
    reach = min(1.0, seconds / utterance.duration) * (sum(map(len, words)) + len(words))
    count = end = 0
    for word in words:
        if end + (len(word) + 1) / 2 >= reach:
            break
        count, end = count + 1, end + len(word) + 1
    return count


def _within(utterance: Utterance, times: Sequence[tuple[float, float]]) -> bool:
    """Whether words begin one after another, in the utterance: times from another beginning, or of no meaning, tell nothing."""
    begins = utterance.start or 0.0
    ends = begins + utterance.duration if utterance.duration else LATEST
    in_order = all(one[0] <= other[0] for one, other in pairwise(times)) and times[0][0] < times[-1][0]
    return in_order and begins - SLACK <= times[0][0] and times[-1][1] <= ends + SLACK


def _last_two(word: Any) -> tuple[Any, Any]:
    return (word[1], word[2]) if isinstance(word, list | tuple) and len(word) == 3 else (None, None)


def _in_order(times: tuple[Any, Any]) -> bool:
    """Whether these are a start and an end."""
    numbers = all(isinstance(time, int | float) and not isinstance(time, bool) for time in times)
    return numbers and 0 <= times[0] <= times[1] <= LATEST
