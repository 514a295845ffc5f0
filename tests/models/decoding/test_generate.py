"""Decoding: the same tokens alone and in a batch, with our loop and with transformers' own, and guards that work."""

from __future__ import annotations

import itertools

import pytest
import torch

from melcli.audio.mel_spec import preset
from melcli.models import checkpoint
from melcli.models.decoding.beam import Beam
from melcli.models.decoding.generate import Greedy, Sample, decode
from melcli.models.decoding.hypothesis import loop_period, without_loop
from melcli.models.decoding.recognise import by_length, recognise, token_limit
from melcli.models.processor import SpeechLMProcessor
from melcli.models.tokenizer import train_tokenizer
from tests.models.conftest import BACKBONES, make_model


def run(model, processor, features, limits, strategy=None):
    return decode(
        model, processor.prompts([len(f) for f in features]), torch.cat(features), torch.tensor([len(f) for f in features]), limits, strategy
    )


@pytest.mark.parametrize(("backbone", "attention"), list(itertools.product(BACKBONES, ["causal", "bidirectional"])))
def test_batched_is_the_same_as_one_by_one(backbone, attention, features):
    model, processor = make_model(backbone, attention)
    limits = [30, 12, 25, 7, 30, 18]
    together = run(model, processor, features, limits)
    alone = [run(model, processor, [f], [n])[0] for f, n in zip(features, limits, strict=True)]
    assert [h.tokens for h in together] == [h.tokens for h in alone]
    assert [h.finish_reason for h in together] == [h.finish_reason for h in alone]
    assert len({tuple(h.tokens) for h in together}) > 3  # the audio matters, so equality says something
    torch.testing.assert_close(torch.tensor([h.score for h in together]), torch.tensor([h.score for h in alone]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_the_loop_gives_the_tokens_of_transformers_generate(attention, features):
    model, processor = make_model("llama", attention)
    ours = run(model, processor, features, [20] * len(features))
    prompts = processor.prompts([len(f) for f in features])
    width = max(map(len, prompts))
    pad = model.config.pad_token_id
    inputs = {
        "input_ids": torch.tensor([[pad] * (width - len(p)) + p for p in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        "speech": torch.cat(features),
        "speech_lengths": torch.tensor([len(f) for f in features]),
    }
    theirs = model.generate(**inputs, max_new_tokens=20, do_sample=False, eos_token_id=model.config.stop_token_ids, pad_token_id=pad)[:, width:]
    for hypothesis, row in zip(ours, theirs.tolist(), strict=True):
        if hypothesis.finish_reason == "repetition":
            assert row[: len(hypothesis.tokens)] == hypothesis.tokens
        else:
            end = next((i for i, token in enumerate(row) if token in model.config.stop_token_ids), len(row))
            assert row[:end] == hypothesis.tokens


@pytest.mark.parametrize("backbone", BACKBONES)
def test_cached_steps_equal_a_full_forward_pass(backbone, features):
    """Greedy tokens fed back in one pass are each the most probable next token."""
    model, processor = make_model(backbone)
    for mel in features[:3]:
        prompt = processor.prompts([len(mel)])[0]
        hypothesis = run(model, processor, [mel], [15])[0]
        if hypothesis.finish_reason == "repetition":
            continue
        ids = torch.tensor([prompt + hypothesis.tokens])
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), speech=mel, speech_lengths=torch.tensor([len(mel)]))
        out.logits[..., model.config.speech_token_id] = -float("inf")
        best = out.logits[0, len(prompt) - 1 : len(prompt) - 1 + len(hypothesis.tokens)].argmax(-1)
        assert best.tolist() == hypothesis.tokens


def test_beam_of_one_is_greedy_and_wider_beams_are_no_worse(features):
    model, processor = make_model("llama")
    limits = [12] * len(features)

    def log_prob(mel, tokens, ended):
        prompt = processor.prompts([len(mel)])[0]
        ids = torch.tensor([prompt + tokens + (model.config.stop_token_ids if ended else [])])
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=torch.ones_like(ids), speech=mel, speech_lengths=torch.tensor([len(mel)]))
        steps = out.logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        return float(steps.gather(1, ids[0, len(prompt) :, None]).sum())

    greedy = run(model, processor, features, limits, Greedy())
    one = run(model, processor, features, limits, Beam(1, 0.0))
    assert [h.tokens for h in greedy] == [h.tokens for h in one]
    wide = run(model, processor, features, limits, Beam(5, 0.0))
    alone = [run(model, processor, [f], [12], Beam(5, 0.0))[0].tokens for f in features]
    assert [h.tokens for h in wide] == alone
    pairs = [
        (g, w, mel)
        for g, w, mel in zip(greedy, wide, features, strict=True)
        if g.finish_reason in ("eos", "length") and w.finish_reason in ("eos", "length")
    ]
    totals = [[log_prob(mel, h.tokens, h.finish_reason == "eos") for h in (g, w)] for g, w, mel in pairs]
    assert len(totals) >= 3
    assert sum(after for _, after in totals) > sum(before for before, _ in totals)


def test_sampling_is_seeded_and_cold_sampling_is_greedy(features):
    model, processor = make_model("llama")
    limits = [10] * len(features)
    one, two = (run(model, processor, features, limits, Sample(1.5, 0.95, seed=4)) for _ in range(2))
    other = run(model, processor, features, limits, Sample(1.5, 0.95, seed=5))
    assert [h.tokens for h in one] == [h.tokens for h in two] != [h.tokens for h in other]
    cold = run(model, processor, features, limits, Sample(1e-4))
    assert [h.tokens for h in cold] == [h.tokens for h in run(model, processor, features, limits)]


def test_limits_are_kept_and_named(features):
    model, processor = make_model("llama")
    for hypothesis, limit in zip(run(model, processor, features, [1, 2, 3, 4, 5, 6]), range(1, 7), strict=True):
        assert len(hypothesis.tokens) <= limit
        assert hypothesis.finish_reason in ("eos", "length", "repetition")
        assert (len(hypothesis.tokens) == limit) == (hypothesis.finish_reason == "length")


def test_loops_are_found_and_cut():
    assert loop_period([1, 2, 3] * 6) == 3
    assert loop_period([5] * 16) == 1
    assert loop_period([9, 9, 9, 9, 9, 9]) is None  # six nines are a number somebody may say
    assert loop_period(list(range(40))) is None
    assert without_loop([7, *[1, 2, 3] * 6], 3) == [7, 1, 2, 3]


def test_recognise_keeps_the_order(features):
    model, processor = make_model("llama")
    together = recognise(model, processor, features)
    alone = [recognise(model, processor, [f])[0] for f in features]
    assert [h.tokens for h in together] == [h.tokens for h in alone]
    assert sorted(i for batch in by_length([5, 9, 1, 7], 10) for i in batch) == [0, 1, 2, 3]
    assert all(len(batch) <= 2 for batch in by_length([1] * 9, 100, rows=2))


def test_small_vocabularies_may_write_as_fast_as_people_speak():
    """Readers of LibriSpeech say up to 21 characters a second: a model whose tokens are characters must not be cut off before its utterance ends."""

    def rate(tokenizer) -> float:
        return SpeechLMProcessor(tokenizer, mel=preset("phi4mm").model_dump()).tokens_per_second

    texts = ["the cat sat on the mat", "the dog did not", "another cat and another mat"]
    assert rate(train_tokenizer(texts, 0, units="characters")) == 24 and token_limit(10, 24) >= 16 + 210
    assert 12 <= rate(train_tokenizer(texts, 40)) < 24
    assert rate(checkpoint.load("tiny-en")[1].tokenizer) == 12
