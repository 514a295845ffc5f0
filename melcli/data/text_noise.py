"""Wrong tokens in the text that a model reads while it learns to write it.

With a few hours of speech, a language model soon knows the training sentences by heart and writes them from their first words, without listening.
Where some of the words before are wrong, it has to listen (Bengio et al. 2015, arXiv 1506.03099, feed the model's own guesses to the same end).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from melcli.data.tasks import Example


def with_noise(example: Example, share: float, vocabulary: Sequence[int], generator: torch.Generator) -> Example:
    """The example with about this share of its target tokens read as others, drawn from the vocabulary; the labels stay true.

    The last token, which ends the text, is never read and stays.
    """
    targets = [i for i, label in enumerate(example.labels) if label >= 0][:-1]
    if not targets:
        return example
    hit = torch.rand(len(targets), generator=generator) < share
    drawn = torch.randint(len(vocabulary), (len(targets),), generator=generator).tolist()
    ids = list(example.input_ids)
    for position, wrong, choice in zip(targets, hit.tolist(), drawn, strict=True):
        if wrong:
            ids[position] = vocabulary[choice]
    return replace(example, input_ids=ids)
