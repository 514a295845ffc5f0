"""Our own vocoder: its source, its stages, its files, and that it is streamed to the same samples."""

from __future__ import annotations

import json
import math

import pytest
import torch

from melcli.audio.io import load
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import preset
from melcli.audio.overlap import overlapped
from melcli.audio.tiny_vocos import TinyVocos, write
from melcli.audio.tiny_vocos_net import TinyVocosConfig, TinyVocosNet, pulses, turns, white
from melcli.audio.vocoder import load_vocoder, samples_of
from melcli.errors import CheckpointError, ConfigError
from melcli.registry import PACKAGE
from tests.audio.test_vocoder import streamed

SPEC = preset("speecht5")
SMALL = {"width": 24, "layers": 2, "pitch_width": 16, "pitch_layers": 1}
CLIP = PACKAGE / "assets" / "clips" / "garden-rms.wav"


@pytest.fixture(scope="module")
def vocoder() -> TinyVocos:
    """Random, with a pitch that wanders, so that a stream has something to remember."""
    torch.manual_seed(0)
    net = TinyVocosNet(TinyVocosConfig(mel=SPEC, **SMALL))
    with torch.no_grad():
        net.pitch.out.weight.mul_(40)
        net.trunk.out.weight.mul_(10)
    return TinyVocos(net)


@pytest.fixture(scope="module")
def mel_TM() -> torch.Tensor:
    return log_mel(SPEC, load(CLIP, SPEC.rate))


def test_streamed_is_whole(vocoder, mel_TM):
    whole_S = vocoder(mel_TM[None])[0]
    assert len(whole_S) == samples_of(SPEC, len(mel_TM))
    for sizes in ([1], [9, 1, 50], [len(mel_TM)]):
        assert torch.allclose(streamed(vocoder, mel_TM, sizes), whole_S, atol=1e-5)


def test_what_comes_after_the_context_changes_nothing(vocoder, mel_TM):
    whole_S = vocoder(mel_TM[None])[0]
    cut = vocoder.context + 40
    assert len(mel_TM) > cut
    same = (cut - vocoder.context) * SPEC.hop_length
    assert torch.allclose(vocoder(mel_TM[None, :cut])[0][:same], whole_S[:same], atol=1e-5)


def test_an_untrained_one_has_the_envelope_of_the_mel_already(mel_TM):
    torch.manual_seed(0)
    untrained = TinyVocos(TinyVocosNet(TinyVocosConfig(mel=SPEC, **SMALL)))
    with torch.no_grad():
        untrained.net.trunk.out.bias.unflatten(0, (3, -1))[[0, 2]] = -0.35  # two sources of equal power, each 3 dB down
    error = float((log_mel(SPEC, untrained(mel_TM[None])[0]) - mel_TM).abs().mean())
    assert error < 0.3 * float(mel_TM.std())


@pytest.mark.parametrize("hertz", [80.0, 123.4, 333.3])
def test_pulses_are_all_harmonics_at_unit_power(hertz):
    hertz_BT = torch.full((1, 63), hertz)
    wave_S = pulses(hertz_BT, turns(hertz_BT, 256, 16000), 256, 16000)[0]
    assert float(wave_S.square().mean()) == pytest.approx(1.0, abs=0.02)
    count = math.floor(8000 / hertz)
    time_S = (torch.arange(len(wave_S), dtype=torch.float64) - 256) / 16000
    expected_S = sum(torch.cos(2 * math.pi * hertz * k * time_S) for k in range(1, count + 1)) * math.sqrt(2 / count)
    assert torch.allclose(wave_S.double(), expected_S, atol=2e-2 * math.sqrt(2 * count))


def test_turns_are_the_integral_of_the_pitch():
    hertz_BT = torch.tensor([[100.0, 140.0, 90.0, 200.0]])
    samples = [100 + 40 * j / 256 for j in range(256)] + [140 - 50 * j / 256 for j in range(256)] + [90 + 110 * j / 256 for j in range(256)]
    expected = [sum(samples[: 256 * t]) / 16000 for t in range(4)]
    assert turns(hertz_BT, 256, 16000)[0].tolist() == pytest.approx(expected, rel=1e-9)


def test_noise_belongs_to_its_place():
    whole_S = white(0, 300, 64)
    assert torch.equal(white(130, 100, 64), whole_S[130 * 64 : 230 * 64])
    assert float(whole_S.std()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("width", [12, 10, 3])
def test_overlapped_adds_frames_up(width):
    frames_BUW = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    expected_BS = torch.zeros(2, 4 * 4 + width)
    for frame in range(5):
        expected_BS[:, 4 * frame : 4 * frame + width] += frames_BUW[:, frame]
    assert torch.allclose(overlapped(frames_BUW, 4), expected_BS, atol=1e-6)


def test_written_and_loaded(vocoder, mel_TM, tmp_path):
    write(tmp_path / "model", vocoder.net)
    loaded = load_vocoder(str(tmp_path), SPEC)  # the folder of a run stands for its model
    assert torch.equal(loaded(mel_TM[None]), vocoder(mel_TM[None]))
    write(tmp_path / "half", vocoder.net, torch.float16)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * (tmp_path / "model" / "model.safetensors").stat().st_size
    with pytest.raises(ConfigError, match="rate 24000 is not 16000"):
        load_vocoder(str(tmp_path), preset("vocos-24k"))


def test_files_that_cannot_be(vocoder, tmp_path):
    write(tmp_path, vocoder.net)
    fields = json.loads((tmp_path / "config.json").read_text())
    for change, message in (
        ({"width": 32}, "wrong shape for"),
        ({"kernel": 4}, "kernel 4 is even"),
        ({"depth": 4}, "depth: Extra inputs"),
        ({"mel": {**fields["mel"], "padding": "none"}}, "padding center"),
        ({"n_fft": 500}, "n_fft 500 must be a multiple"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(fields | change))
        with pytest.raises(CheckpointError, match=message) as caught:
            load_vocoder(str(tmp_path), SPEC)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_vocoder(str(tmp_path), SPEC)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing"):
        load_vocoder(str(tmp_path), SPEC)


def test_silence_stays_silent(vocoder):
    assert float(vocoder(torch.full((1, 100, 80), -10.0)).abs().max()) < 1e-3
    assert vocoder(torch.empty(1, 0, 80)).shape == (1, 0)
    assert vocoder(torch.zeros(1, 1, 80)).shape == (1, 0)
    assert bool(torch.isfinite(vocoder(torch.full((1, 20, 80), 40.0))).all())
