"""Audio from any mel specification without weights: the fast Griffin-Lim algorithm (Perraudin, Balazs, Sondergaard 2013) with momentum.

Shapes: B batch, T mel frames, M mel bins, F FFT bins, W window, S samples.

Long input goes through in blocks of BLOCK frames. Each block holds the phases of the last frames of the one before, begins with those it
had found for its own first frames, and is faded into it; so what is pushed into a stream piece by piece comes out exactly as from one call,
memory stays bounded, and up to BLOCK + overlap frames there is one block, which is the plain algorithm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from melcli.audio.mel import mel_filters, window
from melcli.audio.mel_spec import MelSpec
from melcli.audio.overlap import overlapped
from melcli.audio.vocoder import Vocoder, VocoderStream, samples_of
from melcli.errors import AudioError, ConfigError

ITERATIONS = 32
MOMENTUM = 0.99
INVERSIONS = 16  # multiplicative steps of the inverse filters; real speech's mel comes back within 1 %
BLOCK = 128
LOUDEST = 6.0  # a magnitude of e^6 over full scale: beyond it a mel is no mel, and its exponential would overflow


class GriffinLim(Vocoder):
    """A waveform whose mel spectrogram is close to the given one, found by iteration from random phases.

    seed: of the phases; the same mel gives the same samples. Frames of less overlap than half are refused with ConfigError: their phases
    say nothing of each other.
    """

    family = "griffin-lim"

    def __init__(self, spec: MelSpec, *, iterations: int = ITERATIONS, momentum: float = MOMENTUM, seed: int = 0, device: str = "cpu") -> None:
        if 2 * spec.hop_length > spec.win_length:
            raise ConfigError(f"griffin-lim needs windows that overlap by half, and win_length is {spec.win_length}, hop_length {spec.hop_length}")
        # at least two windows, so that a faded sample has all its frames in both blocks
        super().__init__(spec, max(16, 2 * math.ceil(spec.win_length / spec.hop_length)), device)
        self.iterations, self.momentum, self.seed = iterations, momentum, seed
        self.window_W = (window(spec).double() / spec.waveform_scale).to(self.device, torch.float32)
        self.magnitudes = InverseMel(spec, self.device)

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> GriffinLim:
        return cls(spec, device=device)

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        waves = []
        for mel_TM in mel_BTM:
            stream = GriffinLimStream(self, finished=False)  # whoever calls this finishes it
            waves.append(torch.cat([stream.push(mel_TM), stream.flush()]))
        return torch.stack(waves)

    def stream(self) -> GriffinLimStream:
        return GriffinLimStream(self)

    def block(self, mel_TM: Tensor, number: int, known_TF: Tensor, held: int) -> tuple[Tensor, Tensor]:
        """One block: wave_S from the start of its first window to the end of its last, and the phases of its
        frames [T, F], unit complex numbers.

        known_TF: phases of its first frames, of which the first `held` do not change.
        """
        size_TF = self.magnitudes(mel_TM)
        generator = torch.Generator().manual_seed((self.seed << 20) + number)
        turns_TF = torch.rand(size_TF.shape, generator=generator).to(self.device)
        phase_TF = torch.polar(torch.ones_like(size_TF), 2 * math.pi * turns_TF)
        phase_TF[: len(known_TF)] = known_TF
        held_TF = size_TF[:held] * known_TF[:held]
        norm_S = overlapped(self.window_W.square().expand(1, len(mel_TM), -1), self.spec.hop_length)[0]
        norm_S = norm_S.clamp_min(0.05 * float(norm_S.max()))
        spectrum_TF = size_TF * phase_TF
        before_TF: Tensor | None = None
        for _ in range(self.iterations):
            found_TF = self._spectrum(self._signal(spectrum_TF) / norm_S)
            ahead_TF = found_TF if before_TF is None else torch.add(found_TF, found_TF - before_TF, alpha=self.momentum)
            before_TF = found_TF
            # size / abs(ahead), which torch is slow to find
            spectrum_TF = ahead_TF * (size_TF * (ahead_TF.real.square() + ahead_TF.imag.square() + 1e-30).rsqrt_())
            spectrum_TF[:held] = held_TF
        return self._signal(spectrum_TF) / norm_S, spectrum_TF / size_TF.clamp_min(1e-20)

    def _spectrum(self, wave_S: Tensor) -> Tensor:
        frames_TW = wave_S.unfold(0, self.spec.win_length, self.spec.hop_length)
        return torch.fft.rfft(frames_TW * self.window_W, n=self.spec.n_fft)

    def _signal(self, spectrum_TF: Tensor) -> Tensor:
        frames_TW = torch.fft.irfft(spectrum_TF, n=self.spec.n_fft)[:, : self.spec.win_length]
        return overlapped((frames_TW * self.window_W)[None], self.spec.hop_length)[0]


class GriffinLimStream(VocoderStream):
    """Frames in, samples out, a block at a time. The whole call goes through here too, so both give the same samples."""

    def __init__(self, vocoder: GriffinLim, *, finished: bool = True) -> None:
        super().__init__(vocoder)
        spec = vocoder.spec
        self.limner = vocoder
        self.finished = finished
        self.number = 0
        self.known_TF = torch.empty(0, spec.n_fft // 2 + 1, dtype=torch.complex64, device=vocoder.device)
        self.tail_S = torch.empty(0, device=vocoder.device)  # of the block before, from the first sample of the next one's own
        self.returned = 0

    def push(self, mel_TM: Tensor) -> Tensor:
        if self.flushed:
            raise AudioError("the stream was flushed: a new mel needs a new stream")
        self.held_TM = torch.cat([self.held_TM, self.vocoder.checked(mel_TM, 2)])
        found = []
        while self.first + len(self.held_TM) > (self.number + 1) * BLOCK + self.vocoder.context:
            found.append(self._block(last=False))
        return torch.cat(found) if found else self.tail_S.new_empty(0)

    def flush(self) -> Tensor:
        if self.flushed or not len(self.held_TM):
            self.flushed = True
            return self.tail_S.new_empty(0)
        self.flushed = True
        wanted = samples_of(self.vocoder.spec, self.first + len(self.held_TM)) - self.returned
        wave_S = self._block(last=True)
        return torch.nn.functional.pad(wave_S, (0, max(0, wanted - len(wave_S))))[:wanted]

    @torch.inference_mode()
    def _block(self, *, last: bool) -> Tensor:
        spec, overlap = self.vocoder.spec, self.vocoder.context
        own = self.number * BLOCK - self.first  # its own first frame, counted from the first that is held
        begins = self.number == 0
        stop = len(self.held_TM) if last else own + BLOCK + overlap
        wave_S, phase_TF = self.limner.block(self.held_TM[:stop], self.number, self.known_TF, own)
        wave_S = wave_S[own * spec.hop_length :]
        faded = len(self.tail_S)
        if faded:
            rise_S = torch.linspace(0.0, 1.0, faded, device=wave_S.device)
            wave_S[:faded] = self.tail_S + rise_S * (wave_S[:faded] - self.tail_S)
        if not last:
            end, keep = BLOCK * spec.hop_length, own + BLOCK - overlap
            self.tail_S = wave_S[end : end + overlap // 2 * spec.hop_length].clone()
            wave_S = wave_S[:end]
            self.known_TF = phase_TF[keep:].clone()
            self.held_TM, self.first = self.held_TM[keep:], self.first + keep
            self.number += 1
        if begins:
            # the first window starts before the audio, in its reflection, or a little after its start
            wave_S = torch.nn.functional.pad(wave_S[spec.reflected :], (spec.skipped, 0))
        self.returned += len(wave_S)
        return self.vocoder.finished(wave_S) if self.finished else wave_S


class InverseMel:
    """Magnitudes of the FFT bins, for samples in [-1, 1], from mel values: everything that a MelSpec does to them is undone.

    The filters are inverted without negative values, by multiplicative steps (Lee and Seung 2001) from a smooth start. Pre-emphasis is
    undone by its frequency response. Bins that no filter reads are silent, and so are mel values at the floor.
    """

    def __init__(self, spec: MelSpec, device: torch.device) -> None:
        self.spec = spec
        filters_FM = mel_filters(spec)
        self.filters_FM = filters_FM.to(device, torch.float32)
        shares_FM = filters_FM / filters_FM.sum(1, keepdim=True).clamp_min(1e-30)
        # a filter's value over its area is the level of the bins under it
        self.start_MF = (shares_FM / filters_FM.sum(0).clamp_min(1e-30)).T.to(device, torch.float32).contiguous()
        angles_F = torch.arange(spec.n_fft // 2 + 1, dtype=torch.float64) * (2 * math.pi / spec.n_fft)
        response_F = (1.0 - spec.preemphasis * torch.polar(torch.ones_like(angles_F), -angles_F)).abs()
        self.gain_F = (1.0 / (spec.waveform_scale * response_F)).to(device, torch.float32)
        self.limit = LOUDEST + math.log(spec.waveform_scale * spec.win_length)

    def __call__(self, mel_TM: Tensor) -> Tensor:
        """Magnitudes [T, F] of windowed frames."""
        spec = self.spec
        level_TM = mel_TM / spec.scale - spec.shift
        level_TM = level_TM if spec.log == "ln" else level_TM * math.log(10.0)
        value_TM = level_TM.clamp(max=spec.power * self.limit).exp()
        value_TM = value_TM * (value_TM > 1.001 * spec.floor)
        bins_TF = value_TM @ self.start_MF
        target_TF = value_TM @ self.filters_FM.T
        for _ in range(INVERSIONS):
            bins_TF = bins_TF * (target_TF / ((bins_TF @ self.filters_FM) @ self.filters_FM.T).clamp_min(1e-20))
        size_TF = bins_TF if spec.power == 1 else bins_TF.sqrt()
        return size_TF * self.gain_F
