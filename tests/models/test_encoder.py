"""Encoders of transformers as speech inputs: equal to their own classes, and for an utterance whatever it is batched with."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperForCausalLM,
)

from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset
from melcli.errors import ConfigError
from melcli.models import checkpoint
from melcli.models.encoder import Encoder
from melcli.models.encoder_families import FAMILIES, Wav2Vec2Bert
from melcli.models.listener import from_tensors
from melcli.models.speech_input import build_speech_input, settle_speech_input
from tests.models.conftest import make_model
from tests.models.encoder_makers import ENCODERS, WHISPER, native, saved

SAMPLES = (9000, 3203, 16000, 401, 9000, 17, 7999, 6400)
FRAMES = (97, 40, 1, 163, 8, 71, 80, 81)


def sounds(name: str) -> list[torch.Tensor]:
    """Utterances of awkward lengths in what a family reads."""
    generator = torch.Generator().manual_seed(3)
    if name == "whisper":
        return [0.5 * torch.randn(n, 80, generator=generator) for n in FRAMES]
    return [0.1 * torch.randn(n, 1, generator=generator).cumsum(0).sin() + 0.02 for n in SAMPLES]


def heard(model: torch.nn.Module, name: str) -> torch.nn.Module:
    """The part of a native model that is the encoder."""
    if name == "speech_lm":
        return from_tensors(model.config, model.state_dict())[0]
    return model.encoder if name in ("whisper", "moonshine") else model


def build(name: str, **more) -> Encoder:
    torch.manual_seed(2)
    return build_speech_input({"kind": "encoder", "config": ENCODERS[name], "stack": 3, **more}, 24, 80)


def test_every_family_is_tried_here():
    assert {fields["model_type"] for fields in ENCODERS.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", ENCODERS)
def test_packed_is_the_same_as_one_by_one(name):
    front = build(name)
    front.encoder.load_state_dict(heard(native(name), name).state_dict(), strict=False)
    check_packed(front.eval(), name)


def test_norms_over_the_batch_mix_no_utterances_in_training():
    quiet = dict.fromkeys(("dropout", "activation_dropout", "attention_dropout"), 0.0)
    front = build_speech_input({"kind": "encoder", "config": {**ENCODERS["parakeet"], **quiet}, "stack": 3}, 24, 80)
    check_packed(front.train(), "parakeet")


def check_packed(front: Encoder, name: str) -> None:
    xs = sounds(name)
    with torch.no_grad():
        packed, patches = front(torch.cat(xs), torch.tensor([len(x) for x in xs]))
        single = [front(x, torch.tensor([len(x)]))[0] for x in xs]
    assert patches.tolist() == [front.patches(len(x)) for x in xs] == [len(s) for s in single]
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_it_runs_in_bfloat16(name):
    front, xs = build(name).eval(), sounds(name)
    packed, lengths = torch.cat(xs), torch.tensor([len(x) for x in xs])
    with torch.no_grad():
        exact = front(packed, lengths)[0]
        with torch.autocast("cpu", torch.bfloat16):
            assert (front(packed, lengths)[0] - exact).abs().mean() < 0.05 * exact.abs().mean()
        assert (front.to(torch.bfloat16)(packed, lengths)[0] - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_positions_follow_the_encoders_own_length_rule():
    for name in ("wav2vec2", "moonshine", "parakeet"):
        model = native(name)
        front = build(name, stack=1)
        for samples in (1000, 1599, 1600, 1601, 16000, 25557):
            if name == "parakeet":
                expected = int(model._get_subsampling_output_length(torch.tensor(samples // 160)))
            else:
                expected = int(model._get_feat_extract_output_lengths(samples))
            assert front.patches(samples) == expected, (name, samples)
            assert int(front.subsampling.positions(torch.tensor([samples]))[0]) == expected


@pytest.mark.parametrize("name", ENCODERS)
def test_equals_the_native_encoder_on_its_own_features(name):
    model = native(name)
    inner = heard(model, name)
    front = build(name, **({"extractor": {"do_normalize": False}} if name == "wavlm" else {}))
    front.encoder.load_state_dict(inner.state_dict(), strict=False)
    front.eval()
    x = sounds(name)[6] if name == "whisper" else sounds(name)[2]
    with torch.no_grad():
        got = front.family(front.encoder, x, [len(x)])[0]
        if name == "whisper":
            expected = inner(x.T[None]).last_hidden_state[0]
        elif name == "parakeet":
            features = ParakeetFeatureExtractor()(x[:, 0].numpy(), sampling_rate=16000, return_tensors="pt")
            expected = inner(**features).last_hidden_state[0]
            expected = expected[: front.patches(len(x)) * 3]
        elif name == "wav2vec2-bert":
            features = SeamlessM4TFeatureExtractor()(x[:, 0].numpy(), sampling_rate=16000, return_tensors="pt")
            expected = inner(**features).last_hidden_state[0, : len(got)]
        elif name == "speech_lm":
            mel_TM = log_mel(preset("phi4mm"), x[:, 0])
            ids = torch.full((1, -(-len(mel_TM) // 4)), model.config.speech_token_id)
            said = model(input_ids=ids, speech=mel_TM, speech_lengths=torch.tensor([len(mel_TM)]))
            torch.testing.assert_close(model.ctc_head(got), said.ctc_logits, atol=1e-4, rtol=1e-4)
            expected = got
        else:
            extractor = Wav2Vec2FeatureExtractor(do_normalize=name not in ("moonshine", "wavlm"))
            expected = inner(**extractor(x[:, 0].numpy(), sampling_rate=16000, return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(got, expected[: len(got)], atol=1e-4, rtol=1e-4)
    assert 0 <= len(expected) - len(got) <= 1


def test_filter_banks_are_those_of_the_extractor():
    family = Wav2Vec2Bert(AutoConfig.for_model("wav2vec2-bert"), {})
    for wave in sounds("wav2vec2-bert")[:3]:
        theirs = SeamlessM4TFeatureExtractor()(wave[:, 0].numpy(), sampling_rate=16000, return_tensors="pt", padding=False, pad_to_multiple_of=None)
        torch.testing.assert_close(family.features(wave[:, 0]), theirs.input_features[0], atol=2e-3, rtol=1e-3)


def test_whisper_beyond_its_positions_is_encoded_in_stretches():
    front = build("whisper", stack=1).eval()
    x = torch.randn(190, 80)
    with torch.no_grad():
        whole = front.family(front.encoder, x, [190])[0]
        parts = [front.family(front.encoder, part, [len(part)])[0] for part in x.split(80)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert front.patches(190) == 95


@pytest.mark.parametrize("name", ENCODERS)
def test_every_parameter_gets_a_finite_gradient_in_training(name):
    front = build(name).train()
    xs = sounds(name)
    front(torch.cat(xs), torch.tensor([len(x) for x in xs]))[0].square().mean().backward()
    trained = {n: p.grad for n, p in front.named_parameters() if p.requires_grad}
    assert not [n for n, grad in trained.items() if grad is None or not grad.isfinite().all()]


@pytest.mark.parametrize("name", ["whisper", "wav2vec2", "hubert-large", "wavlm", "wav2vec2-bert", "parakeet", "moonshine", "speech_lm"])
def test_a_checkpoint_holds_all_of_the_encoder(name, tmp_path):
    model, processor = make_model(speech_input={"kind": "encoder", "config": ENCODERS[name], "stack": 2}, mel=preset("whisper-80").model_dump())
    checkpoint.save(tmp_path / "model", model, processor)
    loaded, read = checkpoint.load(str(tmp_path / "model"), offline=True)
    xs = sounds(name)
    lengths = torch.tensor([len(x) for x in xs])
    with torch.no_grad():
        torch.testing.assert_close(loaded.speech_input(torch.cat(xs), lengths), model.speech_input(torch.cat(xs), lengths))
    assert read.reads == model.speech_input.reads
    assert [read.patches(n) for n in lengths.tolist()] == [model.speech_input.patches(n) for n in lengths.tolist()]
    inputs = read([0.1 * torch.randn(n) for n in (7000, 16000)])
    assert loaded(**inputs).logits.isfinite().all()
    again = type(read).from_pretrained(tmp_path / "model")
    assert [again.patches(n) for n in lengths.tolist()] == [read.patches(n) for n in lengths.tolist()]


@pytest.mark.parametrize("name", ENCODERS)
def test_pretrained_weights_and_settings_are_taken(name, tmp_path):
    theirs = heard(saved(name, tmp_path / "theirs", do_normalize=False, n_fft=512), name)
    options = {"kind": "encoder", "model": str(tmp_path / "theirs"), "stack": 2}
    settled = settle_speech_input(options, offline=True)
    assert "model" not in settled
    json.dumps(settled)
    front = build_speech_input(settled, 24, 80)
    front.load_pretrained({k: v for k, v in options.items() if k != "kind"}, offline=True)
    ours = front.encoder.state_dict()
    assert set(ours) <= set(theirs.state_dict())
    torch.testing.assert_close(ours, {k: theirs.state_dict()[k] for k in ours})
    front.bind(preset("whisper-80"))
    if name == "whisper":
        assert front.family.options["mel"] == "whisper-80"
        with pytest.raises(ConfigError, match=r"trained on whisper-80; here .* Set data.mel to whisper-80"):
            front.bind(preset("phi4mm"))
    elif "do_normalize" in front.family.options:
        assert front.family.options["do_normalize"] is False
    else:
        with pytest.raises(ConfigError, match=r"reads 16000 Hz, not 24000 Hz; presets of that rate: phi4mm, whisper-80"):
            front.bind(preset("vocos-24k"))


def test_encoders_that_cannot_be_are_named(tmp_path):
    def build(**options):
        options = {"kind": "encoder", **options}
        return build_speech_input(settle_speech_input(options, offline=True), 8, 80)

    with pytest.raises(ConfigError, match=r"exactly one of model .* and config"):
        build()
    with pytest.raises(ConfigError, match=r"exactly one of model .* and config"):
        build(model="openai/whisper-tiny", config=WHISPER)
    with pytest.raises(ConfigError, match=r"'wisper' is no known audio encoder; valid: whisper, .*Did you mean 'whisper'"):
        build(config={"model_type": "wisper"})
    with pytest.raises(ConfigError, match="'llama' is no known audio encoder"):
        build(config={"model_type": "llama"})
    with pytest.raises(ConfigError, match=r"config.encoder_layer is unknown for whisper. Did you mean 'encoder_layers'"):
        build(config={**WHISPER, "encoder_layer": 3})
    with pytest.raises(ConfigError, match=r"describes no possible encoder|speech_input.config: "):
        build(config={**WHISPER, "encoder_attention_heads": 5})
    with pytest.raises(ConfigError, match=r"extractor.normalize is unknown for hubert; valid: sampling_rate, do_normalize"):
        build(config=ENCODERS["hubert"], extractor={"normalize": True})
    with pytest.raises(ConfigError, match="stack: 0 is not a whole number of at least 1"):
        build(config=WHISPER, stack=0)
    with pytest.raises(ConfigError, match=r"reads 80 mel bins, not 128; presets with so many: phi4mm, whisper-80"):
        build(config=WHISPER).bind(preset("whisper-128"))


def test_checkpoints_that_hold_no_encoder_are_named(tmp_path):
    fields = {k: v for k, v in WHISPER.items() if k != "model_type"}
    WhisperForCausalLM(WhisperConfig(**fields)).save_pretrained(tmp_path / "decoder")
    front = build_speech_input(settle_speech_input({"kind": "encoder", "model": str(tmp_path / "decoder")}), 8, 80)
    with pytest.raises(ConfigError, match=r"decoder holds no whole encoder: encoder\.conv1.* more missing"):
        front.load_pretrained({"model": str(tmp_path / "decoder")})
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match=r"llama is a llama, no audio encoder known here; valid: whisper"):
        settle_speech_input({"kind": "encoder", "model": str(tmp_path / "llama")})
    saved("hubert", tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    front = build_speech_input(settle_speech_input({"kind": "encoder", "model": str(tmp_path / "pickled")}), 8, 80)
    with pytest.raises(ConfigError, match=r"the weights of .*pickled cannot be loaded"):
        front.load_pretrained({"model": str(tmp_path / "pickled")})
    with pytest.raises(ConfigError, match=r"speech_input.model: nowhere/no-such-encoder: not a folder, and not on this machine"):
        settle_speech_input({"kind": "encoder", "model": "nowhere/no-such-encoder"}, offline=True)


@pytest.mark.parametrize(("attention", "ctc_from"), [("causal", "backbone"), ("bidirectional", "backbone"), ("bidirectional", "speech-input")])
def test_a_model_of_ours_hears_as_it_does_by_itself(attention, ctc_from):
    """What its own CTC head reads, of utterances together; one that hears nothing, or has live adapters, is refused."""
    fields = {**ENCODERS["speech_lm"], "speech_attention": attention, "ctc_from": ctc_from}
    torch.manual_seed(6)
    model = AutoModel.from_config(AutoConfig.for_model(**fields)).eval()
    front = build_speech_input({"kind": "encoder", "config": fields}, 24, 80)
    front.encoder, missing = from_tensors(model.config, model.state_dict())
    xs = sounds("speech_lm")
    xs = [x for x in xs if len(x) >= 400]
    for x, got in zip(xs, front.family(front.encoder, torch.cat(xs), [len(x) for x in xs]), strict=True):
        mel_TM = log_mel(preset("phi4mm"), x[:, 0])
        said = model(input_ids=torch.full((1, len(got)), 1), speech=mel_TM, speech_lengths=torch.tensor([len(mel_TM)])).ctc_logits
        torch.testing.assert_close(model.ctc_head(got), said, atol=1e-4, rtol=1e-4)
    assert missing == [] and from_tensors(model.config, {})[1]
    for wrong, complaint in (({"speech_input": {"kind": "none"}}, "hears nothing by itself"), ({"lora": {"rank": 2, "alpha": 2}}, "live adapters")):
        with pytest.raises(ConfigError, match=complaint):
            build_speech_input({"kind": "encoder", "config": {**fields, **wrong}}, 24, 80)


def test_the_encoder_inside_a_parakeet_recogniser_is_taken(tmp_path):
    fields = {key: value for key, value in ENCODERS["parakeet"].items() if key != "model_type"}
    theirs = ParakeetForCTC(ParakeetCTCConfig(vocab_size=20, pad_token_id=0, encoder_config=fields))
    theirs.save_pretrained(tmp_path / "ctc")
    options = {"kind": "encoder", "model": str(tmp_path / "ctc")}
    front = build_speech_input(settle_speech_input(options), 8, 80)
    front.load_pretrained({"model": options["model"]})
    assert front.family.config.model_type == "parakeet_encoder"
    torch.testing.assert_close(front.encoder.state_dict(), theirs.encoder.state_dict())


@pytest.mark.parametrize("name", ENCODERS)
def test_a_batch_of_text_among_processes_that_hear_gives_zeros(name):
    """Of several processes each has a gradient for everything, and silence that only stands in for speech moves no statistics."""
    model, _ = make_model(speech_input={"kind": "encoder", "config": ENCODERS[name], "stack": 2})
    model.train()
    before = {key: buffer.clone() for key, buffer in model.named_buffers()}
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]]), speech_elsewhere=True).loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.speech_input.parameters() if p.requires_grad)
    assert all(torch.equal(buffer, before[key]) for key, buffer in model.named_buffers())
    assert model.speech_input.training


def test_weights_of_an_encoder_that_are_not_finite_are_named(tmp_path):
    saved("hubert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    next(tensor for name, tensor in tensors.items() if "feature_projection" in name).fill_(float("nan"))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    front = build_speech_input(settle_speech_input({"kind": "encoder", "model": str(tmp_path)}), 8, 80)
    with pytest.raises(ConfigError, match=r"feature_projection\S* of .* holds numbers that are not finite"):
        front.load_pretrained({"model": str(tmp_path)})
