"""Published vocoders: their own classes, their own files, and the mel that each was trained on.

Shapes: B batch, T mel frames, M mel bins, S samples.

speecht5-hifigan and univnet are classes of transformers; vocos and bigvgan are packages of their own, imported when one is opened.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.audio.vocoder import Vocoder, refuse_other
from melcli.audio.vocoder_files import fill, folder_of, settings, tensors
from melcli.errors import CheckpointError, ConfigError

NOISE_FRAMES = 64  # mel frames whose noise UnivNet gets from one seed: noise belongs to a place, so a stream gets the same
SEED = 0


class Network(Vocoder):
    """A vocoder that is one network from mel to samples."""

    def __init__(self, net: nn.Module, spec: MelSpec, context: int, device: str | torch.device = "cpu") -> None:
        super().__init__(spec, context, device)
        self.net = net.to(self.device).eval().requires_grad_(False)


class SpeechT5HifiGan(Network):
    """HiFi-GAN (Kong et al. 2020, arXiv 2010.05646) of SpeechT5; the mean and scale of its input are in the checkpoint."""

    family = "speecht5-hifigan"
    published = "microsoft/speecht5_hifigan"

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> SpeechT5HifiGan:
        import transformers

        refuse_other(source or cls.family, PRESETS["speecht5"], spec)
        folder = folder_of(source or cls.published, offline)
        config = _config(transformers.SpeechT5HifiGanConfig, folder)
        if (config.model_in_dim, config.sampling_rate, math.prod(config.upsample_rates)) != (spec.n_mels, spec.rate, spec.hop_length):
            raise CheckpointError(
                f"{folder}: makes {config.sampling_rate} Hz from {config.model_in_dim} bins every {math.prod(config.upsample_rates)} samples"
            )
        net = transformers.SpeechT5HifiGan(config)
        fill(net, tensors(folder, "pytorch_model.bin"), folder)
        return cls(net, spec, generator_reach(vars(config)), device)

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        return self.net(mel_BTM)


class UnivNet(Network):
    """UnivNet (Jang et al. 2021, arXiv 2106.07889). Where its extractor scales the mel to [-1, 1], so does this; its noise is fixed by place."""

    family = "univnet"
    published = "dg845/univnet-dev"

    def __init__(self, net: nn.Module, spec: MelSpec, scaling: tuple[float, float] | None, device: str | torch.device = "cpu") -> None:
        super().__init__(net, spec, univnet_reach(net.config), device)
        self.scaling = scaling

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> UnivNet:
        import transformers

        reads = PRESETS["bigvgan-24k"]
        refuse_other(source or cls.family, reads, spec)
        folder = folder_of(source or cls.published, offline)
        config = _config(transformers.UnivNetConfig, folder)
        if (config.num_mel_bins, math.prod(config.resblock_stride_sizes)) != (reads.n_mels, reads.hop_length):
            raise CheckpointError(f"{folder}: reads {config.num_mel_bins} bins every {math.prod(config.resblock_stride_sizes)} samples")
        extractor = settings(folder, "preprocessor_config.json") if (folder / "preprocessor_config.json").exists() else {}
        limits = (extractor.get("normalize_min", math.log(1e-5)), extractor.get("normalize_max", 2.3143386840820312))
        net = transformers.UnivNetModel(config)
        fill(net, tensors(folder, "pytorch_model.bin"), folder)
        return cls(net, reads, limits if extractor.get("do_normalize") else None, device)

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        if self.scaling is not None:
            low, high = self.scaling
            mel_BTM = 2 * (mel_BTM - low) / (high - low) - 1
        noise_TC = placed_noise(first, mel_BTM.shape[1], self.net.config.model_in_channels).to(mel_BTM)
        return self.net(mel_BTM, noise_sequence=noise_TC.expand(len(mel_BTM), -1, -1)).waveforms


class Vocos(Network):
    """Vocos (Siuzdak 2023, arXiv 2306.00814) on mels; its variant for EnCodec's codes is refused."""

    family = "vocos"
    published = "charactr/vocos-mel-24khz"
    parts = {
        "feature_extractor": "vocos.feature_extractors.MelSpectrogramFeatures",
        "backbone": "vocos.models.VocosBackbone",
        "head": "vocos.heads.ISTFTHead",
    }

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> Vocos:
        if source is None:
            refuse_other(cls.family, PRESETS["vocos-24k"], spec)
        models, heads = _package("vocos", "vocos.models", "vocos.heads")
        folder = folder_of(source or cls.published, offline)
        mel, backbone, head = cls._settings(folder)
        same = mel.get("padding", "center") == "same"
        reads = _spec(
            folder,
            rate=mel.get("sample_rate", 24000),
            n_fft=mel.get("n_fft", 1024),
            win_length=mel.get("n_fft", 1024),
            hop_length=mel.get("hop_length", 256),
            n_mels=mel.get("n_mels", 100),
            f_max=mel.get("sample_rate", 24000) / 2,
            power=1,
            floor=1e-7,
            padding="hop" if same else "center",
        )
        refuse_other(source or cls.family, reads, spec)
        if head.get("hop_length") != reads.hop_length or (head.get("padding", "same") == "same") != same:
            raise CheckpointError(
                f"{folder}: its head makes {head.get('hop_length')} samples a frame, padding {head.get('padding', 'same')}; its mel differs"
            )
        try:
            net = nn.ModuleDict({"backbone": models.VocosBackbone(**backbone), "head": heads.ISTFTHead(**head)})
        except (TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{folder / 'config.yaml'}: describes no possible model: {error}") from None
        found = tensors(folder, "pytorch_model.bin")
        fill(net, {name: tensor for name, tensor in found.items() if not name.startswith("feature_extractor.")}, folder)
        reach = 3 * (1 + backbone["num_layers"]) + math.ceil(head["n_fft"] / reads.hop_length)
        return cls(net, reads, reach, device)

    @classmethod
    def _settings(cls, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Arguments of extractor, backbone and head. Only the classes named here are ever made, whatever the file asks for."""
        fields = settings(folder, "config.yaml")
        found = []
        for name, path in cls.parts.items():
            section = fields.get(name)
            if not isinstance(section, dict) or section.get("class_path") != path:
                asked = section.get("class_path") if isinstance(section, dict) else section
                raise CheckpointError(f"{folder / 'config.yaml'}: {name} is {asked!r}, and only {path} can be used here")
            found.append(dict(section.get("init_args") or {}))
        return found[0], found[1], found[2]

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        return self.net["head"](self.net["backbone"](mel_BTM.transpose(1, 2)))


class BigVGAN(Network):
    """BigVGAN (Lee et al. 2023, arXiv 2206.04658), any of its sizes; its own CUDA kernel is not used."""

    family = "bigvgan"
    published = {
        "bigvgan-22k": "nvidia/bigvgan_v2_22khz_80band_fmax8k_256x",
        "bigvgan-24k": "nvidia/bigvgan_v2_24khz_100band_256x",
    }

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> BigVGAN:
        if source is None:
            name = "bigvgan-24k" if spec.rate == 24000 else "bigvgan-22k"
            refuse_other(cls.family, PRESETS[name], spec)
        (module,) = _package("bigvgan", "bigvgan.bigvgan")
        folder = folder_of(source or cls.published[name], offline)
        fields = settings(folder)
        try:
            reads = _spec(
                folder,
                rate=fields["sampling_rate"],
                n_fft=fields["n_fft"],
                win_length=fields["win_size"],
                hop_length=fields["hop_size"],
                n_mels=fields["num_mels"],
                f_min=fields.get("fmin") or 0.0,
                f_max=fields.get("fmax") or fields["sampling_rate"] / 2,
                mel_scale="slaney",
                mel_norm="slaney",
                power=1,
                magnitude_epsilon=1e-9,
                floor=1e-5,
                padding="hop",
            )
            refuse_other(source or cls.family, reads, spec)
            if math.prod(fields["upsample_rates"]) != reads.hop_length:
                raise CheckpointError(
                    f"{folder}: makes {math.prod(fields['upsample_rates'])} samples a frame, and its hop_size is {reads.hop_length}"
                )
            with contextlib.redirect_stdout(io.StringIO()):  # it prints
                net = module.BigVGAN(module.AttrDict(fields))
                fill(net, tensors(folder, "bigvgan_generator.pt", inside="generator"), folder)
                net.remove_weight_norm()
        except (KeyError, TypeError, ValueError, NotImplementedError) as error:
            raise CheckpointError(f"{folder / 'config.json'}: describes no possible model: {type(error).__name__} {error}") from None
        return cls(net, reads, generator_reach(fields, activation=8), device)

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        return self.net(mel_BTM.transpose(1, 2))[:, 0]


def generator_reach(fields: dict[str, Any], activation: int = 0) -> int:
    """Frames either side that a HiFi-GAN-like generator sees. activation: samples that an anti-aliased activation sees; there are two a dilation."""
    reach, rate = 3.0, 1
    for factor, kernel in zip(fields["upsample_rates"], fields["upsample_kernel_sizes"], strict=True):
        reach += math.ceil(kernel / factor) / rate
        rate *= factor
        blocks = zip(fields["resblock_kernel_sizes"], fields["resblock_dilation_sizes"], strict=True)
        reach += max(sum((size - 1) // 2 * (dilation + 1) + 2 * activation for dilation in each) for size, each in blocks) / rate
    return math.ceil(reach + (3 + activation) / rate)


def univnet_reach(config: Any) -> int:
    """Frames either side that UnivNet sees: its kernels see the mel, and its layers each other."""
    size = config.kernel_predictor_conv_size // 2
    reach, rate = 2.0 + size * (2 * config.kernel_predictor_num_blocks + 1) + 3.0, 1
    for stride, kernel, dilations in zip(config.resblock_stride_sizes, config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
        reach += 2 / rate
        rate *= stride
        reach += sum(kernel // 2 * (dilation + 1) for dilation in dilations) / rate
    return math.ceil(reach + 3 / rate)


def placed_noise(first: int, frames: int, channels: int) -> Tensor:
    """Standard normal noise of the frames from `first` on, [T, channels]; each place always has the same."""
    blocks = range(first // NOISE_FRAMES, (first + frames - 1) // NOISE_FRAMES + 1)
    drawn = [torch.randn(NOISE_FRAMES, channels, generator=torch.Generator().manual_seed((SEED << 32) + number)) for number in blocks]
    return torch.cat(drawn)[first % NOISE_FRAMES :][:frames]


def _package(name: str, *modules: str) -> Sequence[Any]:
    """Modules of a package that not everybody has. Raises ConfigError saying how to get it."""
    import importlib

    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        missing = f"the package {error.name}" if error.name else str(error)
        raise ConfigError(f"vocoder {name} needs {missing}: pip install 'melcli[{name}]'") from None


def _config(cls: Any, folder: Path) -> Any:
    """A transformers configuration. Raises CheckpointError."""
    fields = settings(folder)
    try:
        return cls(**{key: value for key, value in fields.items() if key != "model_type"})
    except Exception as error:  # its checks are of many kinds
        raise CheckpointError(f"{folder / 'config.json'}: {' '.join(str(error).split())[:200]}") from None


def _spec(folder: Path, **fields: Any) -> MelSpec:
    try:
        return MelSpec(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{folder}: its mel is impossible: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
