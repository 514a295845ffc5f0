"""Speech inputs: what turns features of speech into vectors the language model reads.

All inputs read *packed* features: the utterances of a batch laid end to end along time, without padding, and the length of each.
Shapes: F frames of all utterances, M mel bins, U utterances, P patches (speech positions) of all utterances, H width of the subsampled
features, D model width, S samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melcli.audio.mel_spec import MelSpec
from melcli.errors import ConfigError, nearest
from melcli.models import steady
from melcli.models.mel_norm import build_normaliser
from melcli.models.subsampling import Subsampling


def frame_index(lengths_U: Tensor, slots_U: Tensor) -> Tensor:
    """Where each element of packed data lies once every utterance starts at the head of its own slot."""
    starts_U = torch.cumsum(slots_U, 0) - slots_U
    offsets_U = torch.cumsum(lengths_U, 0) - lengths_U
    total = int(lengths_U.sum())
    shift = torch.repeat_interleave(starts_U - offsets_U, lengths_U, output_size=total)
    return torch.arange(total, device=lengths_U.device) + shift


def respace(x_FM: Tensor, lengths_U: Tensor, slots_U: Tensor) -> Tensor:
    """Packed rows moved into slots of the given sizes; what a slot holds beyond its utterance is zero."""
    out = x_FM.new_zeros(int(slots_U.sum()), *x_FM.shape[1:])
    out[frame_index(lengths_U, slots_U)] = x_FM
    return out


def a_few_at_a_time(embed: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
    """embed(mel_FM, frames_U) of convolutions, on a processor that learns nothing for some utterances at a time: what they make of a minute is thirty
    times what goes in, and should stay small and near the processor."""
    if torch.is_grad_enabled() or mel_FM.device.type != "cpu" or len(mel_FM) <= AT_ONCE:
        return embed(mel_FM, frames_U)
    groups: list[list[int]] = [[]]
    for frames in frames_U.tolist():
        if groups[-1] and sum(groups[-1]) + frames > AT_ONCE:
            groups.append([])
        groups[-1].append(frames)
    parts_FM = mel_FM.split([sum(group) for group in groups])
    embedded = [embed(part_FM, part_U) for part_FM, part_U in zip(parts_FM, frames_U.split([len(g) for g in groups]), strict=True)]
    return torch.cat([x_PD for x_PD, _ in embedded]), torch.cat([patches_U for _, patches_U in embedded])


class SpeechInput(nn.Module):
    """Base of all speech inputs.

    reads: `mel` frames, samples of the waveform (`wave`), `vectors` that were made before, or `nothing`. stride: frames (or samples) from one patch
    to the next. encoder_free: nothing but a projection, or Mel-LLM's convolutions, stands before the language model. fixed: beginnings of names of
    parameters that stay as they are unless a recipe's tune.keep says otherwise.
    forward(features, lengths_U) -> x_PD, patches_U.
    """

    stride: int
    reads: str = "mel"
    encoder_free: bool = False
    fixed: tuple[str, ...] = ()

    @property
    def subsampling(self) -> Subsampling:
        """How many patches there are: ceil(frames / stride) unless a class says otherwise."""
        return Subsampling.of_stride(self.stride)

    def patches(self, frames: int) -> int:
        """Speech positions of an utterance of so many frames (or samples)."""
        return self.subsampling.positions(frames)

    @classmethod
    def settle(cls, options: dict[str, Any], offline: bool = False) -> dict[str, Any]:
        """A recipe's options (without `kind`) as a checkpoint keeps them, with what a name stands for looked up. Raises ConfigError."""
        return options

    def load_pretrained(self, options: dict[str, Any], offline: bool = False) -> set[str]:
        """Take the weights that a recipe's options (without `kind`) name: the names of the tensors taken. Raises ConfigError."""
        return set()

    def blank(self, bins: int) -> Tensor:
        """Features of silence, a few patches of it. bins: of the mel."""
        return torch.zeros(8 * self.stride, bins if self.reads == "mel" else 1)

    def bind(self, spec: MelSpec) -> None:
        """Told the mel that features are made with, or whose rate waveforms have. Raises ConfigError where they cannot be read."""

    @staticmethod
    def valid(frames_U: Tensor, slots_U: Tensor, factor: int) -> Tensor:
        """1 where a subsampled frame belongs to an utterance."""
        mask = torch.zeros(int(slots_U.sum()) // factor, device=frames_U.device)
        mask[frame_index(-(-frames_U // factor), slots_U // factor)] = 1
        return mask


class NoInput(SpeechInput):
    """Hears nothing: for a model that only speaks."""

    encoder_free = True
    reads = "nothing"

    def __init__(self, width: int, n_mels: int) -> None:
        super().__init__()
        self.stride = 1

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        raise ConfigError("this model hears nothing: its speech input is none")


class MelPatch(SpeechInput):
    """Stacks `patch` mel frames and projects them with one linear layer: the plain encoder-free form of Mel-LLM (arXiv 2606.10231).

    The last patch of an utterance is filled with zeros (the mean, after normalisation).
    """

    encoder_free = True

    def __init__(self, width: int, n_mels: int, *, patch: int = 8, norm: str = "utterance", bias: bool = True) -> None:
        super().__init__()
        self.stride = patch
        self.normalise = build_normaliser(norm, n_mels)
        self.proj = nn.Linear(patch * n_mels, width, bias=bias)

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        patches_U = -(-frames_U // self.stride)
        mel_FM = self.normalise(mel_FM, frames_U)
        spaced = respace(mel_FM, frames_U, patches_U * self.stride)
        return self.proj(spaced.reshape(-1, self.stride * mel_FM.shape[-1]).to(self.proj.weight.dtype)), patches_U


LEAN_CHANNELS = 64  # up to here a processor takes the two forms below: more arithmetic in fewer, larger multiplications; measured faster at 32
FRAMES = 256  # on a processor the convolutions read a multiple of these
AT_ONCE = 4096  # frames, where nothing is learnt: of longer batches a processor takes some utterances at a time


def first_convolution(x_1TM: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution (3x3, stride 2, padding 1) of one input channel, [1, 1, T, M] to [1, C, T/2, M/2], as one matrix product.

    Nothing asks for the gradient of features, and the product's other gradient is several times faster than the convolution's.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x_1TM.dtype
    windows = F.pad(x_1TM[0, 0].to(dtype), (1, 1, 1, 1)).unfold(0, 3, 2).unfold(1, 3, 2).flatten(2)
    return F.linear(windows, layer.weight.flatten(1), layer.bias).permute(2, 0, 1)[None]


def merged_convolution(x_CTM: Tensor, depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> Tensor:
    """pointwise(depthwise(x)) as one dense convolution, whose weights are the products of theirs: exact, as nothing lies between them."""
    weight = pointwise.weight * depthwise.weight.transpose(0, 1)
    bias = pointwise.bias + pointwise.weight.flatten(1) @ depthwise.bias
    return F.conv2d(x_CTM, weight, bias, depthwise.stride, depthwise.padding)


class MelConv(SpeechInput):
    """Phi-4-multimodal's convolutional subsampling and projector without the conformer blocks between them.

    Conv2d(1, C, k3, s2, p1)-ReLU, then for each further factor of two [depthwise Conv2d k3 s2 p1, pointwise Conv2d k1, ReLU], flattened
    channel-major, Linear to `hidden`, then Linear-GELU-Linear to the model's width. At C = 1024, hidden = 1024, width = 3072, 80 bins and
    8x that is 25,205,760 parameters. Layer names are those of transformers' `phi4_multimodal`, so its weights load by name.
    Packed utterances are kept apart by zero frames and everything outside an utterance is zeroed after each layer: the result is the
    same as one utterance at a time.
    """

    encoder_free = True

    def __init__(self, width: int, n_mels: int, *, stride: int = 8, channels: int = 1024, hidden: int = 1024, norm: str = "global") -> None:
        super().__init__()
        if stride not in (2, 4, 8, 16):
            raise ConfigError(f"model.speech_input.stride: {stride} is not one of 2, 4, 8, 16")
        self.stride = stride
        self.normalise = build_normaliser(norm, n_mels)
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, 2, 1), nn.ReLU()]
        bins, factor = -(-n_mels // 2), 2
        while factor < stride:
            layers += [nn.Conv2d(channels, channels, 3, 2, 1, groups=channels), nn.Conv2d(channels, channels, 1), nn.ReLU()]
            bins, factor = -(-bins // 2), factor * 2
        self.conv = nn.Sequential(*layers)
        self.out = nn.Linear(channels * bins, hidden)
        self.up_proj_for_speech = nn.Linear(hidden, width)
        self.down_proj_for_speech = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights that keep the variance of what goes through (He et al., 2015, arXiv 1502.01852), and no biases.

        torch's defaults shrink it at every layer until constant biases drown the speech: then it takes thousands of steps to be heard.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.down_proj_for_speech.weight.mul_(0.35)  # towards the scale at which blocks of the backbone write

    def forward(self, mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        return a_few_at_a_time(self._embed, mel_FM, frames_U)

    def _embed(self, mel_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        patches_U = -(-frames_U // self.stride)
        slots_U = (patches_U + 1) * self.stride  # at least one zero frame before the next utterance, at every resolution
        if slots_U.device.type == "cpu":
            slots_U[-1] += -slots_U.sum() % FRAMES
        x = respace(self.normalise(mel_FM, frames_U), frames_U, slots_U).to(self.out.weight.dtype)[None, None]
        lean = x.device.type == "cpu" and self.conv[0].out_channels <= LEAN_CHANNELS
        for i in range(0, len(self.conv), 3):  # a convolution of stride two each: the first plain, the others depthwise and pointwise
            if i == 0:
                x = first_convolution(x, self.conv[0]) if lean else self.conv[0](x)
            else:
                depthwise, pointwise = self.conv[i - 1], self.conv[i]
                x = merged_convolution(x, depthwise, pointwise) if lean else pointwise(depthwise(x))
            factor = 2 ** (i // 3 + 1)
            valid_T1 = self.valid(frames_U, slots_U, factor).to(x.dtype)[:, None]
            x = F.relu(x) * valid_T1 if torch.is_grad_enabled() else x.relu_().mul_(valid_T1)  # in place: these are the largest of all activations
        keep = frame_index(patches_U, slots_U // self.stride)
        flat = x[0].permute(1, 0, 2)[keep].reshape(len(keep), -1)
        x_PH = self.encode(steady.apply(self.out, flat), patches_U)
        return steady.apply(lambda x: self.down_proj_for_speech(F.gelu(self.up_proj_for_speech(x))), x_PH), patches_U

    def encode(self, x_PH: Tensor, patches_U: Tensor) -> Tensor:
        """What lies between the convolutions and the projector: nothing here, blocks of an encoder in `phi4mm-encoder`."""
        return x_PH


class RawFrame(SpeechInput):
    """Frames of the waveform itself: parameter-free RMS norm and one linear layer without bias, as in Gemma 4 (transformers `gemma4_unified`).

    Reads samples instead of mel frames: 640 samples at 16 kHz are 25 positions a second. The last frame is filled with zeros.
    """

    reads = "wave"
    encoder_free = True

    def __init__(self, width: int, n_mels: int = 0, *, frame: int = 640, eps: float = 1e-6) -> None:
        super().__init__()
        self.stride = frame
        self.eps = eps
        self.proj = nn.Linear(frame, width, bias=False)

    def forward(self, wave_S1: Tensor, samples_U: Tensor) -> tuple[Tensor, Tensor]:
        patches_U = -(-samples_U // self.stride)
        frames = respace(wave_S1, samples_U, patches_U * self.stride).reshape(-1, self.stride)
        frames = frames * torch.rsqrt(frames.square().mean(-1, keepdim=True) + self.eps)
        return self.proj(frames.to(self.proj.weight.dtype)), patches_U


def speech_input_class(options: dict[str, Any]) -> tuple[type[SpeechInput], dict[str, Any]]:
    """The class that `options` names by `kind`, and its own fields. Raises ConfigError."""
    import inspect

    from melcli import registry

    fields = dict(options)
    kind = fields.pop("kind", None)
    if not kind:
        raise ConfigError(f"model.speech_input.kind is missing; valid: {', '.join(registry.names('speech-input'))}")
    cls = registry.get("speech-input", kind).load()
    valid = {name: option for name, option in inspect.signature(cls).parameters.items() if name not in ("width", "n_mels")}
    for name, value in fields.items():
        if name not in valid:
            raise ConfigError(f"model.speech_input.{name} is unknown for {kind}; valid: {', '.join(valid)}.{nearest(name, valid)}")
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if str(valid[name].annotation).startswith("int") and value != valid[name].default and not whole:
            raise ConfigError(f"model.speech_input.{name}: {value!r} is not a whole number of at least 1")
    return cls, fields


def build_speech_input(options: dict[str, Any], width: int, n_mels: int) -> SpeechInput:
    """The speech input that `options` names (`kind` and its own fields), for a model of this width. Raises ConfigError."""
    cls, fields = speech_input_class(options)
    return cls(width, n_mels, **fields)


def settle_speech_input(options: dict[str, Any], offline: bool = False) -> dict[str, Any]:
    """A recipe's options as a checkpoint keeps them: see `SpeechInput.settle`. Raises ConfigError."""
    cls, fields = speech_input_class(options)
    return {"kind": options["kind"], **cls.settle(fields, offline)}
