"""Branches of one row give what each gives in a row of its own."""

from __future__ import annotations

import random

import pytest
import torch

from melcli.models.decoding.rows import Rows
from melcli.models.decoding.tree import Tree
from tests.models.conftest import BACKBONES, make_model

STEPS = 40  # more than the windows of the backbones that have one


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_branch_is_read_as_if_it_were_alone(backbone, features, monkeypatch):
    monkeypatch.setattr("melcli.models.decoding.tree.MOST_ROOM", 9)  # so that ended branches are dropped several times
    model, processor = make_model(backbone)
    model.eval()
    mels = features[:3]
    prompts = processor.prompts([len(mel) for mel in mels])
    width = max(map(len, prompts))
    ids = torch.tensor([[model.config.pad_token_id] * (width - len(p)) + p for p in prompts])
    valid = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    lengths = torch.tensor([len(mel) for mel in mels])
    rng = random.Random(3)
    written = [token for token in range(len(processor.tokenizer)) if token not in model.place_holders]
    texts: list[tuple[int, list[int]]] = [(row, []) for row in range(3)]
    with torch.no_grad():
        tree = Tree(Rows(model, ids, valid, torch.cat(mels), lengths, 100))
        for step in range(STEPS):
            parents = []
            for row in range(3):
                own = [i for i, (owner, _) in enumerate(texts) if owner == row]
                if own and not (row == 1 and step >= 5):  # one prompt is done early
                    parents += sorted(rng.choices(own, k=rng.randint(1, 4) if step + 1 < STEPS else 4))
            tokens = rng.choices(written, k=len(parents))
            logits_NV = tree.grow(parents, tokens)
            texts = [(texts[parent][0], [*texts[parent][1], token]) for parent, token in zip(parents, tokens, strict=True)]
            held = tree.rows.cache.get_seq_length()
        assert held < width + 4 * STEPS / 2  # without those that ended
        assert {row for row, _ in texts} == {0, 2} and len({tuple(text) for _, text in texts}) > 2
        for (row, text), logits_V in zip(texts, logits_NV, strict=True):
            whole = torch.tensor([prompts[row] + text])
            out = model(input_ids=whole, attention_mask=torch.ones_like(whole), speech=mels[row], speech_lengths=lengths[row : row + 1])
            expected = out.logits[0, -1]
            expected[model.place_holders] = -torch.inf
            torch.testing.assert_close(logits_V, expected, atol=2e-3, rtol=1e-3)
