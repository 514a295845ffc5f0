"""What decoding finds for an utterance, and when a hypothesis is over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

LOOP_TOKENS = 16  # a stretch that repeats itself at least 4 times over so many tokens is a loop
LOOP_TIMES = 4


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Tokens without the stop token, why they ended (`eos`, `length`, `repetition`), and their mean log probability.

    ctc_logits: what the CTC head said of the speech [frames, classes], where the model has one.
    """

    tokens: list[int]
    finish_reason: str
    score: float
    ctc_logits: Tensor | None = None


def loop_period(tokens: Sequence[int]) -> int | None:
    """The period of a repetition at the end of `tokens`, if it is long enough to be a loop."""
    for period in range(1, LOOP_TOKENS // LOOP_TIMES + 9):
        times = max(LOOP_TIMES, math.ceil(LOOP_TOKENS / period))
        span = period * times
        if len(tokens) >= span and list(tokens[-span + period :]) == list(tokens[-span:-period]):
            return period
    return None


def without_loop(tokens: list[int], period: int) -> list[int]:
    """`tokens` with the repetition at their end said once."""
    end = len(tokens)
    while end - 2 * period >= 0 and tokens[end - 2 * period : end - period] == tokens[end - period : end]:
        end -= period
    return tokens[:end]


def extend(tokens: list[int], token: int, stop: set[int], limit: int) -> str | None:
    """Append a token; the reason to end here, if there is one."""
    if token in stop:
        return "eos"
    tokens.append(token)
    period = loop_period(tokens)
    if period:
        tokens[:] = without_loop(tokens, period)
        return "repetition"
    return "length" if len(tokens) >= limit else None
