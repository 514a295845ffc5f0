"""Features of many utterances to hypotheses: sorted by length, batched under a token budget, returned in the order given.

Shapes: T mel frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from melcli.models.beam import Beam
from melcli.models.generate import Greedy, Sample, decode
from melcli.models.hypothesis import Hypothesis
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM

TOKENS_PER_SECOND = 12  # nobody speaks faster in a vocabulary of hundreds; one token a character at the worst
SPARE_TOKENS = 16
BATCH_TOKENS = 6000  # positions prefilled at once


def token_limit(seconds: float) -> int:
    """Tokens an utterance of so many seconds may have."""
    return SPARE_TOKENS + math.ceil(TOKENS_PER_SECOND * seconds)


def by_length(lengths: Sequence[int], budget: int, rows: int | None = None) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first: length x rows stays within the budget."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        count = max(1, budget // max(lengths[order[start]], 1))
        count = min(count, rows) if rows else count
        yield order[start : start + count]
        start += count


def recognise(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    features: Sequence[Tensor],
    strategy: Greedy | Sample | Beam | None = None,
    rows: int | None = None,
    budget: int = BATCH_TOKENS,
) -> list[Hypothesis]:
    """A hypothesis for each mel_TM."""
    found: list[Hypothesis | None] = [None] * len(features)
    spec = processor.spec
    second = spec.rate if processor.reads == "wave" else spec.frame_rate
    if isinstance(strategy, Beam):
        budget = budget // strategy.width
    for batch in by_length([processor.patches(len(f)) for f in features], budget, rows):
        chosen = [features[i] for i in batch]
        hypotheses = decode(
            model,
            processor.prompts([len(f) for f in chosen]),
            torch.cat(chosen).to(model.device),
            torch.tensor([len(f) for f in chosen], device=model.device),
            [token_limit(len(f) / second) for f in chosen],
            strategy,
            processor.drafts,
            processor.spell,
        )
        for i, hypothesis in zip(batch, hypotheses, strict=True):
            found[i] = hypothesis
    return found  # type: ignore[return-value]
