"""Noise in the text that the model reads: about as much as asked, never where it would do harm."""

from __future__ import annotations

import torch

from melcli.data.tasks import Example
from melcli.data.text_noise import with_noise


def test_only_what_is_read_as_text_changes_and_labels_stay():
    prompt, text = [3, 3, 3, 5], list(range(100, 300))
    example = Example([*prompt, *text, 2], [-100] * 4 + [*text, 2], [7, 8])
    generator = torch.Generator().manual_seed(1)
    noisy = with_noise(example, 0.3, [50, 51], generator)
    changed = [i for i, (a, b) in enumerate(zip(example.input_ids, noisy.input_ids, strict=True)) if a != b]
    assert 40 < len(changed) < 80
    assert {noisy.input_ids[i] for i in changed} == {50, 51}
    assert min(changed) >= 4 and noisy.input_ids[-1] == 2
    assert (noisy.labels, noisy.ctc_ids) == (example.labels, example.ctc_ids)
    again = with_noise(example, 0.3, [50, 51], torch.Generator().manual_seed(1))
    assert again.input_ids == noisy.input_ids


def test_a_text_of_nothing_but_its_end_stays():
    example = Example([3, 2], [-100, 2], [])
    assert with_noise(example, 0.9, [50], torch.Generator().manual_seed(1)) == example
