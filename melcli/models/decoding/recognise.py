"""Features of many utterances to hypotheses: sorted by length, batched under a token budget, returned in the order given.

Shapes: T mel frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from melcli.models.decoding.beam import Beam
from melcli.models.decoding.generate import Strategy, decode
from melcli.models.decoding.hotwords import Hotwords
from melcli.models.decoding.hypothesis import Hypothesis
from melcli.models.fitting import Fitting
from melcli.models.processor import TOKENS_PER_SECOND, SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM

SPARE_TOKENS = 16
MOST_TOKENS = 256  # of an utterance of which only vectors are known
BATCH_TOKENS = 6000  # positions prefilled at once


def token_limit(seconds: float, rate: float = TOKENS_PER_SECOND) -> int:
    """Tokens an utterance of so many seconds may have. rate: of a second, a model's own is `SpeechLMProcessor.tokens_per_second`."""
    return SPARE_TOKENS + math.ceil(rate * seconds)


def by_length(lengths: Sequence[int], budget: int, rows: int | None = None) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first: length x rows stays within the budget."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        count = max(1, budget // max(lengths[order[start]], 1))
        count = min(count, rows) if rows else count
        yield order[start : start + count]
        start += count


def batch_budget(strategy: Strategy | None, budget: int = BATCH_TOKENS) -> int:
    """Positions of a batch: fewer for a beam search, whose hypotheses share their prompt, but not what the CTC head makes of each."""
    return 2 * budget // max(2, strategy.width) if isinstance(strategy, Beam) else budget


def decode_batch(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    features: Sequence[Tensor],
    strategy: Strategy | None = None,
    task: str = "asr",
    hotwords: Hotwords | None = None,
) -> list[Hypothesis]:
    """A hypothesis for each mel_TM of one batch. task: whose prompt is read."""
    second = processor.spec.rate if processor.reads == "wave" else processor.spec.frame_rate
    if not features[0].is_floating_point():  # characters of a text
        second = processor.tokens_per_second  # one each at the worst
    return decode(
        model,
        processor.prompts([len(f) for f in features], task),
        torch.cat(list(features)).to(model.device),
        torch.tensor([len(f) for f in features], device=model.device),
        [MOST_TOKENS if processor.reads == "vectors" else token_limit(len(f) / second, processor.tokens_per_second) for f in features],
        strategy,
        processor.heard_by_ctc,
        None if processor.dictionary else processor.spell,  # sounds are of words, not of tokens
        hotwords=hotwords,
    )


def recognise(
    model: SpeechLM,
    processor: SpeechLMProcessor,
    features: Sequence[Tensor],
    strategy: Strategy | None = None,
    rows: int | None = None,
    budget: int = BATCH_TOKENS,
    task: str = "asr",
) -> list[Hypothesis]:
    """A hypothesis for each mel_TM. task: whose prompt is read."""
    found: dict[int, Hypothesis] = {}
    fitting, lengths = Fitting("utterances"), [processor.patches(len(f)) for f in features]
    for batch in by_length(lengths, batch_budget(strategy, budget), rows):
        decoded = fitting(
            lambda some: decode_batch(model, processor, some, strategy, task), [features[i] for i in batch], [lengths[i] for i in batch]
        )
        found |= zip(batch, decoded, strict=True)
    return [found[i] for i in range(len(features))]
