"""Every mel preset against the public extractor that it must equal, and the properties that models rely on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from melcli.audio.io import load
from melcli.audio.mel import LogMel, log_mel, log_mel_many, mel_filters
from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.errors import AudioError

TOLERANCE = 1e-3  # in the logarithm, of every single value


def phi4mm() -> Callable[[Tensor], Tensor]:
    from transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal import Phi4MultimodalFeatureExtractor

    extractor = Phi4MultimodalFeatureExtractor()
    return lambda wave_S: extractor(wave_S, sampling_rate=16000, return_tensors="pt").audio_input_features[0]


def whisper(n_mels: int) -> Callable[[Tensor], Tensor]:
    """Without its default padding to 30 s of silence, which adds frames and changes none but the last that is real."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(n_mels)
    return lambda wave_S: torch.as_tensor(extractor(wave_S.numpy(), sampling_rate=16000, padding=False).input_features[0]).T


def speecht5() -> Callable[[Tensor], Tensor]:
    from transformers import SpeechT5FeatureExtractor

    extractor = SpeechT5FeatureExtractor()
    return lambda wave_S: torch.as_tensor(extractor(audio_target=wave_S.numpy(), sampling_rate=16000).input_values[0])


def vocos() -> Callable[[Tensor], Tensor]:
    """MelSpectrogramFeatures of the vocos 0.1.0 wheel: torchaudio's magnitude mel, clipped at 1e-7, natural log."""
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(24000, n_fft=1024, hop_length=256, n_mels=100, center=True, power=1)
    return lambda wave_S: torch.log(torch.clip(mel(wave_S), min=1e-7)).T


def bigvgan(rate: int, bins: int, high: float) -> Callable[[Tensor], Tensor]:
    """mel_spectrogram of the bigvgan 2.4.1 wheel; librosa's filters are transformers' with slaney scale and norm."""
    from transformers.audio_utils import mel_filter_bank

    filters_FM = torch.from_numpy(mel_filter_bank(513, bins, 0, high, rate, norm="slaney", mel_scale="slaney")).float()

    def extract(wave_S: Tensor) -> Tensor:
        padded_S = torch.nn.functional.pad(wave_S[None, None], (384, 384), mode="reflect")[0, 0]
        spectrum_FT = torch.stft(padded_S, 1024, 256, 1024, torch.hann_window(1024), center=False, return_complex=True)
        magnitude_FT = torch.sqrt(torch.view_as_real(spectrum_FT).pow(2).sum(-1) + 1e-9)
        return torch.log(torch.clamp(filters_FM.T @ magnitude_FT, min=1e-5)).T

    return extract


PEERS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "phi4mm": phi4mm,
    "whisper-80": lambda: whisper(80),
    "whisper-128": lambda: whisper(128),
    "speecht5": speecht5,
    "vocos-24k": vocos,
    "bigvgan-22k": lambda: bigvgan(22050, 80, 8000),
    "bigvgan-24k": lambda: bigvgan(24000, 100, 12000),
}


@pytest.fixture(scope="module", params=list(PRESETS))
def case(request: pytest.FixtureRequest) -> tuple[MelSpec, Callable[[Tensor], Tensor]]:
    return PRESETS[request.param], PEERS[request.param]()


def signals(rate: int) -> dict[str, Tensor]:
    """Waveforms that break extractors: loud, quiet, silent, pure tones, clicks, half silence."""
    generator = torch.Generator().manual_seed(3)
    time_S = torch.arange(rate * 2) / rate
    noise_S = torch.randn(rate * 2, generator=generator)
    click_S = torch.zeros(rate * 2)
    click_S[rate // 3] = 0.9
    return {
        "noise": 0.1 * noise_S,
        "full scale": noise_S.clamp(-1, 1),
        "very quiet": 1e-6 * noise_S,
        "silence": torch.zeros(rate * 2),
        "offset": 0.05 * noise_S + 0.5,
        "sine": 0.5 * torch.sin(2 * math.pi * 440 * time_S) + 1e-4 * noise_S,
        "click": click_S,
        "half": torch.where(time_S < 1, 0.3 * noise_S, 0.0),
    }


def test_equals_the_public_extractor_on_made_signals(case):
    spec, peer = case
    for name, wave_S in signals(spec.rate).items():
        expected_TM, mel_TM = peer(wave_S), log_mel(spec, wave_S)
        assert mel_TM.shape == expected_TM.shape, name
        assert float((mel_TM - expected_TM).abs().max()) < TOLERANCE, name


def test_univnets_extractor_computes_what_bigvgan_reads():
    """In float64, which shows in bins 80 dB below a tone and nowhere else."""
    from transformers import UnivNetFeatureExtractor

    extractor = UnivNetFeatureExtractor()
    made = signals(24000)
    for name in ("noise", "very quiet", "click", "half"):
        mel_TM = log_mel(PRESETS["bigvgan-24k"], made[name])
        assert float((mel_TM - torch.as_tensor(extractor.mel_spectrogram(made[name].numpy()))).abs().max()) < TOLERANCE, name


def test_equals_the_public_extractor_on_real_speech(case, shared_data: Path):
    spec, peer = case
    # a clean opus, an mp3 with nothing above 5 kHz, and 8 kHz digits: the last two are hard, their upper bins are almost empty
    paths = [
        *sorted(shared_data.glob("librispeech/LibriSpeech/train-clean-100/*/*/*.opus"))[:60:20],
        *sorted(shared_data.glob("librispeech/LibriSpeech/dev-clean/*/*/*.mp3"))[:90:30],
        *sorted(shared_data.glob("digits/**/*.flac"))[:300:100],
        *sorted(shared_data.glob("robotutor/**/*.opus"))[:2000:700],
    ]
    assert len(paths) >= 10
    for path in paths:
        wave_S = load(path, spec.rate)
        expected_TM, mel_TM = peer(wave_S), log_mel(spec, wave_S)
        assert mel_TM.shape == expected_TM.shape, path.name
        assert float((mel_TM - expected_TM).abs().max()) < TOLERANCE, path.name


def awkward_lengths(spec: MelSpec) -> list[int]:
    window, hop = spec.win_length, spec.hop_length
    near = [window - 1, window, window + 1, 399, 400, 401, 559, 560, 561, 1023, 1024, 1025, *range(window + hop - 1, window + hop + 2)]
    return sorted({*near, *(hop * k + d for k in (7, 8, 64) for d in (-1, 0, 1)), 16000, 16001})


def test_frame_counts_equal_at_awkward_lengths(case):
    spec, peer = case
    wave_S = 0.1 * torch.randn(20000, generator=torch.Generator().manual_seed(5))
    for samples in awkward_lengths(spec):
        if samples < spec.win_length:
            with pytest.raises(AudioError, match=f"{samples} samples"):
                log_mel(spec, wave_S[:samples])
            continue
        expected_TM, mel_TM = peer(wave_S[:samples]), log_mel(spec, wave_S[:samples])
        assert spec.frames(samples) == len(expected_TM) == len(mel_TM), samples
        assert float((mel_TM - expected_TM).abs().max()) < TOLERANCE, samples


def test_a_waveform_gives_the_same_in_any_batch(case):
    spec, _ = case
    generator = torch.Generator().manual_seed(7)
    lengths = [spec.win_length, 5000, 16000, 3 * spec.rate + 17, 2 * spec.rate]
    waves = [0.1 * torch.randn(length, generator=generator) for length in lengths]
    alone = [log_mel(spec, wave_S) for wave_S in waves]
    for mel_TM, expected_TM in zip(log_mel_many(spec, waves), alone, strict=True):
        torch.testing.assert_close(mel_TM, expected_TM, atol=2e-4, rtol=0)
    wave_BS = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True, padding_value=9.0)  # padding must not be heard
    mel_BTM, frames_B = LogMel(spec)(wave_BS, torch.tensor(lengths))
    assert frames_B.tolist() == [spec.frames(length) for length in lengths]
    for mel_TM, frames, expected_TM in zip(mel_BTM, frames_B.tolist(), alone, strict=True):
        torch.testing.assert_close(mel_TM[:frames], expected_TM, atol=2e-4, rtol=0)
        assert not mel_TM[frames:].any()


def test_blocks_leave_no_seam(case, monkeypatch):
    spec, _ = case
    wave_S = 0.1 * torch.randn(4 * spec.rate, generator=torch.Generator().manual_seed(9))
    whole_TM = log_mel(spec, wave_S)
    monkeypatch.setattr("melcli.audio.mel.BLOCK_CPU", 7 * spec.n_fft)
    torch.testing.assert_close(log_mel(spec, wave_S), whole_TM, atol=2e-4, rtol=0)


def test_too_short_names_the_waveform():
    with pytest.raises(AudioError, match="audio 1 of 3 is too short: 399 samples, one window is 400"):
        log_mel_many(PRESETS["phi4mm"], [torch.zeros(400), torch.zeros(399), torch.zeros(400)])


def test_input_is_left_as_it_was_and_autocast_changes_nothing():
    wave_S = 0.1 * torch.randn(16000, generator=torch.Generator().manual_seed(1))
    copy_S = wave_S.clone()
    expected_TM = log_mel(PRESETS["phi4mm"], wave_S)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model = torch.nn.ModuleList([LogMel(PRESETS["phi4mm"])]).to(torch.bfloat16)
        mel_TM = model[0].many([wave_S])[0]
    assert torch.equal(mel_TM, expected_TM)
    assert torch.equal(wave_S, copy_S)


def test_half_precision_and_strided_waveforms_are_taken():
    wave_S = 0.1 * torch.randn(32000, generator=torch.Generator().manual_seed(1))
    expected_TM = log_mel(PRESETS["phi4mm"], wave_S[::2].contiguous())
    assert torch.equal(log_mel(PRESETS["phi4mm"], wave_S[::2]), expected_TM)
    assert log_mel(PRESETS["phi4mm"], wave_S.half()).dtype == torch.float32


@pytest.mark.parametrize("window,n_fft,padding", [(400, 512, "center"), (300, 512, "hop"), (320, 400, "center"), (400, 512, "none")])
def test_windows_shorter_than_the_fft_follow_torch_stft(window: int, n_fft: int, padding: str):
    spec = MelSpec(rate=16000, n_fft=n_fft, win_length=window, hop_length=100, n_mels=40, f_max=8000, padding=padding, floor=1e-10)
    wave_S = 0.1 * torch.randn(5000, generator=torch.Generator().manual_seed(2))
    pad = {"center": n_fft // 2, "hop": (n_fft - 100) // 2, "none": 0}[padding]
    padded_S = torch.nn.functional.pad(wave_S[None, None], (pad, pad), mode="reflect")[0, 0] if pad else wave_S
    if padding == "none":  # kaldi's way: the frame starts at its first sample, and zeros follow
        spectrum_TF = torch.fft.rfft(padded_S.unfold(0, window, 100) * torch.hann_window(window), n=n_fft)
    else:
        spectrum_TF = torch.stft(padded_S, n_fft, 100, window, torch.hann_window(window), center=False, return_complex=True).T
    expected_TM = (spectrum_TF.abs().square() @ mel_filters(spec).float()).clamp_min(1e-10).log()
    mel_TM = log_mel(spec, wave_S)
    assert len(mel_TM) == spec.frames(5000)
    torch.testing.assert_close(mel_TM, expected_TM, atol=1e-3, rtol=0)


def test_no_gradient_and_no_state():
    wave_S = torch.randn(16000, requires_grad=True)
    assert not log_mel(PRESETS["whisper-80"], wave_S).requires_grad
    assert LogMel(PRESETS["whisper-80"]).state_dict() == {}


def test_filters_equal_transformers():
    from transformers.audio_utils import mel_filter_bank

    for n_mels, scale, norm in ((80, "slaney", "slaney"), (128, "slaney", "slaney"), (64, "htk", None)):
        spec = MelSpec(rate=16000, n_fft=400, win_length=400, hop_length=160, n_mels=n_mels, f_max=8000, mel_scale=scale, mel_norm=norm or "none")
        expected = mel_filter_bank(201, n_mels, 0, 8000, 16000, norm=norm, mel_scale=scale)
        assert np.abs(mel_filters(spec).numpy() - expected).max() < 1e-9


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(PRESETS))
def test_gpu_equals_cpu(name: str):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    spec = PRESETS[name]
    waves = [0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples)) for samples in (5000, 48000, 160001)]
    on_gpu = log_mel_many(spec, [wave_S.cuda() for wave_S in waves])
    for mel_TM, expected_TM in zip(on_gpu, log_mel_many(spec, waves), strict=True):
        assert mel_TM.is_cuda
        torch.testing.assert_close(mel_TM.cpu(), expected_TM, atol=TOLERANCE, rtol=0)
