"""Several speech inputs at once: rates that align, waveform beside mel, and no cross-talk."""

from __future__ import annotations

import pytest
import torch

from melcli.audio.mel_spec import preset
from melcli.errors import ConfigError
from melcli.models import checkpoint
from melcli.models.speech_input import SpeechInput, build_speech_input, settle_speech_input
from tests.models.conftest import make_model
from tests.models.encoder_makers import ENCODERS, WHISPER

CONV = {"kind": "mel-conv", "stride": 8, "channels": 8, "hidden": 16, "norm": "utterance"}
PATCH = {"kind": "mel-patch", "patch": 4, "norm": "none"}
WHISPERED = {"kind": "encoder", "config": WHISPER, "stack": 2}
HEARD = {"kind": "encoder", "config": ENCODERS["hubert"], "stack": 2}
RAW = {"kind": "raw-frame", "frame": 640}


def fusion(*inputs: dict, how: str = "concatenate", mel: str = "whisper-80") -> SpeechInput:
    torch.manual_seed(3)
    front = build_speech_input({"kind": "fusion", "inputs": list(inputs), "how": how}, 24, 80)
    front.bind(preset(mel))
    return front.eval()


@pytest.mark.parametrize("how", ["concatenate", "add"])
@pytest.mark.parametrize("inputs", [(CONV, PATCH), (CONV, WHISPERED, PATCH), (HEARD, RAW), (HEARD, CONV)], ids=["mel", "three", "wave", "mixed"])
def test_packed_is_the_same_as_one_by_one(inputs, how, features):
    wave = any(one["kind"] == "raw-frame" or one.get("config") is ENCODERS["hubert"] for one in inputs)
    if (HEARD in inputs) and (CONV in inputs):
        inputs = (*inputs[:1], {**CONV, "stride": 4})
    front = fusion(*inputs, how=how)
    xs = [0.1 * torch.randn(n, 1) for n in (9000, 3203, 401, 12803)] if wave else features
    with torch.no_grad():
        packed, patches = front(torch.cat(xs), torch.tensor([len(x) for x in xs]))
        single = [front(x, torch.tensor([len(x)]))[0] for x in xs]
    assert front.reads == ("wave" if wave else "mel")
    assert patches.tolist() == [front.patches(len(x)) for x in xs] == [len(s) for s in single]
    torch.testing.assert_close(packed, torch.cat(single), atol=1e-4, rtol=1e-4)


def test_concatenation_is_a_projection_of_what_the_inputs_give(features):
    front = fusion(CONV, PATCH)
    mel, frames = features[0], torch.tensor([97])
    with torch.no_grad():
        conv, patch = (one(mel, frames)[0] for one in front.inputs)
        patch = torch.nn.functional.pad(patch, (0, 0, 0, 26 - 25)).reshape(13, 48)
        torch.testing.assert_close(front(mel, frames)[0], front.proj(torch.cat([conv, patch], -1)))


def test_addition_projects_only_what_is_stacked(features):
    front = fusion(CONV, {**CONV, "norm": "none"}, how="add")
    mel, frames = features[0], torch.tensor([97])
    with torch.no_grad():
        torch.testing.assert_close(front(mel, frames)[0], front.inputs[0](mel, frames)[0] + front.inputs[1](mel, frames)[0])
    assert sum(p.numel() for p in front.projs.parameters()) == 0


def test_it_trains_saves_and_loads(tmp_path, features):
    options = {"kind": "fusion", "inputs": [CONV, HEARD | {"stack": 4}], "how": "add"}
    model, processor = make_model(speech_input=options, mel=preset("phi4mm").model_dump())
    checkpoint.save(tmp_path / "model", model, processor)
    loaded, read = checkpoint.load(str(tmp_path / "model"), offline=True)
    inputs = read([0.1 * torch.randn(n) for n in (7000, 16000, 30)])
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)
    loaded.train()(**inputs).logits.mean().backward()
    assert not [n for n, p in loaded.speech_input.named_parameters() if p.grad is None]


def test_pretrained_inputs_are_settled_and_loaded(tmp_path):
    from tests.models.encoder_makers import saved

    theirs = saved("whisper", tmp_path / "theirs")
    options = {"kind": "fusion", "inputs": [CONV, {"kind": "encoder", "model": str(tmp_path / "theirs"), "stack": 4}]}
    front = build_speech_input(settle_speech_input(options, offline=True), 24, 80)
    front.load_pretrained({"inputs": options["inputs"]}, offline=True)
    torch.testing.assert_close(front.inputs[1].encoder.state_dict(), theirs.encoder.state_dict())
    with pytest.raises(ConfigError, match="trained on whisper-80"):
        front.bind(preset("phi4mm"))


def test_what_cannot_be_fused_is_named():
    with pytest.raises(ConfigError, match="a fusion needs a list of two or more inputs"):
        fusion(CONV)
    with pytest.raises(ConfigError, match="how: 'sum' is not one of concatenate, add"):
        fusion(CONV, PATCH, how="sum")
    with pytest.raises(ConfigError, match=r"mel-patch gives a position every 5 frames, which does not divide the slowest input's 8"):
        fusion(CONV, {**PATCH, "patch": 5})
    with pytest.raises(ConfigError, match=r"raw-frame gives a position every 500 samples, which does not divide the slowest input's 1280"):
        fusion(CONV, {**RAW, "frame": 500})
    with pytest.raises(ConfigError, match="norm global needs mel features"):
        fusion({**CONV, "norm": "global"}, RAW)
