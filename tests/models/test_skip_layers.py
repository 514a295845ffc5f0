"""Layers skipped at speech positions: nothing else changes, batches are as one by one, and a tiny model computed by hand agrees."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from melcli.errors import UsageError
from melcli.models.decoding.beam import Beam
from melcli.models.decoding.generate import decode
from melcli.models.skip_layers import blocks_of, parse_layers, skipping
from tests.models.conftest import BACKBONES
from tests.models.conftest import make_model as make_loud_model

LIMITS = [30, 12, 25, 7, 30, 18]


def make_model(*arguments, **more):
    """One whose layers matter: speech is put in as loud as text is, not so loud that what a layer adds is nothing beside it."""
    model, processor = make_loud_model(*arguments, **more)
    with torch.no_grad():
        last = list(model.speech_input.parameters())[-2:]
        made_PD, _ = model.speech_input(torch.randn(80, 80, generator=torch.Generator().manual_seed(1)) * 3 + 8, torch.tensor([80]))
        for parameter in last:
            parameter.mul_(model.get_input_embeddings().weight.std() / made_PD.std())
    return model, processor


def inputs(processor, features):
    prompts = processor.prompts([len(f) for f in features])
    return prompts, torch.cat(features), torch.tensor([len(f) for f in features])


def prefill(model, processor, mel):
    prompts, speech, lengths = inputs(processor, [mel])
    ids = torch.tensor(prompts)
    with torch.no_grad():
        return ids, model(input_ids=ids, attention_mask=torch.ones_like(ids), speech=speech, speech_lengths=lengths)


def run(model, processor, features, limits, strategy=None, drafter=None, speller=None):
    prompts, speech, lengths = inputs(processor, features)
    return decode(model, prompts, speech, lengths, limits, strategy, drafter, speller)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_layer_skipped_is_the_ordinary_output_and_hooks_do_not_stay(backbone, features):
    model, processor = make_model(backbone)
    _, plain = prefill(model, processor, features[0])
    with skipping(model, []):
        assert torch.equal(prefill(model, processor, features[0])[1].logits, plain.logits)
    for k in range(3):
        with skipping(model, [k]):
            ids, out = prefill(model, processor, features[0])
        speech = ids == model.config.speech_token_id
        assert (out.logits - plain.logits)[speech].abs().max() > 0.1 and (out.ctc_logits - plain.ctc_logits).abs().max() > 0.1
        assert torch.equal(out.logits[:, -1], plain.logits[:, -1]) == (k == 2)  # what the last layer makes of speech no text sees
    with pytest.raises(IndexError), skipping(model, [0]):
        model(input_ids=torch.tensor([[999999]]))
    assert torch.equal(prefill(model, processor, features[0])[1].logits, plain.logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in (model, *blocks_of(model)))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_text_is_unaffected(backbone, features):
    model, processor = make_model(backbone)
    ids = torch.tensor([processor.tokenizer("one two three four").input_ids])
    before_speech = torch.tensor([[7, 8, 9, *processor.prompts([len(features[1])])[0]]])
    speech = {"speech": features[1], "speech_lengths": torch.tensor([len(features[1])])}
    with torch.no_grad():
        plain, mixed = model(input_ids=ids).logits, model(input_ids=before_speech, attention_mask=torch.ones_like(before_speech), **speech).logits
        with skipping(model, range(3)):
            assert torch.equal(model(input_ids=ids).logits, plain)
            skipped = model(input_ids=before_speech, attention_mask=torch.ones_like(before_speech), **speech).logits
            assert torch.equal(model(input_ids=ids).logits, plain)  # nothing is remembered of the call before
    assert torch.equal(skipped[:, :3], mixed[:, :3]) and not torch.allclose(skipped[:, 3:], mixed[:, 3:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_all_layers_skipped_speech_stays_what_the_speech_input_made(backbone, features):
    model, processor = make_model(backbone)
    with skipping(model, range(3)):
        ids, out = prefill(model, processor, features[0])
    with torch.no_grad():
        made_PD, _ = model.speech_input(features[0], torch.tensor([len(features[0])]))
        decoder = model.llm.get_decoder()
        norm = next(m for name, m in decoder.named_children() if "norm" in name)
        expected = model.get_output_embeddings()(norm(made_PD))
        torch.testing.assert_close(out.logits[0, (ids == model.config.speech_token_id)[0]], expected)
        torch.testing.assert_close(out.ctc_logits, model.ctc_head(norm(made_PD)).view_as(out.ctc_logits))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_is_as_one_by_one_greedy_beam_and_drafted(backbone, features):
    model, processor = make_model(backbone)
    with skipping(model, [0, 1]):
        batch = run(model, processor, features, LIMITS)
        assert [h.tokens for h in batch] == [run(model, processor, [f], [n])[0].tokens for f, n in zip(features, LIMITS, strict=True)]
        drafted = run(model, processor, features, LIMITS, drafter=processor.heard_by_ctc)
        whole = [(d.tokens, h.tokens) for d, h in zip(drafted, batch, strict=True) if "repetition" not in (d.finish_reason, h.finish_reason)]
        assert len(whole) > 1 and all(d == h for d, h in whole)
        beams = run(model, processor, features, LIMITS, Beam(3), speller=processor.spell)
        alone = [run(model, processor, [f], [n], Beam(3), speller=processor.spell)[0].tokens for f, n in zip(features, LIMITS, strict=True)]
        assert [h.tokens for h in beams] == alone


def test_transformers_generate_skips_the_same(features):
    model, processor = make_model()
    prompts, speech, lengths = inputs(processor, features[:1])
    with skipping(model, [1]):
        ours = run(model, processor, features[:1], [9])[0].tokens
        theirs = model.generate(
            input_ids=torch.tensor(prompts),
            attention_mask=torch.ones(1, len(prompts[0]), dtype=torch.long),
            speech=speech,
            speech_lengths=lengths,
            max_new_tokens=9,
            do_sample=False,
        )
    found = theirs[0, len(prompts[0]) :].tolist()
    assert found[: len(ours)] == ours and len(ours) > 2


def test_by_hand(features):
    """A llama of three layers in plain tensor arithmetic, causal, layer 1 skipped at speech positions."""
    model, processor = make_model("llama", "causal", {"kind": "mel-patch", "patch": 8, "norm": "none"}, ctc_weight=0.0)
    ids, _ = prefill(model, processor, features[1])
    with skipping(model, [1]):
        _, out = prefill(model, processor, features[1])
    weights = model.llm.model.state_dict()
    speech_L = ids[0] == model.config.speech_token_id
    with torch.no_grad():
        x_LD = model.embed(ids, features[1], torch.tensor([len(features[1])]))[0][0]
        for k in range(3):
            after_LD = layer({name.removeprefix(f"layers.{k}."): w for name, w in weights.items() if name.startswith(f"layers.{k}.")}, x_LD)
            x_LD = torch.where(speech_L[:, None], x_LD, after_LD) if k == 1 else after_LD
        logits = model.get_output_embeddings()(rms(x_LD, weights["norm.weight"]))
    torch.testing.assert_close(out.logits[0], logits, atol=1e-3, rtol=1e-3)


def rms(x_LD: Tensor, weight_D: Tensor) -> Tensor:
    return weight_D * x_LD / (x_LD.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def layer(w: dict[str, Tensor], x_LD: Tensor, heads: int = 4, kv_heads: int = 2) -> Tensor:
    """One block of llama: 4 query heads over 2 key heads, rotary embedding of base 10000, gated feed-forward."""
    length, width = x_LD.shape
    size = width // heads
    angles_LE = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
    turn_LE = torch.polar(torch.ones_like(angles_LE), angles_LE)

    def rotated(y_LHE: Tensor) -> Tensor:
        turned = torch.complex(y_LHE[..., : size // 2], y_LHE[..., size // 2 :]) * turn_LE[:, None]
        return torch.cat([turned.real, turned.imag], -1)

    h_LD = rms(x_LD, w["input_layernorm.weight"])
    q = rotated((h_LD @ w["self_attn.q_proj.weight"].T).view(length, heads, size))
    k = rotated((h_LD @ w["self_attn.k_proj.weight"].T).view(length, kv_heads, size)).repeat_interleave(heads // kv_heads, 1)
    v = (h_LD @ w["self_attn.v_proj.weight"].T).view(length, kv_heads, size).repeat_interleave(heads // kv_heads, 1)
    scores_HLL = torch.einsum("qhe,khe->hqk", q, k) / math.sqrt(size)
    scores_HLL = scores_HLL.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), -torch.inf)
    x_LD = x_LD + torch.einsum("hqk,khe->qhe", scores_HLL.softmax(-1), v).reshape(length, width) @ w["self_attn.o_proj.weight"].T
    h_LD = rms(x_LD, w["post_attention_layernorm.weight"])
    gated = torch.nn.functional.silu(h_LD @ w["mlp.gate_proj.weight"].T) * (h_LD @ w["mlp.up_proj.weight"].T)
    return x_LD + gated @ w["mlp.down_proj.weight"].T


def test_layers_by_name():
    assert parse_layers("all", 3) == [0, 1, 2]
    assert parse_layers("0-31", 32) == list(range(32))
    assert parse_layers("4, 0,6-8,7", 9) == [0, 4, 6, 7, 8]
    for wrong in ("9", "5-3", "0-9", "a", "", "1,", "-1", "all,1"):
        with pytest.raises(UsageError, match=r"names no layers; this model has 0-8: write all, 0-3 or 0,4,8"):
            parse_layers(wrong, 9)
