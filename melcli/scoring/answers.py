"""Answers to questions: right or wrong, and how sure the share of right ones is.

    contained     the words of an accepted answer stand in the reply, in a row: "it is the Amazon river" answers "Amazon", "party" not "art"
    exact         the reply is an accepted answer and nothing else

Both sides are put into the words that are said ("1969" and "nineteen sixty-nine" agree), lower case, without accents, punctuation and the articles
a, an, the. Containment is how spoken question answering is published (Nachmani et al., arXiv 2305.15255); it favours long replies, which is why the
exact share stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from melcli.errors import ManifestError
from melcli.scoring import bootstrap
from melcli.scoring.bootstrap import Interval
from melcli.scoring.normalize import plain
from melcli.scoring.results import ResultRow
from melcli.scoring.tts.words import said

ARTICLES = frozenset(("a", "an", "the"))
KEYS = ("answers", "answer")
"""Of manifest rows and data sets: a text, or a list of texts of which each is right."""


def words(text: str) -> list[str]:
    """A text as it is compared. One of nothing but articles keeps them, one of another script keeps its letters.

    >>> words("The Amazon, in 1969!")
    ['amazon', 'in', 'nineteen', 'sixty', 'nine']
    """
    found = (said(text) or plain(text)).split()
    return [word for word in found if word not in ARTICLES] or found


def contained(reply: str, accepted: Sequence[str]) -> bool:
    """Whether the words of an accepted answer stand in the reply, in a row."""
    there = f" {' '.join(words(reply))} "
    return any(f" {' '.join(wanted)} " in there for wanted in map(words, accepted) if wanted)


def exact(reply: str, accepted: Sequence[str]) -> bool:
    """Whether the reply is an accepted answer."""
    there = words(reply)
    return bool(there) and any(there == wanted for wanted in map(words, accepted))


def accepted(extra: Mapping[str, Any], where: str) -> list[str]:
    """The accepted answers of a row, none where it has none. Raises ManifestError, beginning with `where`, for what is neither text nor texts."""
    for key in KEYS:
        value = extra.get(key)
        if value is None:
            continue
        several = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in several):
            raise ManifestError(f"{where}: '{key}' is {json.dumps(value, default=str)[:60]}, expected a text or a list of texts")
        found = [str(one).strip() for one in several]
        if found := [one for one in found if one]:
            return found
    return []


def share(right: Sequence[bool], drawn: bootstrap.Blocks) -> tuple[float | None, Interval | None]:
    """The share that is right, in percent, with its 95 % bootstrap interval; None of nothing, and no interval with fewer than two to draw from."""
    if not right:
        return None, None
    percent = 100 * sum(right) / len(right)
    if drawn.count < 2:
        return percent, None
    sums_D, counts_D = bootstrap.draw_sums(np.array([(one, 1.0) for one in right]), drawn).T
    return percent, bootstrap.interval(100 * sums_D / counts_D)


def of_rows(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Accuracy and share of exact answers of the rows that hold a reply; of what a recogniser heard of the spoken answers too, where one listened.

    Rates in percent, rounded to 2 places, each with its interval; what no row has is left out.
    """
    asked = [row for row in rows if row.reply is not None and row.reply.get("accepted")]
    drawn = bootstrap.blocks(asked)
    found: dict[str, Any] = {"questions": len(asked)}
    for prefix, key in (("", "answer"), ("spoken_", "heard_answer")):
        if prefix and not any(key in (row.reply or {}) for row in asked):
            continue
        for name, judge in (("accuracy", contained), ("exact", exact)):
            right = [judge(str((row.reply or {}).get(key, "")), (row.reply or {})["accepted"]) for row in asked]
            rate, between = share(right, drawn)
            found[prefix + name] = None if rate is None else round(rate, 2)
            found[f"{prefix}{name}_interval"] = None if between is None else [round(between.low, 2), round(between.high, 2)]
    return found
