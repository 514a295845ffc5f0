"""Waveforms to log-mel spectrograms, one implementation for every preset.

Shapes: B batch, S samples, T mel frames, M mel bins, W window, N FFT length, F FFT bins.

Frames are a strided view of the waveform. A block of them at a time goes through window, FFT, filters and logarithm in buffers that stay
in the processor's cache; that, and leaving out every copy, is what makes it several times faster than going through whole spectrograms.

Everything is float32. Where a frame holds loud and very quiet bins together, the rounding of a float32 FFT shows in the logarithm of the
quiet ones; extractors that compute in float64 are followed (MelSpec.precision) by repeating just those frames in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from melcli.audio.mel_spec import MelSpec
from melcli.errors import AudioError

BLOCK_CPU = 1 << 19  # samples of windowed frames at once: 2 megabytes, found by trying; smaller pays for calls, larger for memory
BLOCK_GPU = 1 << 25  # few launches matter there, not caches
PRECISIONS = {"single": torch.float32, "double": torch.float64}
QUIET_POWER = 3e-8  # of the loudest mel bin of a frame: below it float32 is off by up to 1e-3 in the logarithm (measured on real speech)
QUIET_MAGNITUDE = QUIET_POWER**0.5
FILTER_GROUP = 16  # filters multiplied at once: neighbours use few FFT bins, and a product with fewer columns is no faster


def _hertz_to_mel(hertz: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hertz / 700.0)
    if scale == "kaldi":
        return 1127.0 * np.log(1.0 + hertz / 700.0)
    # slaney: straight below 1 kHz, 27 steps for a factor of 6.4 above
    return np.where(hertz < 1000.0, hertz * 3.0 / 200.0, 15.0 + np.log(np.maximum(hertz, 1000.0) / 1000.0) * 27.0 / np.log(6.4))


def _mel_to_hertz(mels: np.ndarray, scale: str) -> np.ndarray:
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    if scale == "kaldi":
        return 700.0 * (np.exp(mels / 1127.0) - 1.0)
    return np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp((mels - 15.0) * np.log(6.4) / 27.0))


def mel_filters(spec: MelSpec) -> Tensor:
    """The triangular filters, float64 [F, M]."""
    low, high = _hertz_to_mel(np.array([spec.f_min, spec.f_max]), spec.mel_scale)
    edges_mel = np.linspace(low, high, spec.n_mels + 2)
    edges_hertz = _mel_to_hertz(edges_mel, spec.mel_scale)
    bins_hertz = np.arange(spec.n_fft // 2 + 1) * (spec.rate / spec.n_fft)
    kaldi = spec.mel_scale == "kaldi"
    edges, bins = (edges_mel, _hertz_to_mel(bins_hertz, "kaldi")) if kaldi else (edges_hertz, bins_hertz)
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0.0, np.minimum(rise, fall))
    if spec.mel_norm == "slaney":
        filters *= 2.0 / (edges_hertz[2:] - edges_hertz[:-2])
    return torch.from_numpy(filters)


def window(spec: MelSpec) -> Tensor:
    """The analysis window times `waveform_scale`, [win_length], in the precision of the specification.

    An exact window would not be closer: torch's float32 window is off by 2e-7, the extractors made with it too, and beside a pure tone it shows.
    """
    make = {"hann": torch.hann_window, "hamming": torch.hamming_window}[spec.window]
    return make(spec.win_length, periodic=spec.periodic, dtype=PRECISIONS[spec.precision]) * spec.waveform_scale


@dataclass(frozen=True, slots=True)
class _Tables:
    """What every call needs of a specification, on one device. The groups are neighbouring filters and the span of FFT bins they use."""

    window_W: Tensor
    filters_FM: Tensor
    groups: list[tuple[slice, slice]]


@functools.lru_cache(maxsize=64)
def _tables(spec: MelSpec, device: torch.device, dtype: torch.dtype) -> _Tables:
    filters_FM = mel_filters(spec)
    groups = []
    for mels in torch.arange(spec.n_mels).split(FILTER_GROUP):
        used = filters_FM[:, mels].any(dim=1).nonzero()
        span = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        groups.append((slice(int(mels[0]), int(mels[-1]) + 1), span))
    return _Tables(window(spec).to(device, dtype), filters_FM.to(device, dtype), groups)


class LogMel(nn.Module):
    """Log-mel spectrograms of waveforms, on the device that they are on.

    The result for a waveform does not depend on what it is batched with: padding is left out before anything is computed, and frames
    beyond a waveform's own are zero. No gradient flows. Values equal those of the public extractor of each preset (tests/audio).
    It has no parameters or buffers: casting a model that holds it to bfloat16 leaves the features as they are.
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, wave_BS: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """wave_BS: float32 in [-1, 1], padded on the right; samples_B: true lengths. Returns mel_BTM float32 and frames_B int64.

        Raises AudioError, with its index, for a waveform shorter than one window.
        """
        mels = self.many([wave_S[:samples] for wave_S, samples in zip(wave_BS, samples_B.tolist(), strict=True)])
        frames_B = torch.tensor([len(mel_TM) for mel_TM in mels], device=samples_B.device)
        return nn.utils.rnn.pad_sequence(mels, batch_first=True), frames_B

    @torch.no_grad()
    def many(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """mel_TM of each wave_S, which may have any lengths. The fastest way for many short ones: nothing is computed for padding."""
        spec = self.spec
        counts = [spec.frames(len(wave_S)) for wave_S in waves]
        for index, (wave_S, count) in enumerate(zip(waves, counts, strict=True)):
            if count < 1:
                raise AudioError(f"audio {index} of {len(waves)} is too short: {len(wave_S)} samples, one window is {spec.win_length}")
        if not waves:
            return []
        with torch.autocast(waves[0].device.type, enabled=False):
            joined_S, starts = self._join(waves)
            mel_TM = self._frames(joined_S)
            return [self._finish(mel_TM[start : start + count]) for start, count in zip(starts, counts, strict=True)]

    def _join(self, waves: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """All waveforms in one row, each reflected at its ends and starting on a multiple of the hop, and the frame each starts at.

        Frames that lie across two waveforms are computed too and then dropped: three or so a waveform, cheaper than a call each.
        """
        spec = self.spec
        pad, skip = spec.reflected, spec.skipped
        if not pad and len(waves) == 1:
            return waves[0][skip:].float().contiguous(), [0]
        hops = [-(-(len(wave_S) - skip + 2 * pad) // spec.hop_length) for wave_S in waves]
        joined_S = torch.zeros(sum(hops) * spec.hop_length + spec.win_length, device=waves[0].device)
        starts = [0, *np.cumsum(hops).tolist()[:-1]]
        for wave_S, start in zip(waves, starts, strict=True):
            row_S = joined_S[start * spec.hop_length :]
            samples = len(wave_S)
            row_S[pad : pad + samples - skip] = wave_S[skip:]
            if pad:
                row_S[:pad] = wave_S[1 : pad + 1].flip(0)
                row_S[pad + samples : 2 * pad + samples] = wave_S[samples - pad - 1 : samples - 1].flip(0)
        return joined_S, starts

    def _frames(self, wave_S: Tensor) -> Tensor:
        """mel_TM of one row of samples, block by block, up to and including the logarithm."""
        spec, device = self.spec, wave_S.device
        win, hop = spec.win_length, spec.hop_length
        tables = _tables(spec, device, torch.float32)
        total = (len(wave_S) - win) // hop + 1
        block = min(total, max(1, (BLOCK_CPU if device.type == "cpu" else BLOCK_GPU) // spec.n_fft))
        mel_TM = torch.empty(total, spec.n_mels, device=device)
        frames_TN = torch.empty(block, spec.n_fft, device=device)
        frames_TN[:, win:] = 0.0
        power_TF = torch.empty(block, spec.n_fft // 2 + 1, device=device)
        for first in range(0, total, block):
            count = min(block, total - first)
            block_S, block_TM = wave_S[first * hop : (first + count - 1) * hop + win], mel_TM[first : first + count]
            self._windowed(block_S, tables.window_W, frames_TN[:count, :win])
            # no out= here: the FFT would make its own result and copy it
            self._mel(torch.fft.rfft(frames_TN[:count]), power_TF[:count], tables, block_TM)
            if spec.precision == "double" and device.type != "mps":  # Apple's GPUs have no float64
                self._repeat_quiet(block_S, block_TM)
            block_TM.clamp_min_(spec.floor)
            block_TM.log_() if spec.log == "ln" else block_TM.log10_()
        return mel_TM

    def _windowed(self, wave_S: Tensor, window_W: Tensor, out_TW: Tensor) -> None:
        """Writes pre-emphasised, windowed frames of wave_S, which begins with the first and ends with the last."""
        spec = self.spec
        frames_TW = wave_S.unfold(0, spec.win_length, spec.hop_length)
        if not spec.preemphasis:
            torch.mul(frames_TW, window_W, out=out_TW)
            return
        # once for all frames: they differ only in their first sample, which has itself as predecessor
        emphasised_S = torch.empty_like(wave_S)
        emphasised_S[0] = 0.0  # the first sample of a frame, set below
        torch.sub(wave_S[1:], wave_S[:-1], alpha=spec.preemphasis, out=emphasised_S[1:])
        torch.mul(emphasised_S.unfold(0, spec.win_length, spec.hop_length), window_W, out=out_TW)
        torch.mul(frames_TW[:, 0], window_W[0] * (1.0 - spec.preemphasis), out=out_TW[:, 0])

    def _mel(self, spectrum_TF: Tensor, power_TF: Tensor, tables: _Tables, out_TM: Tensor) -> None:
        """Writes mel values before the logarithm. spectrum_TF and power_TF are scratch."""
        parts_TF2 = torch.view_as_real(spectrum_TF)
        # complex abs takes square roots, and a sum over the last axis is slower still
        parts_TF2.square_()
        torch.add(parts_TF2[..., 0], parts_TF2[..., 1], out=power_TF)
        if self.spec.magnitude_epsilon:
            power_TF.add_(self.spec.magnitude_epsilon)
        if self.spec.power == 1:
            power_TF.sqrt_()
        for mels, used in tables.groups:
            torch.mm(power_TF[:, used], tables.filters_FM[used, mels], out=out_TM[:, mels])

    def _repeat_quiet(self, wave_S: Tensor, mel_TM: Tensor) -> None:
        """Replaces the frames (before floor and logarithm) in which a bin, or else the floor, is far below the loudest."""
        spec = self.spec
        quiet_T = mel_TM.amax(dim=1) * (QUIET_POWER if spec.power == 2 else QUIET_MAGNITUDE)
        rows = (mel_TM.amin(dim=1).clamp_min_(0.5 * spec.floor) < quiet_T).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        window_W = _tables(spec, wave_S.device, torch.float64).window_W
        tables = _tables(spec, wave_S.device, torch.float32)
        all_frames_TW = wave_S.unfold(0, spec.win_length, spec.hop_length)
        for some in rows.split(max(1, len(mel_TM) // 4)):  # a float64 spectrum is large: quarter blocks stay in the cache
            frames_TW = all_frames_TW[some]
            if spec.preemphasis:
                frames_TW = frames_TW - spec.preemphasis * torch.cat([frames_TW[:, :1], frames_TW[:, :-1]], dim=1)
            # only the FFT cancels large numbers; what follows adds positive ones and is as good in float32
            spectrum_TF = torch.fft.rfft(frames_TW * window_W, n=spec.n_fft).to(torch.complex64)
            exact_TM = mel_TM.new_empty(len(some), spec.n_mels)
            self._mel(spectrum_TF, torch.empty_like(spectrum_TF, dtype=torch.float32), tables, exact_TM)
            mel_TM[some] = exact_TM

    def _finish(self, mel_TM: Tensor) -> Tensor:
        """What depends on the whole utterance, and the affine step."""
        spec = self.spec
        if spec.dynamic_range is not None:
            mel_TM.clamp_(min=mel_TM.amax() - spec.dynamic_range)
        if spec.shift:
            mel_TM.add_(spec.shift)
        if spec.scale != 1.0:
            mel_TM.mul_(spec.scale)
        return mel_TM


def log_mel_many(spec: MelSpec, waves: Sequence[Tensor]) -> list[Tensor]:
    """mel_TM float32 of each wave_S, on their device. Raises AudioError, with its index, for one shorter than a window."""
    return LogMel(spec).many(waves)


def log_mel(spec: MelSpec, wave_S: Tensor) -> Tensor:
    """mel_TM float32 of one waveform in [-1, 1]. Raises AudioError where it is shorter than one window."""
    return log_mel_many(spec, [wave_S])[0]
