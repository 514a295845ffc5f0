"""What a tiny-vocos vocoder learns from: distances of spectrograms, and the pitch.

Shapes: B crops, S samples, T frames, F FFT bins, M mel bins, K pitches.

A vocoder's audio is one of many that have the mel, since noise and the place of the pulses are free. A plain distance to the recording is least
for the blurred middle of them all: no noise, a buzz. The generalised energy distance (Gritsenko et al. 2020, arXiv 2008.01160),
2 d(x, y) - d(y, y') with two independent renderings y and y' of one mel, is least only where the renderings are distributed as recordings are.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from melcli.audio.mel import mel_filters
from melcli.audio.mel_spec import MelSpec
from melcli.vocoder_recipe import LossSection

FLOOR = 1e-4  # of a magnitude, white noise of unit variance having 1: 80 dB down nothing is heard
MEL_FLOOR = 1e-5  # the same for mel values of unscaled windows
SPREAD = 1.5  # steps of the pitch grid: standard deviation of the target around the pitch
UNVOICED = 0.05  # weight of frames without a pitch, so that the estimate does not jump there


def magnitudes(wave_BS: Tensor, n_fft: int) -> Tensor:
    """STFT magnitudes [B, T, F], a quarter of `n_fft` apart, of windows with unit energy. Their gradient is finite at silence."""
    window_W = torch.hann_window(n_fft, device=wave_BS.device)
    window_W = window_W / window_W.square().sum().sqrt()
    spectrum_BTF = torch.fft.rfft(wave_BS.unfold(1, n_fft, n_fft // 4) * window_W)
    return (torch.view_as_real(spectrum_BTF).square().sum(-1) + 1e-10).sqrt()


def distance(one_BTF: Tensor, other_BTF: Tensor, scale_B: Tensor) -> Tensor:
    """Mean difference of logarithms, and of magnitudes relative to the recording's mean: [B]."""
    logs_B = ((one_BTF + FLOOR).log() - (other_BTF + FLOOR).log()).abs().mean((1, 2))
    return logs_B + (one_BTF - other_BTF).abs().mean((1, 2)) / scale_B


def spectral(real_BS: Tensor, one_BS: Tensor, other_BS: Tensor, spec: MelSpec, section: LossSection) -> dict[str, Tensor]:
    """Energy distances `stft` and `mel`, and `l1`, the plain distance of log-mels that they leave."""
    rows = len(real_BS)
    total = real_BS.new_zeros(())
    for n_fft in section.ffts:
        made = magnitudes(torch.cat([one_BS, other_BS]), n_fft)
        with torch.no_grad():
            real = magnitudes(real_BS, n_fft)
            scale_B = real.mean((1, 2)) + 1e-3
        one, other = made[:rows], made[rows:]
        total = total + (distance(real, one, scale_B) + distance(real, other, scale_B) - distance(one, other, scale_B)).mean()
    made = log_mels(torch.cat([one_BS, other_BS]), spec)
    with torch.no_grad():
        real = log_mels(real_BS, spec)
    far = [(a - b).abs().mean() for a, b in ((real, made[:rows]), (real, made[rows:]), (made[:rows], made[rows:]))]
    return {"stft": total / len(section.ffts), "mel": far[0] + far[1] - far[2], "l1": far[0].detach()}


def log_mels(wave_BS: Tensor, spec: MelSpec) -> Tensor:
    """Log-mels [B, T, M] in natural units, floored at MEL_FLOOR; frames that lie whole in the crop. Unlike LogMel it has a gradient."""
    window_W = torch.hann_window(spec.win_length, device=wave_BS.device)
    spectrum_BTF = torch.fft.rfft(wave_BS.unfold(1, spec.win_length, spec.hop_length) * window_W, spec.n_fft)
    power_BTF = torch.view_as_real(spectrum_BTF).square().sum(-1) + 1e-10
    mel_BTM = (power_BTF.sqrt() if spec.power == 1 else power_BTF) @ _filters(spec).to(wave_BS)
    return mel_BTM.clamp_min(MEL_FLOOR).log() / spec.power


@functools.lru_cache(maxsize=4)
def _filters(spec: MelSpec) -> Tensor:
    return mel_filters(spec).float()


def pitch_loss(logits_BTK: Tensor, hertz_BT: Tensor, voiced_BT: Tensor, low: float, steps: int) -> Tensor:
    """Cross entropy against a narrow bell around the pitch."""
    at_BT1 = steps * (hertz_BT / low).log2()[..., None]
    steps_K = torch.arange(logits_BTK.shape[-1], device=hertz_BT.device)
    target_BTK = (-0.5 * ((steps_K - at_BT1) / SPREAD) ** 2).softmax(-1)
    found_BT = -(target_BTK * logits_BTK.float().log_softmax(-1)).sum(-1)
    weight_BT = voiced_BT.float().clamp_min(UNVOICED)
    return (weight_BT * found_BT).sum() / weight_BT.sum()
