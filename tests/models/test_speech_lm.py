"""The model: packed loss is unpacked loss, masks hide what they should, and it is a Hugging Face model."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from melcli.data.collate import Item, pack
from melcli.data.utterance import Utterance
from melcli.models import checkpoint
from melcli.models.masks import packed_mask
from tests.models.conftest import BACKBONES, TEXTS, make_model


def examples(processor, features):
    encoder = processor.encoder()
    utterances = [Utterance(str(i), (), text) for i, text in enumerate(TEXTS)]
    ids = encoder.texts(utterances)
    return [Item(encoder(u, processor.patches(len(f)), t), f) for u, f, t in zip(utterances, features, ids, strict=False)]


def count(items):
    text = sum(sum(label >= 0 for label in item.example.labels) for item in items)
    return {"text": text, "ctc": sum(len(item.example.ctc_ids) for item in items)}


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_packed_loss_is_unpacked_loss(backbone, attention, features):
    model, processor = make_model(backbone, attention)
    items = examples(processor, features)
    counts = count(items)
    with torch.no_grad():
        rows = [[items[0], items[2]], [items[1], items[3], items[4]]]
        packed = model(**pack(rows, model.config.pad_token_id))
        alone = [model(**pack([[item]], model.config.pad_token_id), counts=counts) for item in items]
    torch.testing.assert_close(packed.loss, sum(out.loss for out in alone), atol=2e-4, rtol=2e-5)
    for part in ("ce", "ctc"):
        torch.testing.assert_close(packed.parts[part], sum(out.parts[part] for out in alone), atol=2e-4, rtol=2e-5)
    assert packed.parts["ctc"] > 0


def test_packed_gradient_is_unpacked_gradient(features):
    model, processor = make_model("llama")
    items = examples(processor, features)
    counts = count(items)
    model(**pack([items[:2], items[2:]], model.config.pad_token_id)).loss.backward()
    packed = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for item in items:
        model(**pack([[item]], model.config.pad_token_id), counts=counts).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(packed[name], parameter.grad, atol=1e-3, rtol=1e-3)
    assert set(packed) == {name for name, _ in model.named_parameters()}


def test_masks():
    documents = torch.tensor([[1, 1, 1, 2, 2, 2, 0]])
    speech = torch.tensor([[True, True, False, True, True, False, False]])
    causal = packed_mask(documents, speech, False)[0, 0]
    both = packed_mask(documents, speech, True)[0, 0]
    expected = torch.zeros(7, 7, dtype=torch.bool)
    for i in range(7):
        for j in range(i + 1):
            expected[i, j] = documents[0, i] == documents[0, j]
    assert torch.equal(causal, expected)
    expected[0, 1] = expected[3, 4] = True
    assert torch.equal(both, expected)


def test_causal_speech_does_not_look_ahead_and_bidirectional_does(features):
    for attention, changes in (("causal", False), ("bidirectional", True)):
        model, processor = make_model("llama", attention, {"kind": "mel-patch", "patch": 4, "norm": "none"})
        mel = features[0].clone()
        ids = torch.tensor(processor.prompts([len(mel)]))
        with torch.no_grad():
            before = model(input_ids=ids, attention_mask=torch.ones_like(ids), speech=mel, speech_lengths=torch.tensor([len(mel)])).logits[0, 0]
            mel[-4:] += 5
            after = model(input_ids=ids, attention_mask=torch.ones_like(ids), speech=mel, speech_lengths=torch.tensor([len(mel)])).logits[0, 0]
        assert ((before - after).abs().max() > 1e-4) == changes


def test_saved_and_loaded_is_the_same(tmp_path, features):
    model, processor = make_model("qwen3")
    checkpoint.save(tmp_path / "m", model, processor)
    again, processor_again = checkpoint.load(str(tmp_path / "m"))
    inputs = processor([torch.randn(8000), torch.randn(5000)])
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, again(**inputs).logits)
    assert processor_again.prompt == processor.prompt
    assert processor_again.spec == processor.spec
    automatic = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, automatic.eval()(**inputs).logits)
    assert AutoConfig.from_pretrained(tmp_path / "m").model_type == "speech_lm"
    loaded = AutoProcessor.from_pretrained(tmp_path / "m")
    assert loaded.stride == processor.stride
    assert loaded.text(processor.tokenizer("one two")["input_ids"]) == "one two"


def test_characters_as_ctc_classes_at_a_higher_rate(features):
    model, processor = make_model("llama", ctc_alphabet=" abcdefghijklmnopqrstuvwxyz'", ctc_rate=3)
    items = examples(processor, features)
    assert items[0].example.ctc_ids == [" abcdefghijklmnopqrstuvwxyz'".index(c) for c in TEXTS[0]]
    with torch.no_grad():
        out = model(**pack([items[3:5]], model.config.pad_token_id))
    patches = sum(processor.patches(len(f)) for f in features[3:5])
    assert out.ctc_logits.shape == (3 * patches, 29)
    assert out.parts["ctc"] > 0
