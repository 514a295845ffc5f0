"""Unified encoders and the speech input that stands on them: two branches, one number of soft tokens, no cross-talk, and mistakes in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from melcli.audio.mel_spec import preset
from melcli.data.vectors import mean_of, read_vectors, write_vectors
from melcli.data.written import codes_of, text_of
from melcli.errors import CheckpointError, ConfigError, ManifestError
from melcli.models import checkpoint, seamless, unified_encoder
from melcli.models.speech_input import build_speech_input, settle_speech_input
from melcli.models.unified_encoder import UnifiedEncoder, similarity
from tests.models.conftest import make_model
from tests.models.unified_makers import encoder_config, make_encoder, save_encoder, save_seamless

TEXTS = ["one two three", "a", "it is a long way to tipperary", "zero é 7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "model")


@pytest.fixture(scope="module")
def seamless_folder(tmp_path_factory):
    return save_seamless(tmp_path_factory.mktemp("seamless"))


def unified(mel: str = "phi4mm", **options):
    torch.manual_seed(2)
    settled = settle_speech_input({"kind": "unified", "tokens": 6, **options}, offline=True)
    front = build_speech_input(settled, 20, 80)
    front.bind(preset(mel))
    front.load_pretrained(options)
    return front.eval()


def packed(items):
    return torch.cat(items), torch.tensor([len(one) for one in items])


@torch.no_grad()
def test_either_branch_gives_the_same_alone_and_in_a_batch(features):
    encoder = make_encoder()
    assert torch.allclose(encoder.text(TEXTS), torch.cat([encoder.text([text]) for text in TEXTS]), atol=1e-5)
    together = encoder.speech(*packed(features))
    assert together.shape == (len(features), 3, 16)
    assert torch.allclose(together, torch.cat([encoder.speech(*packed([one])) for one in features]), atol=1e-4)
    assert not torch.allclose(encoder.text(["one two"]), encoder.text(["two one"]), atol=1e-2)
    assert torch.equal(encoder.text(["OnE"]), encoder.text(["one"]))
    assert encoder.text([""]).isfinite().all()


@torch.no_grad()
def test_each_vector_looks_at_its_own_part_to_begin_with():
    """Changing the last quarter of the states moves the last vector most."""
    encoder = make_encoder(vectors=4)
    state = torch.randn(40, 24)
    changed = torch.cat([state[:30], torch.randn(10, 24)])
    moved = (encoder.pool([state]) - encoder.pool([changed])).norm(dim=-1)[0]
    assert moved.argmax() == 3 and moved[3] > 2 * moved[0]


def test_a_folder_holds_all_of_an_encoder(folder, features):
    again = unified_encoder.load(folder)
    encoder = make_encoder()
    with torch.no_grad():
        assert torch.equal(again.text(TEXTS), encoder.text(TEXTS))
        assert torch.equal(again.speech(*packed(features)), encoder.speech(*packed(features)))
    assert torch.equal(again.speech_mean_VW, encoder.speech_mean_VW)
    assert again.config == encoder.config == encoder_config()


@pytest.mark.parametrize("tokens", [3, 6])
def test_text_and_speech_give_as_many_soft_tokens_whatever_their_length(folder, features, tokens):
    front = unified(encoder=str(folder), tokens=tokens)
    for items in (features, [codes_of(text) for text in TEXTS]):
        with torch.no_grad():
            x_PD, patches_U = front(*packed(items))
            single = torch.cat([front(*packed([one]))[0] for one in items])
        assert x_PD.shape == (tokens * len(items), 20) and patches_U.tolist() == [tokens] * len(items)
        assert torch.allclose(x_PD, single, atol=1e-4)
        assert [front.patches(len(one)) for one in items] == [tokens] * len(items) and front.patches(0) == 0
        assert torch.equal(front.subsampling.positions(packed(items)[1]), patches_U)


def test_means_lengths_and_noise(folder):
    """centre takes each modality's own mean away, unit makes lengths one, and noise is there in training alone."""
    codes = packed([codes_of(text) for text in TEXTS])
    encoder = make_encoder()
    with torch.no_grad():
        raw = encoder.text(TEXTS)
        assert torch.allclose(unified(encoder=str(folder), centre=False, unit=False).latents(*codes), raw)
        assert torch.allclose(unified(encoder=str(folder), unit=False).latents(*codes), raw - encoder.text_mean_VW, atol=1e-6)
        mel = torch.randn(50, 80), torch.tensor([50])
        heard = encoder.speech(*mel)
        assert torch.allclose(unified(encoder=str(folder), unit=False).latents(*mel), heard - encoder.speech_mean_VW, atol=1e-6)
        ones = unified(encoder=str(folder)).latents(*codes)
        assert torch.allclose(ones.norm(dim=-1), torch.full((4, 3), 4.0), atol=1e-5)
        front = unified(encoder=str(folder), noise=0.5)
        still = front(*codes)[0]
        assert torch.equal(still, front(*codes)[0])
        torch.manual_seed(0)
        assert not torch.allclose(still, front.train()(*codes)[0], atol=1e-2)
    assert not front.encoder.training and front.training


def test_a_speech_lm_keeps_its_encoder_and_needs_no_folder(folder, tmp_path, features):
    given = settle_speech_input({"kind": "unified", "encoder": str(folder), "tokens": 6})
    model, processor = make_model(speech_input=given, ctc_weight=0.0)
    model.speech_input.load_pretrained({"encoder": str(folder)})
    checkpoint.save(tmp_path / "model", model, processor)
    assert load_file(tmp_path / "model" / "model.safetensors")["speech_input.encoder.characters.weight"].shape == (28, 24)
    moved = {**json.loads((tmp_path / "model" / "config.json").read_text())}
    moved["speech_input"]["encoder"] = "nowhere/at-all"
    (tmp_path / "model" / "config.json").write_text(json.dumps(moved))
    again, its = checkpoint.load(str(tmp_path / "model"), offline=True)
    waves = [0.1 * torch.randn(9000), 0.1 * torch.randn(3000)]
    with torch.no_grad():
        before, after = model(**processor(waves)).logits, again.eval()(**its(waves)).logits
    assert torch.allclose(before, after, atol=1e-5)
    assert its.patches(1) == its.patches(10**6) == 6


def test_text_becomes_codes_and_back():
    for text in ["", "plain", "né 😀 \n"]:
        codes = codes_of(text)
        assert codes.shape == (len(text), 1) and not codes.is_floating_point()
        assert text_of(codes) == text


@torch.no_grad()
def test_seamless_gives_what_transformers_own_encoders_give(seamless_folder):
    """Alone and in a batch; means over stretches of the states, Seamless's own features included."""
    from transformers import SeamlessM4TFeatureExtractor

    folder, native = seamless_folder
    front = unified(encoder=str(folder), vectors=2, centre=False, unit=False)
    waves = [0.1 * torch.randn(n) for n in (16000, 9001, 12000, 9001)]
    z_UVW = front.latents(*packed([wave[:, None] for wave in waves]))
    extractor = SeamlessM4TFeatureExtractor()
    for wave, z_VW in zip(waves, z_UVW, strict=True):
        own = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt", pad_to_multiple_of=2)
        states = native.speech_encoder(own["input_features"], attention_mask=own["attention_mask"]).last_hidden_state[0]
        assert torch.allclose(torch.nn.functional.adaptive_avg_pool1d(states.mT, 2).mT, z_VW, atol=2e-3)
    tokenizer = seamless.read_tokenizer(str(folder))
    texts = ["one two three", "some"]
    for text, z_VW in zip(texts, front.latents(*packed([codes_of(text) for text in texts])), strict=True):
        states = native.text_encoder(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
        assert torch.allclose(torch.nn.functional.adaptive_avg_pool1d(states.mT, 2).mT, z_VW, atol=1e-4)


def test_seamless_takes_its_means(seamless_folder, tmp_path):
    folder, _ = seamless_folder
    with pytest.raises(ConfigError, match="does not know the mean of its speech vectors; give speech_mean"):
        unified(encoder=str(folder))
    write_vectors(tmp_path / "m.safetensors", {"a": torch.ones(1, 32), "b": 3 * torch.ones(1, 32)})
    front = unified(encoder=str(folder), speech_mean=str(tmp_path / "m.safetensors"))
    assert torch.equal(front.normalise.speech_mean_VW, 2 * torch.ones(1, 32)) and front.measures_text
    front.measure_text(TEXTS[:2])
    assert torch.allclose(front.normalise.text_mean_VW, front.encoder.text(TEXTS[:2]).mean(0))


def test_vectors_are_read_by_id(tmp_path):
    made = {"b": torch.randn(4), "a": torch.randn(4), "c": torch.randn(4)}
    save_file(made, tmp_path / "v.safetensors")
    found = read_vectors(tmp_path / "v.safetensors", ["a", "b"], (1, 4))
    assert list(found) == ["a", "b"] and torch.equal(found["a"], made["a"][None])
    mean = torch.stack(list(made.values())).mean(0)
    assert torch.allclose(read_vectors(tmp_path / "v.safetensors", ["a"], (1, 4), centre=True)["a"][0], made["a"] - mean)
    assert torch.allclose(mean_of(tmp_path / "v.safetensors", (1, 4))[0], mean)
    np.save(tmp_path / "v.npy", torch.stack(list(made.values())).numpy())
    assert torch.equal(read_vectors(tmp_path / "v.npy", ["a"], (1, 4), order=["b", "a", "c"])["a"], made["a"][None])
    (tmp_path / "v.ids").write_text("c\nb\na\n")
    assert torch.equal(read_vectors(tmp_path / "v.npy", ["a"], (1, 4))["a"], made["c"][None])


def test_vectors_that_cannot_be_are_one_line(tmp_path):
    save_file({name: torch.randn(4) for name in "abcdef"}, tmp_path / "v.safetensors")
    np.save(tmp_path / "rows.npy", np.zeros((3, 4), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    save_file({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"12345")
    (tmp_path / "v.txt").write_text("1 2 3")
    tries = [
        ("v.safetensors", ["a"], (1, 5), "a is 1 x 4, and the model reads 1 x 5"),
        ("v.safetensors", list("abxyzuv"), (1, 4), "5 of 7 ids are missing: x, y, z and 2 more"),
        ("rows.npy", ["a", "b"], (1, 4), "3 rows for 2 utterances"),
        ("objects.npy", ["a"], (1, 4), "not an npy file of numbers"),
        ("nan.safetensors", ["a"], (1, 2), "numbers that are not finite"),
        ("cut.safetensors", ["a"], (1, 2), "not a whole safetensors file"),
        ("v.txt", ["a"], (1, 2), "neither .safetensors nor .npy"),
        ("absent.npy", ["a"], (1, 2), "no such file"),
    ]
    for name, ids, shape, said in tries:
        with pytest.raises(ManifestError) as caught:
            read_vectors(tmp_path / name, ids, shape)
        assert said in str(caught.value) and "\n" not in str(caught.value)


def test_encoders_that_cannot_be_are_one_line(folder, seamless_folder, tmp_path, features):
    import shutil

    def refused(*, mel: str = "phi4mm", **options) -> str:
        with pytest.raises(ConfigError) as caught:
            unified(mel, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "needs one of encoder" in refused()
    assert "needs one of encoder" in refused(encoder=str(folder), size=8)
    assert "tokens: 7 is not a multiple of the 3 vectors" in refused(encoder=str(folder), tokens=7)
    assert "noise: -1" in refused(encoder=str(folder), noise=-1)
    assert "differ from those of the unified encoder" in refused(encoder=str(folder), mel="whisper-80")
    assert refused(encoder="nowhere/no-such-encoder").startswith("model.speech_input.encoder nowhere/no-such-encoder: not a folder, and not on this")
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    assert "is a bert, no unified encoder with a text and a speech branch" in refused(encoder=str(tmp_path / "bert"))
    deaf = tmp_path / "deaf"
    shutil.copytree(folder, deaf)
    tensors = load_file(deaf / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if name.startswith(("text_", "characters"))}, deaf / "model.safetensors")
    assert "a unified encoder without a speech branch" in refused(encoder=str(deaf))
    seamless_deaf = tmp_path / "seamless"
    shutil.copytree(seamless_folder[0], seamless_deaf)
    tensors = load_file(seamless_deaf / "model.safetensors")
    save_file({name: t for name, t in tensors.items() if not name.startswith("speech_encoder")}, seamless_deaf / "model.safetensors")
    assert "without a speech branch" in refused(encoder=str(seamless_deaf), centre=False)
    assert "reads 16000 Hz, not 24000 Hz" in refused(encoder=str(seamless_folder[0]), centre=False, mel="vocos-24k")
    with pytest.raises(ConfigError, match="can be fused with nothing"):
        both = [{"kind": "unified", "encoder": str(folder)}, {"kind": "mel-patch"}]
        build_speech_input({"kind": "fusion", "inputs": both}, 20, 80)
    with pytest.raises(CheckpointError, match="not the tensors"):
        broken = tmp_path / "broken"
        shutil.copytree(folder, broken)
        save_file({**load_file(broken / "model.safetensors"), "more": torch.zeros(1)}, broken / "model.safetensors")
        unified_encoder.load(broken)
    with pytest.raises(ConfigError, match=r"config\.json\.mel"):
        (broken / "config.json").write_text('{"model_type": "unified_encoder"}')
        unified_encoder.load(broken)


def test_a_model_of_stored_vectors_has_no_speech_branch(tmp_path):
    model, processor = make_model(speech_input={"kind": "unified", "size": 8, "tokens": 4}, ctc_weight=0.0)
    assert model.speech_input(torch.randn(3, 8), torch.tensor([1, 1, 1]))[0].shape == (12, 64)
    checkpoint.save(tmp_path / "model", model, processor)
    from melcli.errors import UsageError
    from melcli.transcribe import Transcriber

    with pytest.raises(UsageError, match="it has no speech branch"):
        Transcriber.load(str(tmp_path / "model"))


def test_processes_that_hear_nothing_in_a_step_give_zeros(folder):
    given = settle_speech_input({"kind": "unified", "encoder": str(folder), "tokens": 6})
    model, _ = make_model(speech_input=given, ctc_weight=0.0)
    ids = torch.tensor([[5, 6, 7]])
    model(input_ids=ids, labels=ids, speech_elsewhere=True).loss.backward()
    assert model.speech_input.up_proj.weight.grad.abs().max() == 0


def test_similarity_is_the_mean_cosine():
    one, other = torch.randn(3, 2, 5), torch.randn(4, 2, 5)
    near = similarity(one, other)
    assert near.shape == (3, 4)
    assert torch.allclose(near[1, 2], torch.nn.functional.cosine_similarity(one[1], other[2], dim=-1).mean())
    assert isinstance(make_encoder(), UnifiedEncoder)
