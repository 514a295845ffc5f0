"""Audio encoders of transformers, by family: what each reads, how many vectors it gives, and how it is run on packed utterances.

An encoder wants a padded batch and a mask, and not every one keeps padding out of its result by itself. Each family here does, so that what
an utterance gives does not depend on what it is batched with.

Shapes: F frames (or S samples) of all utterances, M mel bins, B utterances of one group, L the longest of them, T vectors, H encoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from melcli.audio.mel_spec import PRESETS, MelSpec, preset
from melcli.errors import ConfigError, first_line, nearest
from melcli.models.config import SpeechLMConfig
from melcli.models.groups import WASTE, in_groups, valid
from melcli.models.subsampling import Chain, along, every, mel_step

RATE = 16000  # samples a second that every family here was trained on
SAMPLES = 300 * RATE  # of a group of waveforms, padding included
VARIANCE_FLOOR = 1e-7  # of the extractors that give waveforms or features unit variance


class Family:
    """One kind of encoder, with its configuration.

    reads: `mel` or `wave`. settled: fields of the configuration that are not the user's to choose here: what drops layers or masks features at
    random leaves parameters without a gradient, and adapters do the work of `stack`. extractor: options of the feature extraction, with defaults.
    least: frames below which an utterance is filled with zeros.
    """

    reads: ClassVar[str] = "wave"
    settled: ClassVar[dict[str, Any]] = {}
    extractor: ClassVar[dict[str, Any]] = {"sampling_rate": RATE}
    least: int = 1

    def __init__(self, config: PretrainedConfig, extractor: dict[str, Any]) -> None:
        self.config = config
        self.options = {**self.extractor, **extractor}
        for name, value in self.settled.items():
            if hasattr(config, name):
                setattr(config, name, value)

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def chain(self) -> Chain:
        """From frames or samples to vectors."""
        raise NotImplementedError

    def random(self) -> nn.Module:
        """The encoder with fresh weights."""
        return AutoModel.from_config(self.config)

    def pretrained(self, folder: str) -> tuple[nn.Module, list[str]]:
        """The encoder with the weights of a checkpoint, and the names of weights that the checkpoint does not hold."""
        return self._load(AutoModel, folder)

    def _load(self, cls: Any, folder: str, inner: str = "") -> tuple[nn.Module, list[str]]:
        options = {"config": self.config, "use_safetensors": True, "trust_remote_code": False, "local_files_only": True, "dtype": torch.float32}
        model, info = cls.from_pretrained(folder, output_loading_info=True, **options)
        missing = sorted(name for name in info["missing_keys"] if name.startswith(f"{inner}." if inner else ""))
        return getattr(model, inner) if inner else model, missing

    def bind(self, spec: MelSpec) -> None:
        """Raises ConfigError where features of this mel are not what the encoder reads."""
        wanted = self.options["sampling_rate"]
        if spec.rate != wanted:
            fitting = ", ".join(name for name, other in PRESETS.items() if other.rate == wanted) or "none"
            raise ConfigError(f"data.mel: {self.config.model_type} reads {wanted} Hz, not {spec.rate} Hz; presets of that rate: {fitting}")

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Vectors [T, H] of each packed utterance, each at least `least` long."""
        raise NotImplementedError


class Whisper(Family):
    """Whisper's encoder on utterances of their own length, not filled up to 30 s of silence: the position embeddings are cut to it.

    An utterance of more than 30 s is encoded in stretches of 30 s that do not see each other.
    """

    reads = "mel"
    settled = {"encoder_layerdrop": 0.0}
    extractor = {"sampling_rate": RATE, "mel": None}

    @property
    def width(self) -> int:
        return self.config.d_model

    @property
    def chain(self) -> Chain:
        return (every(2),)

    def random(self) -> nn.Module:
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        return WhisperEncoder._from_config(self.config, attn_implementation="sdpa")

    def pretrained(self, folder: str) -> tuple[nn.Module, list[str]]:
        return self._load(AutoModel, folder, "encoder")

    def bind(self, spec: MelSpec) -> None:
        bins, name = self.config.num_mel_bins, self.options["mel"]
        if name is None and spec.n_mels != bins:
            fitting = ", ".join(other for other, one in PRESETS.items() if one.n_mels == bins) or "none"
            raise ConfigError(f"data.mel: this whisper encoder reads {bins} mel bins, not {spec.n_mels}; presets with so many: {fitting}")
        if name is not None and (difference := spec.difference(preset(name))):
            raise ConfigError(f"data.mel: this whisper encoder was trained on {name}; here {difference}. Set data.mel to {name}")

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        longest = 2 * self.config.max_source_positions
        pieces = [[min(longest, n - at) for at in range(0, n, longest)] for n in lengths]

        def run(x_BLM: Tensor, lengths_B: Tensor) -> list[Tensor]:
            x = F.gelu(encoder.conv1(x_BLM.mT)) * valid(lengths_B, x_BLM.shape[1])[:, None]
            x = F.gelu(encoder.conv2(x)).mT
            counts_B = along(self.chain, lengths_B)
            x = x + encoder.embed_positions.weight[: x.shape[1]]
            x = F.dropout(x, p=encoder.dropout, training=encoder.training)
            mask = valid(counts_B, x.shape[1])
            mask = None if mask.all() else mask[:, None, None].expand(-1, 1, x.shape[1], -1)
            for layer in encoder.layers:
                x = layer(x, mask)
            return _unpadded(encoder.layer_norm(x), counts_B)

        stretches = iter(in_groups(x_FM, [n for group in pieces for n in group], run))
        return [torch.cat([next(stretches) for _ in group]) for group in pieces]


class Waveform(Family):
    """wav2vec 2.0, HuBERT, WavLM and their kind: convolutions over the waveform, then a transformer.

    Where the first convolution is normalised over time (`feat_extract_norm: group`, the base models), only utterances of equal length go
    through the convolutions together.
    """

    settled = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "add_adapter": False}
    extractor = {"sampling_rate": RATE, "do_normalize": True}

    @property
    def chain(self) -> Chain:
        return tuple((kernel, stride, 0) for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True))

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        if self.options["do_normalize"]:
            waves = x_FM.float().split(list(lengths))
            x_FM = torch.cat([(w - w.mean()) * torch.rsqrt(w.var(correction=0) + VARIANCE_FLOOR) for w in waves])

        def convolve(x_BL1: Tensor, lengths_B: Tensor) -> list[Tensor]:
            return _unpadded(encoder.feature_extractor(x_BL1[..., 0].to(_dtype(encoder))).mT, along(self.chain, lengths_B))

        def attend(x_BLC: Tensor, lengths_B: Tensor) -> list[Tensor]:
            projected = encoder.feature_projection(x_BLC)
            x = projected[0] if isinstance(projected, tuple) else projected
            return _unpadded(encoder.encoder(x, attention_mask=_mask(lengths_B, x)).last_hidden_state, lengths_B)

        waste = 0.0 if self.config.feat_extract_norm == "group" else WASTE
        vectors = in_groups(x_FM, lengths, convolve, waste=waste, positions=SAMPLES)
        return in_groups(torch.cat(vectors), [len(v) for v in vectors], attend)


class Wav2Vec2Bert(Family):
    """wav2vec2-BERT on Kaldi's filter banks (Povey window, no DC), normalised over the utterance, two frames a vector.

    No mel preset of ours is that, so it reads the waveform and computes them itself.
    """

    settled = Waveform.settled
    extractor = {"sampling_rate": RATE, "num_mel_bins": 80, "stride": 2}
    least = 400 + 160  # a variance needs two frames

    @property
    def chain(self) -> Chain:
        return ((400, 160, 0), (self.options["stride"], self.options["stride"], 0))

    def features(self, wave_S: Tensor) -> Tensor:
        """[T, M x stride], equal to transformers' SeamlessM4TFeatureExtractor."""
        from torchaudio.compliance.kaldi import fbank

        bins, stride = self.options["num_mel_bins"], self.options["stride"]
        with torch.autocast(wave_S.device.type, enabled=False):
            mel_FM = fbank(wave_S.float()[None] * 2**15, num_mel_bins=bins, sample_frequency=RATE, window_type="povey")
            mel_FM = (mel_FM - mel_FM.mean(0)) * torch.rsqrt(mel_FM.var(0) + VARIANCE_FLOOR)
        return mel_FM[: len(mel_FM) // stride * stride].reshape(-1, bins * stride)

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        features = [self.features(wave[:, 0]) for wave in x_FM.split(list(lengths))]

        def run(x_BLM: Tensor, lengths_B: Tensor) -> list[Tensor]:
            x = x_BLM.to(_dtype(encoder))
            return _unpadded(encoder(x, attention_mask=_mask(lengths_B, x)).last_hidden_state, lengths_B)

        return in_groups(torch.cat(features), [len(f) for f in features], run)


class Parakeet(Family):
    """Parakeet's FastConformer encoder, on features that its own extractor computes from the waveform.

    The extractor emphasises the whole waveform and normalises over the utterance, which no mel preset of ours does.
    """

    settled = {"layerdrop": 0.0}
    extractor = {"sampling_rate": RATE, "hop_length": 160, "n_fft": 512, "win_length": 400, "preemphasis": 0.97}
    least = 320  # a variance needs two frames

    @property
    def chain(self) -> Chain:
        hop, kernel, stride = self.options["hop_length"], self.config.subsampling_conv_kernel_size, self.config.subsampling_conv_stride
        halvings = self.config.subsampling_factor.bit_length() - 1
        return ((hop, hop, 0), *[(kernel, stride, (kernel - 1) // 2 * 2)] * halvings)

    def pretrained(self, folder: str) -> tuple[nn.Module, list[str]]:
        from transformers.models.parakeet.modeling_parakeet import ParakeetEncoder

        return self._load(ParakeetEncoder, folder)

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        from transformers import ParakeetFeatureExtractor

        extractor = ParakeetFeatureExtractor(feature_size=self.config.num_mel_bins, **self.options)
        features = []
        for wave in x_FM.float().cpu().split(list(lengths)):
            with torch.autocast("cpu", enabled=False):
                mel = extractor(wave[:, 0], sampling_rate=self.options["sampling_rate"]).input_features[0]
            features.append(mel[: len(wave) // self.options["hop_length"]])

        def run(x_BLM: Tensor, lengths_B: Tensor) -> list[Tensor]:
            x = x_BLM.to(_dtype(encoder))
            return _unpadded(encoder(x, attention_mask=_mask(lengths_B, x)).last_hidden_state, along(self.chain[1:], lengths_B))

        return in_groups(torch.cat(features).to(x_FM.device), [len(f) for f in features], run)


class Moonshine(Family):
    """Moonshine's encoder. A norm over all of the waveform stands in front, so that only utterances of equal length go through it together."""

    extractor = {"sampling_rate": RATE, "do_normalize": False}

    @property
    def chain(self) -> Chain:
        return ((127, 64, 0), (7, 3, 0), (3, 2, 0))

    def random(self) -> nn.Module:
        from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder

        return MoonshineEncoder._from_config(self.config)

    def pretrained(self, folder: str) -> tuple[nn.Module, list[str]]:
        return self._load(AutoModel, folder, "encoder")

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        def run(x_BL1: Tensor, lengths_B: Tensor) -> list[Tensor]:
            return list(encoder(x_BL1[..., 0].to(_dtype(encoder))).last_hidden_state)

        return in_groups(x_FM, lengths, run, waste=0.0, positions=SAMPLES)


class SpeechModel(Family):
    """A model of ours that listens: its speech input and the layers of its language model, on the mel that it was trained with."""

    extractor = {}

    def __init__(self, config: SpeechLMConfig, extractor: dict[str, Any]) -> None:
        super().__init__(config, extractor)
        self.options = {"sampling_rate": config.mel_spec.rate}
        self.least = config.mel_spec.span

    @property
    def chain(self) -> Chain:
        from melcli.models.listener import front_of

        with torch.device("meta"):
            front = front_of(self.config)
        return (*((mel_step(self.config.mel_spec),) if front.reads == "mel" else ()), *front.subsampling.chains[0])

    def random(self) -> nn.Module:
        from melcli.models.listener import Listener

        return Listener(self.config)

    def pretrained(self, folder: str) -> tuple[nn.Module, list[str]]:
        from melcli.models.checkpoint import read_tensors
        from melcli.models.listener import from_tensors

        return from_tensors(self.config, read_tensors(Path(folder)))

    def __call__(self, encoder: nn.Module, x_FM: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        return encoder(x_FM, lengths)


FAMILIES: dict[str, type[Family]] = {
    "whisper": Whisper,
    "wav2vec2": Waveform,
    "hubert": Waveform,
    "wavlm": Waveform,
    "wav2vec2-bert": Wav2Vec2Bert,
    "parakeet_encoder": Parakeet,
    "moonshine": Moonshine,
    "speech_lm": SpeechModel,
}


def family_of(fields: dict[str, Any], extractor: dict[str, Any]) -> Family:
    """The family of an encoder's configuration. Raises ConfigError for a model type, an option or a value that cannot be."""
    fields = dict(fields)
    kind = fields.pop("model_type", None)
    if kind not in FAMILIES:
        raise ConfigError(
            f"model.speech_input.config.model_type: {kind!r} is no known audio encoder; valid: {', '.join(FAMILIES)}.{nearest(str(kind), FAMILIES)}"
        )
    cls = FAMILIES[kind]
    for name in extractor:
        if name not in cls.extractor:
            raise ConfigError(
                f"model.speech_input.extractor.{name} is unknown for {kind}; valid: {', '.join(cls.extractor)}.{nearest(name, cls.extractor)}"
            )
    try:
        return cls(AutoConfig.for_model(kind, **fields), extractor)
    except Exception as error:
        raise ConfigError(f"model.speech_input.config: {first_line(error)}") from None


def _dtype(encoder: nn.Module) -> torch.dtype:
    return encoder.dtype if isinstance(encoder, PreTrainedModel) else next(encoder.parameters()).dtype


def _mask(lengths_B: Tensor, x_BLH: Tensor) -> Tensor | None:
    """The padding mask of a batch; None where nothing is padding."""
    mask_BL = valid(lengths_B, x_BLH.shape[1])
    return None if mask_BL.all() else mask_BL


def _unpadded(x_BLH: Tensor, lengths_B: Tensor) -> list[Tensor]:
    return [x_LH[:length] for x_LH, length in zip(x_BLH, lengths_B.tolist(), strict=True)]
