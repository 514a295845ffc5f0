"""The speech input of TESU-LLM (arXiv 2506.06343): an encoder that gives text and speech one space, a projector, n soft tokens.

In training the text of an utterance goes through the encoder's text branch; afterwards its speech goes through the speech branch. What the model
behind reads is the same kind of vector.

Shapes: F frames (or samples, characters, vectors) of all utterances, M mel bins, U utterances, P soft tokens of all utterances, V vectors of an
utterance, W width of a vector, D model width.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from melcli.audio.mel_spec import MelSpec
from melcli.data.vectors import mean_of
from melcli.data.written import codes_of, text_of
from melcli.errors import CheckpointError, ConfigError
from melcli.models import seamless, unified_encoder
from melcli.models.encoder import NOT_KEPT
from melcli.models.speech_input import SpeechInput
from melcli.models.subsampling import Subsampling

KINDS = (unified_encoder.MODEL_TYPE, seamless.MODEL_TYPE)
LONGEST = 1 << 40  # frames up to which an utterance has `tokens` positions, whatever its length


class Centre(nn.Module):
    """Takes away the mean of a modality: what all its vectors share, and with it most of the gap between the modalities."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("text_mean_VW", torch.zeros(shape))
        self.register_buffer("speech_mean_VW", torch.zeros(shape))

    def forward(self, z_UVW: Tensor, written: bool) -> Tensor:
        return z_UVW - (self.text_mean_VW if written else self.speech_mean_VW)


class Unified(SpeechInput):
    """A unified encoder, then of each of its vectors Linear, a place of its own, GELU, Linear to `tokens` / V soft tokens.

    encoder: a folder or hub name: a unified encoder of ours (`melcli train recipes/unified-encoder.yaml`) or a SeamlessM4T-v2. Or config: the same
    with random weights. Or size: the width of vectors that another program's encoder made, which sources bring with them (`vectors:`). A checkpoint
    holds the encoder, so that hearing needs neither folder nor hub. vectors: of an utterance, for Seamless and vectors of others.
    tokens: soft tokens of an utterance, whatever its length. hidden: width of the projector's middle.
    Against the gap between the modalities: centre takes the mean of all vectors of a modality away, unit gives each vector length one (times the
    root of its width, so that its numbers are near one), noise is the standard deviation of what is added in training, where 1 is as strong as the
    vector. speech_mean: a vectors file whose mean is that of speech, for an encoder that does not know it (Seamless).
    The encoder stays as it is, unless tune.keep says otherwise. Raises ConfigError.
    """

    fixed = ("encoder.",)

    def __init__(
        self,
        width: int,
        n_mels: int = 0,
        *,
        encoder: str | None = None,
        config: dict[str, Any] | None = None,
        size: int | None = None,
        vectors: int = 1,
        tokens: int = 8,
        hidden: int | None = None,
        centre: bool = True,
        unit: bool = True,
        noise: float = 0.0,
        speech_mean: str | None = None,
    ) -> None:
        super().__init__()
        if encoder is not None and config is None:
            config = self.settle({"encoder": encoder, "config": config, "size": size})["config"]
        _checked(encoder, config, size, noise)
        self.encoder = _build(config, vectors, encoder) if config is not None else None
        self.reads = "vectors" if self.encoder is None else self.encoder.reads
        self.shape: tuple[int, int] = (vectors, size or 0) if self.encoder is None else self.encoder.shape
        count, size = self.shape
        if tokens % count:
            raise ConfigError(f"model.speech_input.tokens: {tokens} is not a multiple of the {count} vectors of an utterance")
        self.centre, self.unit, self.noise = centre, unit, noise
        self.tokens = tokens
        self.normalise = Centre(self.shape)
        hidden = hidden or width
        self.up_proj = nn.Linear(size, hidden)
        self.places_VH = nn.Parameter(torch.randn(count, hidden))
        self.down_proj = nn.Linear(hidden, tokens // count * width)
        for layer in (self.up_proj, self.down_proj):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.down_proj.weight.mul_(0.35)  # towards the scale at which blocks of the backbone write
        self.width = width
        self.rule = Subsampling([((1, LONGEST, (tokens - 1) * LONGEST),)])
        self.stride = 1

    @property
    def subsampling(self) -> Subsampling:
        return self.rule

    @classmethod
    def settle(cls, options: dict[str, Any], offline: bool = False) -> dict[str, Any]:
        name, config, size = options.get("encoder"), options.get("config"), options.get("size")
        if config is None and name is not None:
            _checked(name, {}, size, 0.0)
            fields = _fields(_folder(name, offline), name)
            kept = {key: value for key, value in options.items() if key != "encoder"}
            return {**(options if fields["model_type"] == seamless.MODEL_TYPE else kept), "config": fields}  # its tokenizer is found by that name
        _checked(name, config, size, 0.0)
        return options

    def load_pretrained(self, options: dict[str, Any], offline: bool = False) -> set[str]:
        name = options.get("encoder")
        if name is not None:
            folder = _folder(name, offline)
            try:
                (unified_encoder if isinstance(self.encoder, unified_encoder.UnifiedEncoder) else seamless).fill(self.encoder, folder)
            except CheckpointError as error:
                raise ConfigError(f"model.speech_input.encoder: {error}") from None
        if isinstance(self.encoder, unified_encoder.UnifiedEncoder):
            self.normalise.text_mean_VW.copy_(self.encoder.text_mean_VW)
            self.normalise.speech_mean_VW.copy_(self.encoder.speech_mean_VW)
        elif self.centre and self.encoder is not None:
            if options.get("speech_mean") is None:
                raise ConfigError(
                    f"model.speech_input.centre: {seamless.MODEL_TYPE} does not know the mean of its speech vectors; give speech_mean: FILE, "
                    "vectors of some speech (`melcli branches -o` writes them), or centre: false"
                )
            self.normalise.speech_mean_VW.copy_(mean_of(Path(options["speech_mean"]), self.shape))
        return set() if name is None else {f"encoder.{each}" for each in self.encoder.state_dict()}

    def blank(self, bins: int) -> Tensor:
        return torch.zeros(self.shape) if self.encoder is None else codes_of(" ")

    @property
    def measures_text(self) -> bool:
        """Whether the mean of the text branch is to be measured on the training text: an encoder of ours brings it."""
        return self.centre and isinstance(self.encoder, seamless.Seamless)

    @torch.no_grad()
    def measure_text(self, texts: list[str]) -> None:
        """Take the mean of the text branch's vectors over some texts."""
        self.normalise.text_mean_VW.copy_(self.encoder.eval().text(texts).mean(0))

    def bind(self, spec: MelSpec) -> None:
        if self.encoder is not None:
            self.encoder.bind(spec)

    def train(self, mode: bool = True) -> Unified:
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def latents(self, x_FM: Tensor, lengths_U: Tensor) -> Tensor:
        """Vectors [U, V, W] as the projector reads them, without noise. Features of whole numbers are text (`melcli.data.written.codes_of`)."""
        if self.encoder is None:
            z_UVW = x_FM.reshape(len(lengths_U), *self.shape)
        else:
            written = not x_FM.is_floating_point()
            z_UVW = (
                self.encoder.text([text_of(codes) for codes in x_FM.split(lengths_U.tolist())]) if written else self.encoder.speech(x_FM, lengths_U)
            )
            z_UVW = self.normalise(z_UVW.float(), written) if self.centre else z_UVW.float()
        return F.normalize(z_UVW, dim=-1) * math.sqrt(self.shape[1]) if self.unit else z_UVW

    def forward(self, x_FM: Tensor, lengths_U: Tensor) -> tuple[Tensor, Tensor]:
        z_UVW = self.latents(x_FM, lengths_U)
        if self.training and self.noise:
            z_UVW = z_UVW + self.noise * z_UVW.square().mean(-1, keepdim=True).sqrt() * torch.randn_like(z_UVW)
        x = F.gelu(self.up_proj(z_UVW.to(self.up_proj.weight.dtype)) + self.places_VH)
        return self.down_proj(x).reshape(-1, self.width), torch.full_like(lengths_U, self.tokens)


def _checked(encoder: str | None, config: Any, size: int | None, noise: Any) -> None:
    """Raises ConfigError where not exactly one source of vectors is named, or a value cannot be."""
    if (size is not None) == (config is not None):
        raise ConfigError(
            "model.speech_input: unified needs one of encoder (folder or hub name), config (random weights) and size (width of others' vectors)"
        )
    if encoder is not None and not isinstance(encoder, str):
        raise ConfigError(f"model.speech_input.encoder: {encoder!r} is no folder or hub name")
    if config is not None and not isinstance(config, dict):
        raise ConfigError(f"model.speech_input.config: {config!r} is no configuration with a model_type")
    if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < math.inf:
        raise ConfigError(f"model.speech_input.noise: {noise!r} is not a number of at least 0")


def _build(config: dict[str, Any], vectors: int, name: str | None) -> unified_encoder.UnifiedEncoder | seamless.Seamless:
    """The encoder that a configuration describes, with random weights. Raises ConfigError."""
    kind = config.get("model_type")
    if kind == seamless.MODEL_TYPE:
        return seamless.Seamless(config, vectors, name)
    if kind != unified_encoder.MODEL_TYPE:
        raise ConfigError(f"model.speech_input.config.model_type: {kind!r} is no unified encoder; valid: {', '.join(KINDS)}")
    return unified_encoder.UnifiedEncoder(unified_encoder.config_of(config, "model.speech_input.config"))


def _folder(name: str, offline: bool) -> Path:
    """The folder of an encoder given by folder or hub name. Raises ConfigError."""
    from melcli.models.checkpoint import resolve

    try:
        return resolve(name, offline=offline, flag="model.speech_input.encoder")
    except CheckpointError as error:
        raise ConfigError(str(error)) from None


def _fields(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of a folder's encoder, as a checkpoint of ours keeps it. Raises ConfigError where it has not both branches."""
    from melcli.models.checkpoint import read_config

    try:
        fields = read_config(folder)
    except CheckpointError as error:
        raise ConfigError(f"model.speech_input.encoder: {error}") from None
    kind = fields.get("model_type")
    if kind not in KINDS:
        raise ConfigError(
            f"model.speech_input.encoder: {name} is a {kind}, no unified encoder with a text and a speech branch; valid: {', '.join(KINDS)}, "
            "or size for vectors made elsewhere"
        )
    return {key: value for key, value in fields.items() if key not in NOT_KEPT}
