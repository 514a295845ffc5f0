"""Vocoders: the contract that all share, and Griffin-Lim, which reads any mel."""

from __future__ import annotations

import sys

import pytest
import torch

from melcli.audio.io import load
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import PRESETS, preset
from melcli.audio.vocoder import load_vocoder, samples_of
from melcli.errors import AudioError, CheckpointError, ConfigError, MelcliError
from melcli.registry import PACKAGE
from tests.audio import vocoder_makers

CLIP = sorted((PACKAGE / "assets" / "clips").glob("*.wav"))[0]


def streamed(vocoder, mel_TM, sizes):
    """What pieces of these sizes, over and over, give."""
    stream, pieces, at = vocoder.stream(), [], 0
    while at < len(mel_TM):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream.push(mel_TM[at : at + size]))
        at += size
    return torch.cat([*pieces, stream.flush()])


@pytest.mark.parametrize("name", PRESETS)
def test_griffin_lim_gives_audio_with_the_same_mel(name):
    spec = PRESETS[name]
    mel_TM = log_mel(spec, load(CLIP, spec.rate))
    wave_BS = load_vocoder("griffin-lim", spec)(mel_TM[None])
    assert wave_BS.shape == (1, samples_of(spec, len(mel_TM)))
    again_TM = log_mel(spec, wave_BS[0])
    assert len(again_TM) == len(mel_TM)
    noise_S = torch.randn(wave_BS.shape[1], generator=torch.Generator().manual_seed(0)) * wave_BS.std()
    error, chance = (float((mel_TM - other_TM).abs().mean() / mel_TM.std()) for other_TM in (again_TM, log_mel(spec, noise_S)))
    assert error < 0.12  # of a standard deviation; 0.02 to 0.09 when this was written
    assert error < chance / 8


def test_what_is_too_loud_is_rounded_off_once():
    spec = preset("speecht5")
    mel_TM = log_mel(spec, load(CLIP, spec.rate)[:8000]) + 0.45  # nearly three times as loud
    vocoder = load_vocoder("griffin-lim", spec)
    vocoder.iterations = 2
    whole_S = vocoder(mel_TM[None])[0]
    assert torch.equal(streamed(vocoder, mel_TM, [7]), whole_S)
    loud_S = whole_S[whole_S.abs() > 0.96]
    assert float(whole_S.abs().max()) <= 1 and len(loud_S.unique()) > 0.5 * len(loud_S) > 10, "not cut"


def test_griffin_lim_streams_to_the_bit(monkeypatch):
    monkeypatch.setattr("melcli.audio.griffin_lim.BLOCK", 24)
    spec = preset("speecht5")
    mel_TM = log_mel(spec, load(CLIP, spec.rate))
    vocoder = load_vocoder("griffin-lim", spec)
    vocoder.iterations = 4
    whole_S = vocoder(mel_TM[None])[0]
    for sizes in ([1], [7, 40, 2], [1000]):
        assert torch.equal(streamed(vocoder, mel_TM, sizes), whole_S)
    stream = vocoder.stream()
    first_S = stream.push(mel_TM[:60])
    assert len(first_S) > 0
    stream.flush()
    with pytest.raises(AudioError, match="was flushed"):
        stream.push(mel_TM[:1])


FAMILIES = {
    "speecht5-hifigan": (vocoder_makers.hifigan, "speecht5", None),
    "univnet": (vocoder_makers.univnet, "bigvgan-24k", None),
    "vocos": (vocoder_makers.vocos, "vocos-24k", "vocos"),
    "bigvgan": (vocoder_makers.bigvgan, "bigvgan-22k", "bigvgan"),
}


@pytest.fixture(scope="module")
def family(request, tmp_path_factory):
    """(vocoder, folder) of a family, random."""
    make, mel, package = FAMILIES[request.param]
    if package is not None:
        pytest.importorskip(package, reason=f"the package {package} is not installed", exc_type=ImportError)
    folder = make(tmp_path_factory.mktemp("vocoder") / request.param)
    return load_vocoder(str(folder), preset(mel)), folder


every_family = pytest.mark.parametrize("family", FAMILIES, indirect=True)


def noise_mel(spec, frames, seed=0):
    """The mel of white noise that swells and fades."""
    samples = samples_of(spec, frames)
    noise_S = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return log_mel(spec, 0.1 * noise_S * (torch.arange(samples) / 3000).sin())


@every_family
def test_a_familys_checkpoint_speaks_as_its_own_class_does(family):
    vocoder, folder = family
    mel_TM = noise_mel(vocoder.spec, 40)
    wave_S = vocoder(mel_TM[None])[0]
    assert len(wave_S) == samples_of(vocoder.spec, 40)
    assert float(wave_S.abs().max()) > 1e-3
    expected_S = own_class(vocoder.family, folder, mel_TM)[: len(wave_S)].clamp(-1, 1)
    assert torch.allclose(wave_S, expected_S, atol=1e-5)


def own_class(name, folder, mel_TM):
    """What the publisher's own way of loading and calling gives."""
    with torch.no_grad():
        if name == "speecht5-hifigan":
            from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

            fields = SpeechT5HifiGanConfig.from_json_file(folder / "config.json")
            net = SpeechT5HifiGan(fields)
            net.load_state_dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
            return net.eval()(mel_TM)
        if name == "univnet":
            from transformers import UnivNetFeatureExtractor, UnivNetModel

            from melcli.audio.vocoder_families import placed_noise

            extractor = UnivNetFeatureExtractor.from_pretrained(folder)
            net = UnivNetModel.from_pretrained(folder).eval()
            return net(extractor.normalize(mel_TM)[None], noise_sequence=placed_noise(0, len(mel_TM), 16)[None]).waveforms[0]
        if name == "vocos":
            from vocos import Vocos

            net = Vocos.from_hparams(folder / "config.yaml")
            net.load_state_dict(torch.load(folder / "pytorch_model.bin", weights_only=True))
            return net.eval().decode(mel_TM.T[None])[0]
        from bigvgan.bigvgan import BigVGAN, load_hparams_from_json

        net = BigVGAN(load_hparams_from_json(folder / "config.json"))
        net.load_state_dict(torch.load(folder / "bigvgan_generator.pt", weights_only=True)["generator"])
        return net.eval()(mel_TM.T[None])[0, 0]


@every_family
def test_streamed_is_whole_and_context_is_all_that_is_seen(family):
    vocoder, _ = family
    frames = 2 * vocoder.context + 30
    mel_TM = noise_mel(vocoder.spec, frames)
    whole_S = vocoder(mel_TM[None])[0]
    for sizes in ([1, 13], [frames - 1]):
        assert torch.allclose(streamed(vocoder, mel_TM, sizes), whole_S, atol=1e-5)
    hop, middle = vocoder.spec.hop_length, vocoder.context + 15
    other_TM = mel_TM.clone()
    other_TM[middle] += 1.0
    changed = (vocoder(other_TM[None])[0] != whole_S).nonzero().flatten() // hop
    assert len(changed)
    assert middle - vocoder.context <= int(changed.min())
    assert int(changed.max()) <= middle + vocoder.context


@every_family
def test_a_row_does_not_depend_on_its_batch(family):
    vocoder, _ = family
    long_TM, short_TM = noise_mel(vocoder.spec, 30), noise_mel(vocoder.spec, 21, seed=1)
    batch_BTM = torch.nn.utils.rnn.pad_sequence([long_TM, short_TM], batch_first=True)
    wave_BS = vocoder(batch_BTM, torch.tensor([30, 21]))
    assert torch.allclose(wave_BS[0], vocoder(long_TM[None])[0], atol=1e-6)
    alone_S = vocoder(short_TM[None])[0]
    assert torch.allclose(wave_BS[1, : len(alone_S)], alone_S, atol=1e-6)
    assert not wave_BS[1, len(alone_S) :].any()


@every_family
@pytest.mark.parametrize("mel", ["phi4mm", "whisper-80"])
def test_another_mel_is_refused_in_one_line(family, mel):
    vocoder, folder = family
    for name in (str(folder), vocoder.family):
        with pytest.raises(ConfigError, match="hop_length 160 is not 256") as caught:
            load_vocoder(name, preset(mel), offline=True)
        assert "\n" not in str(caught.value)


def bad_mels():
    yield "shape", torch.zeros(1, 5, 3), "rows x frames x 80, not 1 x 5 x 3"
    yield "axes", torch.zeros(5, 80), "rows x frames x 80, not 5 x 80"
    yield "nan", torch.full((1, 5, 80), float("nan")), "NaN or infinite"
    yield "infinite", torch.full((1, 5, 80), float("-inf")), "NaN or infinite"


@pytest.mark.parametrize(("mel", "message"), [case[1:] for case in bad_mels()], ids=[case[0] for case in bad_mels()])
def test_mels_that_cannot_be(mel, message):
    with pytest.raises(AudioError, match=message):
        load_vocoder("griffin-lim", preset("speecht5"))(mel)


@pytest.mark.parametrize("name", ["griffin-lim"])
def test_empty_short_and_silent_mels(name):
    spec = preset("speecht5")
    vocoder = load_vocoder(name, spec)
    assert vocoder(torch.empty(2, 0, 80)).shape == (2, 0)
    assert len(vocoder.stream().flush()) == 0
    assert vocoder(torch.full((1, 1, 80), -3.0)).shape == (1, samples_of(spec, 1))
    silence_S = vocoder(torch.full((1, 200, 80), -10.0))[0]
    assert float(silence_S.abs().max()) < 1e-4
    loud_S = vocoder(torch.full((1, 60, 80), 300.0))[0]
    assert bool(torch.isfinite(loud_S).all()) and float(loud_S.abs().max()) <= 1.0
    with pytest.raises(AudioError, match="frames_B"):
        vocoder(torch.zeros(1, 5, 80), torch.tensor([6]))


def test_names_that_are_no_vocoder(tmp_path):
    spec = preset("speecht5")
    with pytest.raises(ConfigError, match=r"no vocoder is called 'grifin-lim'. Did you mean 'griffin-lim'\?"):
        load_vocoder("grifin-lim", spec)
    with pytest.raises(CheckpointError, match=r"no config.json"):
        load_vocoder(str(tmp_path), spec)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"model_type 'bert'\) is of no vocoder"):
        load_vocoder(str(tmp_path), spec)
    with pytest.raises(CheckpointError, match="offline nothing is downloaded"):
        load_vocoder("speecht5-hifigan", spec, offline=True)


def test_broken_weights_are_refused_in_one_line(tmp_path):
    folder = vocoder_makers.hifigan(tmp_path / "hifigan")
    weights = folder / "pytorch_model.bin"
    state = torch.load(weights, weights_only=True)
    spec = preset("speecht5")

    class Payload:
        def __reduce__(self):
            return (print, ("this ran",))

    del state["conv_pre.bias"]
    for content, message in (
        (state, "misses conv_pre.bias"),
        ({**state, "conv_pre.bias": torch.zeros(3)}, "wrong shape for conv_pre.bias"),
        ({"conv_pre.bias": Payload()}, "more than tensors, which is never opened"),
        ([1, 2], "holds no tensors by name"),
    ):
        torch.save(content, weights)
        with pytest.raises(CheckpointError, match=message):
            load_vocoder(str(folder), spec)
    weights.write_bytes(b"no pickle")
    with pytest.raises(MelcliError, match=r"pytorch_model.bin"):
        load_vocoder(str(folder), spec)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor pytorch_model.bin"):
        load_vocoder(str(folder), spec)


def test_a_vocos_file_cannot_name_other_classes(tmp_path):
    pytest.importorskip("vocos", reason="the package vocos is not installed", exc_type=ImportError)
    folder = vocoder_makers.vocos(tmp_path / "vocos")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("vocos.heads.ISTFTHead", "os.system"))
    with pytest.raises(CheckpointError, match=r"head is 'os.system', and only vocos.heads.ISTFTHead"):
        load_vocoder(str(folder), preset("vocos-24k"))


@pytest.mark.parametrize("name", ["vocos", "bigvgan"])
def test_a_missing_package_says_how_to_get_it(name, monkeypatch):
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'melcli\[{name}\]'"):
        load_vocoder(name, preset({"vocos": "vocos-24k", "bigvgan": "bigvgan-22k"}[name]))


def test_auto_takes_what_reads_the_mel():
    assert load_vocoder("auto", preset("phi4mm")).family == "griffin-lim"
