"""Recordings to replies with a random model that really hears, writes and speaks: what the commands rest on."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from melcli import registry
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, CheckpointError, UsageError
from melcli.inputs import AudioInput
from melcli.models.replier import Replier
from melcli.reply import Responder
from tests.reply_maker import save_replier

CLIP = Path(registry.__file__).parent / "assets" / "clips" / "garden-rms.wav"
OPTIONS = {"vocoder": "griffin-lim", "max_seconds": 0.4, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_replier(tmp_path_factory.mktemp("replier") / "model")


def item(path: Path, **stretch: float) -> AudioInput:
    return AudioInput(f"{path.name} {stretch}", Utterance("x", (str(path),), **stretch))


@pytest.mark.parametrize("task", ["answer", "continue"])
def test_replies_are_the_models(folder: Path, tmp_path: Path, task: str) -> None:
    clip = tmp_path / "backwards.wav"
    soundfile.write(clip, soundfile.read(CLIP)[0][::-1], soundfile.info(CLIP).samplerate)
    responder = Responder.load(str(folder), task, speak=True, **OPTIONS)
    items = [item(CLIP, end=3.1), item(clip, start=0.1)]
    found = list(responder.replies(items))
    replier = Replier.load(str(folder), device="cpu", dtype="float32")
    waves = [responder.hear(one) for one in items]
    expected = replier.reply(waves, task, max_seconds=0.4)
    assert [(one.heard, one.said, one.reason) for one in found] == [(one.heard, one.said, one.text_reason) for one in expected]
    assert len({one.text for one in found}) == 2 and all(one.seconds == len(wave_S) / 16000 for one, wave_S in zip(found, waves, strict=True))
    for one, other in zip(found, expected, strict=True):
        assert one.stopped == other.spoken.reason and one.took > 0
        assert torch.allclose(one.wave_S, responder.vocoder(other.spoken.mel_TM[None])[0], atol=1e-5)
    assert "prompt" in responder.decisions if task == "continue" else "prompt" not in responder.decisions


@pytest.mark.parametrize("task", ["answer", "continue"])
def test_streamed_is_whole(folder: Path, task: str) -> None:
    responder = Responder.load(str(folder), task, speak=True, **OPTIONS)
    (whole,) = responder.replies([item(CLIP, end=3.1)])
    stages = list(responder.stream(item(CLIP, end=3.1)))
    assert [stage.kind for stage in stages[:2]] == ["heard", "said"] and {stage.kind for stage in stages[2:]} == {"speech"}
    assert [stage.text for stage in stages[:2]] == [whole.heard, whole.said]
    last = responder.last
    assert (last.heard, last.said, last.reason, last.stopped, last.seconds) == (whole.heard, whole.said, whole.reason, whole.stopped, whole.seconds)
    wave_S = torch.cat([stage.wave_S for stage in stages[2:]])
    assert len(wave_S) == len(whole.wave_S)


def test_text_alone(folder: Path, tmp_path: Path) -> None:
    responder = Responder.load(str(folder), "answer", speak=False, device="cpu", dtype="float32")
    (one,) = responder.replies([item(CLIP, end=2.0)])
    assert one.wave_S is None and one.text and [stage.kind for stage in responder.stream(item(CLIP, end=2.0))] == ["heard", "said"]
    silent = save_replier(tmp_path / "writes", tasks=("answer",), speaks=False)
    responder = Responder.load(str(silent), "answer", speak=False, device="cpu", dtype="float32")
    (one,) = responder.replies([item(CLIP, end=2.0)])
    assert one.error is None and one.wave_S is None
    with pytest.raises(UsageError, match=r"replies in text only, it has no speech output; leave out -o\."):
        Responder.load(str(silent), "answer", speak=True, **OPTIONS)
    with pytest.raises(UsageError, match="was not trained for task continue; it was for answer"):
        Responder.load(str(silent), "continue", speak=True, **OPTIONS)


def test_a_model_that_only_transcribes() -> None:
    with pytest.raises(CheckpointError, match=r"^--model tiny-en: this model has not learnt to continue or to answer speech; it can transcribe$"):
        Responder.load("tiny-en", "answer", speak=False, device="cpu")


def test_recordings_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", torch.zeros(4 * 16000).numpy(), 16000)
    soundfile.write(tmp_path / "long.wav", (0.1 * torch.randn(7 * 16000)).numpy(), 16000)
    cases = [
        ("answer", item(tmp_path / "silent.wav"), "silent.wav: is silent: there is no question in it.$"),
        ("continue", item(tmp_path / "silent.wav"), "silent.wav: is silent: there is no speech in it to continue.$"),
        ("answer", item(tmp_path / "long.wav"), r"long.wav: a question of 7.00 s: between 0.2 and 6 s can be answered$"),
        ("continue", item(CLIP, end=2.1), r"garden-rms.wav: 2.10 s of speech, and this model goes on after 3 s: give a longer prompt$"),
        ("answer", item(tmp_path / "gone.wav"), "gone.wav: "),
    ]
    for task, one, message in cases:
        responder = Responder.load(str(folder), task, speak=False, device="cpu", dtype="float32")
        with pytest.raises(AudioError, match=message):
            responder.hear(one)
        bad, good = responder.replies([one, item(CLIP)])
        assert bad.error is not None and good.error is None and good.text


def test_a_prompt_that_rounding_made_short(folder: Path) -> None:
    responder = Responder.load(str(folder), "continue", speak=False, device="cpu", dtype="float32")
    assert len(responder.hear(item(CLIP, end=2.995))) == 48000 == len(responder.hear(item(CLIP)))


def test_the_seam_is_faded(folder: Path) -> None:
    responder = Responder.load(str(folder), "continue", speak=True, **OPTIONS)
    prompt_S, new_S = responder.prompted(item(CLIP)), responder.begun(torch.ones(1600))
    assert len(prompt_S) == 48000 and prompt_S[-1] == 0 == new_S[0] and new_S[80:].min() == 1 and len(new_S) == 1600
