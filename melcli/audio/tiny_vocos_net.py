"""The network of our own small vocoder: Vocos' blocks and inverse-STFT head on a harmonic and a noise source.

Shapes: B batch, T mel frames, M mel bins, C channels, K pitches, U synthesis frames (`ratio` a mel frame), F synthesis FFT bins, S samples.

Vocos (Siuzdak 2023, arXiv 2306.00814) predicts magnitude and phase of an STFT frame by frame with ConvNeXt blocks, and needs discriminators and
weeks of a GPU before its phases agree from frame to frame. Here, as in neural source-filter models (Wang, Takaki, Yamagishi 2019, arXiv
1904.12088), a pulse train at the predicted pitch brings coherent phases along: the head predicts by which magnitudes and phases its spectrum is
multiplied, and by which magnitudes that of white noise. That learns from spectral losses alone, on a processor, in hours. The magnitudes start at
the envelope that the mel itself gives.
"""

from __future__ import annotations

import functools
import math
from typing import Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from melcli.audio.mel import _hertz_to_mel, _mel_to_hertz, mel_filters
from melcli.audio.mel_spec import MelSpec
from melcli.audio.overlap import overlapped
from melcli.audio.pitch import PitchGrid
from melcli.vocoder_recipe import VocoderSizes

QUIETEST, LOUDEST = -12.0, 6.0  # natural logarithms of a source's gain
NOISE_FRAMES = 64  # mel frames whose noise is drawn at once: noise belongs to a place, so a stream draws the same
SEED = 20
WINDOW_POINTS = 4  # steps of the pitch grid either side of the likeliest that its pitch is averaged over


class TinyVocosConfig(VocoderSizes):
    """Sizes of a tiny-vocos vocoder and the mel that it reads."""

    mel: MelSpec

    @model_validator(mode="after")
    def _possible(self) -> Self:
        spec = self.mel
        if spec.padding != "center" or spec.drop_last or spec.preemphasis or spec.dynamic_range is not None:
            raise ValueError("tiny-vocos reads mels with padding center, and without drop_last, preemphasis and dynamic_range")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even: a block looks as far ahead as back")
        if spec.hop_length % self.ratio or self.n_fft % self.hop or self.n_fft < 2 * self.hop:
            raise ValueError(f"n_fft {self.n_fft} must be a multiple, at least 2, of hop_length {spec.hop_length} / ratio {self.ratio}")
        return self

    @property
    def hop(self) -> int:
        """Samples from one synthesis frame to the next."""
        return self.mel.hop_length // self.ratio

    @property
    def grid(self) -> PitchGrid:
        """The pitches that are told apart."""
        return PitchGrid()

    @property
    def reach(self) -> int:
        """Mel frames either side that one stack of convolutions and the synthesis window see, and the pitch estimator before them."""
        half = self.kernel // 2
        return half * (self.pitch_layers + 1) + half * (self.layers + 1) + math.ceil(self.n_fft / self.mel.hop_length) + 1


class Block(nn.Module):
    """A ConvNeXt block (Liu et al. 2022) over time, as in Vocos; channels come last."""

    def __init__(self, width: int, kernel: int, inner: int, scale: float) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(kernel, width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), scale))
        nn.init.trunc_normal_(self.kernel, std=0.02)

    def forward(self, x_BTC: Tensor) -> Tensor:
        half = len(self.kernel) // 2
        y_BCT = nn.functional.conv1d(x_BTC.transpose(1, 2), self.kernel.T[:, None], self.shift, padding=half, groups=x_BTC.shape[2])
        return x_BTC + self.scale * self.down(nn.functional.gelu(self.up(self.norm(y_BCT.transpose(1, 2)))))


class Stack(nn.Module):
    """Convolution, blocks, norm and a linear layer: [B, T, inputs] to [B, T, outputs]."""

    def __init__(self, inputs: int, width: int, layers: int, outputs: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(inputs, width, kernel, padding=kernel // 2)
        self.first = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(Block(width, kernel, expansion * width, 1 / layers) for _ in range(layers))
        self.last = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = self.first(self.embed(x_BTC.transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return self.out(self.last(x_BTC))


class TinyVocosNet(nn.Module):
    """Mel to waveform. `pitches`, `filters` and `render` are its three stages; training calls them one by one."""

    def __init__(self, config: TinyVocosConfig) -> None:
        super().__init__()
        self.config = config
        spec, bins = config.mel, config.n_fft // 2 + 1
        self.pitch = Stack(spec.n_mels, config.pitch_width, config.pitch_layers, config.grid.size, config.kernel, config.expansion)
        self.trunk = Stack(spec.n_mels + 1, config.width, config.layers, 3 * config.ratio * bins, config.kernel, config.expansion)
        with torch.no_grad():
            self.trunk.out.weight.mul_(0.1)  # begin close to the envelope of the mel

    def levels(self, mel_BTM: Tensor) -> Tensor:
        """Natural logarithms of the mean magnitude under each filter."""
        spec = self.config.mel
        level_BTM = mel_BTM / spec.scale - spec.shift
        level_BTM = level_BTM if spec.log == "ln" else level_BTM * math.log(10.0)
        return (level_BTM - _areas(spec).to(mel_BTM)) / spec.power

    def seen(self, level_BTM: Tensor) -> Tensor:
        """Levels as the convolutions see them: about one in size, and no deeper than -70 dB."""
        return (level_BTM.clamp_min(QUIETEST) + 5.0) / 2.5

    def pitch_logits(self, level_BTM: Tensor) -> Tensor:
        """[B, T, K], of the pitches of the grid."""
        return self.pitch(self.seen(level_BTM))

    def pitches(self, logits_BTK: Tensor) -> Tensor:
        """Hz [B, T]: the likeliest pitch and its neighbours, averaged."""
        grid = self.config.grid
        steps_K = torch.arange(grid.size, device=logits_BTK.device)
        top_BT1 = logits_BTK.argmax(-1, keepdim=True)
        near_BTK = (steps_K - top_BT1).abs() <= WINDOW_POINTS
        weight_BTK = logits_BTK.float().masked_fill(~near_BTK, -torch.inf).softmax(-1)
        return grid.low * 2.0 ** ((weight_BTK * steps_K).sum(-1) / grid.steps)

    def filters(self, level_BTM: Tensor, hertz_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What the spectra of the pulses (complex) and of the noise are multiplied by, each [B, U, F]."""
        config = self.config
        octave_BT1 = (hertz_BT / 180.0).log2()[..., None]
        found = self.trunk(torch.cat([self.seen(level_BTM), octave_BT1], -1)).float()
        pulse_BTUF, phase_BTUF, noise_BTUF = found.unflatten(-1, (3, config.ratio, -1)).unbind(2)
        base_BTUF = (level_BTM @ _spread(config.mel, config.n_fft).to(level_BTM))[:, :, None]
        pulse_BTUF, noise_BTUF = ((base_BTUF + x).clamp(QUIETEST, LOUDEST).exp() for x in (pulse_BTUF, noise_BTUF))
        return torch.polar(pulse_BTUF, phase_BTUF).flatten(1, 2), noise_BTUF.flatten(1, 2)

    def render(self, pulse_BUF: Tensor, noise_BUF: Tensor, turns_BT: Tensor, hertz_BT: Tensor, white_BS: Tensor) -> Tensor:
        """wave_BS, (T - 1) * hop_length samples.

        turns_BT: full turns that the pulses have made at each frame, fractions counting. white_BS: (T + 2) * hop_length samples of unit variance,
        from one frame before the first on.
        """
        config, hop = self.config, self.config.mel.hop_length
        window_W = torch.hann_window(config.n_fft, device=hertz_BT.device)
        start = hop - config.n_fft // 2
        spectra = []
        for source_BS in (pulses(hertz_BT, turns_BT, hop, config.mel.rate), white_BS):
            frames_BUW = source_BS[:, start:].unfold(1, config.n_fft, config.hop)[:, : pulse_BUF.shape[1]]
            spectra.append(torch.fft.rfft(frames_BUW * window_W))
        out_BUW = torch.fft.irfft(pulse_BUF * spectra[0] + noise_BUF * spectra[1], config.n_fft) * window_W
        norm_S = overlapped(window_W.square().expand(1, out_BUW.shape[1], -1), config.hop)[0].clamp_min(1e-3)
        first, samples = config.n_fft // 2, (hertz_BT.shape[1] - 1) * hop
        return (overlapped(out_BUW, config.hop) / norm_S)[:, first : first + samples]


def turns(hertz_BT: Tensor, hop: int, rate: int) -> Tensor:
    """Turns made at each frame by pulses that begin with none, float64 [B, T]: the pitch is a straight line from frame to frame."""
    now_BT, then_BT = hertz_BT.double(), torch.cat([hertz_BT[:, 1:], hertz_BT[:, -1:]], 1).double()
    a_frame_BT = (hop * now_BT + (then_BT - now_BT) * (hop - 1) / 2) / rate
    return torch.nn.functional.pad(a_frame_BT.cumsum(1)[:, :-1], (1, 0))


def pulses(hertz_BT: Tensor, turns_BT: Tensor, hop: int, rate: int) -> Tensor:
    """All harmonics up to half the rate in phase, unit variance: [B, (T + 2) * hop], from one frame before the first to one behind the last."""
    now_BT = torch.cat([hertz_BT[:, :1], hertz_BT, hertz_BT[:, -1:]], 1)
    then_BT = torch.cat([now_BT[:, 1:], now_BT[:, -1:]], 1)
    before_B1 = turns_BT[:, :1] - hop * hertz_BT[:, :1].double() / rate
    last_BT = turns(hertz_BT[:, -1:].expand(-1, 2), hop, rate)[:, 1:] + turns_BT[:, -1:]
    turned_BT = torch.cat([before_B1, turns_BT, last_BT], 1)
    step_H = torch.arange(hop, device=hertz_BT.device, dtype=torch.float32)
    at_BTH = (turned_BT % 1.0).float()[..., None] + (
        now_BT[..., None] * step_H + ((then_BT - now_BT) / hop)[..., None] * (step_H * (step_H - 1) / 2)
    ) / rate
    count_BT1 = (0.5 * rate / now_BT).floor()[..., None]
    half_BTH = math.pi * (at_BTH - at_BTH.round())  # half of the angle, in [-pi/2, pi/2]
    sine_BTH = half_BTH.sin()
    middle = sine_BTH.abs() < 1e-4
    # the sum of count cosines, in closed form (Dirichlet's kernel)
    ratio_BTH = ((2 * count_BT1 + 1) * half_BTH).sin() / sine_BTH.masked_fill(middle, 1.0)
    sum_BTH = 0.5 * torch.where(middle, 2 * count_BT1 + 1, ratio_BTH) - 0.5
    return (sum_BTH * (2.0 / count_BT1).sqrt()).flatten(1)


def white(first: int, frames: int, hop: int, seed: int = SEED) -> Tensor:
    """Unit white noise of `frames` mel frames from frame `first` on, [S]; each place always has the same."""
    drawn = []
    for number in range(first // NOISE_FRAMES, (first + frames - 1) // NOISE_FRAMES + 1):
        generator = torch.Generator().manual_seed((seed << 32) + number + 1)
        drawn.append(torch.randn(NOISE_FRAMES * hop, generator=generator))
    start = first % NOISE_FRAMES * hop
    return torch.cat(drawn)[start : start + frames * hop]


@functools.lru_cache(maxsize=8)
def _areas(spec: MelSpec) -> Tensor:
    """Logarithm of what each filter gives for white noise of unit variance, [M]."""
    size = math.sqrt(float(torch.hann_window(spec.win_length).square().sum())) * spec.waveform_scale
    mean = size * math.sqrt(math.pi) / 2 if spec.power == 1 else size**2
    return (mel_filters(spec).sum(0).clamp_min(1e-8) * mean).log().float()


@functools.lru_cache(maxsize=8)
def _spread(spec: MelSpec, n_fft: int) -> Tensor:
    """From levels of mel bins to levels of FFT bins: straight lines between the filters' middles, [M, F]."""
    low, high = _hertz_to_mel(np.array([spec.f_min, spec.f_max]), spec.mel_scale)
    middles = _mel_to_hertz(np.linspace(low, high, spec.n_mels + 2), spec.mel_scale)[1:-1]
    bins = np.arange(n_fft // 2 + 1) * (spec.rate / n_fft)
    return torch.from_numpy(np.stack([np.interp(bins, middles, one) for one in np.eye(spec.n_mels)])).float()
