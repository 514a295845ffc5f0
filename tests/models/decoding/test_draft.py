"""Drafts save steps and change nothing; joint beam search follows the CTC head."""

from __future__ import annotations

import pytest
import torch

from melcli.models.decoding import rows
from melcli.models.decoding.beam import Beam
from melcli.models.decoding.draft import Draft, ctc_greedy
from melcli.models.decoding.generate import decode
from tests.models.conftest import BACKBONES, make_model


def run(model, processor, features, limits, strategy=None, drafter=None, speller=None):
    lengths = torch.tensor([len(f) for f in features])
    return decode(model, processor.prompts(lengths.tolist()), torch.cat(features), lengths, limits, strategy, drafter, speller)


@pytest.fixture
def steps(monkeypatch):
    """Counts how often the model was asked."""
    counted = []
    advance = rows.Rows.advance
    monkeypatch.setattr(rows.Rows, "advance", lambda self, block: (counted.append(block.shape), advance(self, block))[1])
    return counted


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_draft_leaves_the_tokens_as_they_are_and_good_ones_save_steps(backbone, features, steps):
    model, processor = make_model(backbone)
    limits = [30, 12, 25, 7, 30, 18]
    loops = [h.finish_reason == "repetition" for h in run(model, processor, features, limits)]  # of these only the beginning is known
    features = [f for f, loop in zip(features, loops, strict=True) if not loop]
    limits = [n for n, loop in zip(limits, loops, strict=True) if not loop]
    steps.clear()
    plain = run(model, processor, features, limits)
    assert max(len(h.tokens) for h in plain) > 10
    without = len(steps)
    generator = torch.Generator().manual_seed(0)
    truth = [h.tokens for h in plain]
    spoilt = [[t if torch.rand((), generator=generator) < 0.8 else 7 for t in tokens] for tokens in truth]
    shifted = [tokens[2:] for tokens in truth]
    random = [torch.randint(len(processor.tokenizer), (20,), generator=generator).tolist() for _ in truth]
    taken = {}
    for name, drafts in {"truth": truth, "spoilt": spoilt, "shifted": shifted, "random": random, "none": [[] for _ in truth]}.items():
        steps.clear()
        found = run(model, processor, features, limits, drafter=lambda logits, frames, drafts=drafts: drafts)
        assert [h.tokens for h in found] == truth, name
        assert [h.finish_reason for h in found] == [h.finish_reason for h in plain]
        torch.testing.assert_close([h.score for h in found], [h.score for h in plain], atol=1e-3, rtol=1e-3)
        taken[name] = len(steps)
    assert taken["none"] == without
    assert taken["truth"] * 3 < without
    assert taken["truth"] <= taken["spoilt"] < without
    assert taken["shifted"] < without
    assert taken["random"] <= without


def test_a_draft_finds_its_thread_again():
    draft = Draft([5, 6, 7, 8, 9, 10])
    assert [draft.follow(t) for t in (5, 6)] == [True, True]
    assert not draft.follow(8)  # 7 was not said
    assert draft.guess()[:2] == [9, 10]
    assert not draft.follow(3)  # 9 was heard as 3
    assert draft.guess() == [10]
    assert not draft.follow(9)  # or rather, 3 was put in
    assert draft.guess() == [10]
    assert draft.follow(10)
    assert draft.guess() == []


def test_ctc_greedy_joins_repetitions_within_utterances_only():
    classes = torch.tensor([0, 0, 2, 0, 1, 1, 1, 2, 2])  # the blank is 2; an utterance ends after the fifth and the sixth frame
    logits = torch.nn.functional.one_hot(classes, 3).float()
    assert ctc_greedy(logits, torch.tensor([5, 1, 3])) == [[0, 0, 1], [1], [1]]


def test_drafts_are_tokens_of_what_the_ctc_head_spells():
    _, processor = make_model(ctc_alphabet=" abcdefghijklmnopqrstuvwxyz'", ctc_rate=2)
    processor.ctc_alphabet = " abcdefghijklmnopqrstuvwxyz'"
    spelt = [processor.ctc_alphabet.index(c) for c in "  one two "]
    logits = torch.nn.functional.one_hot(torch.tensor(spelt), 29).float()
    assert processor.heard_by_ctc(logits, torch.tensor([len(spelt)])) == [processor.tokenizer("one two", add_special_tokens=False)["input_ids"]]


def test_tokens_are_spelt_as_they_read():
    _, processor = make_model(ctc_alphabet=" abcdefghijklmnopqrstuvwxyz'")
    for text in ("one two three four", "it's a long way"):
        tokens = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        classes = [c for i, token in enumerate(tokens) for c in processor.spell(token, i == 0)]
        assert "".join(processor.ctc_alphabet[c] for c in classes) == text


def test_joint_beam_search_says_what_the_ctc_head_says(features):
    """With all the weight on a sure CTC head, the language model, which is random, only proposes."""
    model, processor = make_model(ctc_weight=0.5)
    vocabulary = len(processor.tokenizer)
    text = processor.tokenizer("two", add_special_tokens=False)["input_ids"]
    frames = torch.tensor([model.speech_input.patches(len(f)) for f in features])

    class Sure(torch.nn.Module):
        def forward(self, hidden):
            logits = torch.full((len(hidden), vocabulary + 1), -8.0)
            logits[:, -1] = 8.0
            starts = torch.cumsum(frames, 0) - frames
            for start, count in zip(starts.tolist(), frames.tolist(), strict=True):
                for i, token in enumerate(text[:count]):
                    logits[start + i, -1], logits[start + i, token] = -8.0, 8.0
            return logits

    model.ctc_head = Sure()
    wide = Beam(width=vocabulary // 2, length_penalty=0.0, ctc_weight=0.999)
    found = run(model, processor, features, [12] * len(features), wide, speller=processor.spell)
    for hypothesis, count in zip(found, frames.tolist(), strict=True):
        assert hypothesis.tokens == text[:count]
    ignored = run(model, processor, features, [12] * len(features), Beam(4, 0.0, ctc_weight=0.0), speller=processor.spell)
    alone = run(model, processor, features, [12] * len(features), Beam(4, 0.0))
    assert [h.tokens for h in ignored] == [h.tokens for h in alone] != [h.tokens for h in found]


def test_joint_beams_are_the_same_batched_and_alone(features):
    model, processor = make_model()
    beam = Beam(4, 1.0, 0.3)
    together = run(model, processor, features, [12] * len(features), beam, speller=processor.spell)
    alone = [run(model, processor, [f], [12], beam, speller=processor.spell)[0] for f in features]
    assert [h.tokens for h in together] == [h.tokens for h in alone]
