"""The encoder-initialised speech input: any audio encoder of transformers, its vectors stacked, and a projector of two layers.

Shapes: F frames (or S samples) of all utterances, M mel bins, U utterances, P patches of all utterances, H encoder width, D model width.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, PretrainedConfig

from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.errors import CheckpointError, ConfigError, first_line
from melcli.models.encoder_families import FAMILIES, family_of
from melcli.models.speech_input import SpeechInput, respace
from melcli.models.subsampling import Subsampling, every, least
from melcli.models.written_config import check_fields
from melcli.untrusted import parse_json

NOT_KEPT = ("architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


class Encoder(SpeechInput):
    """An audio encoder, `stack` of its vectors to a position, then Linear-GELU-Linear to the model's width.

    model: a folder or hub name, whose weights are started from; or config: a transformers config (`model_type` and its fields), with random
    weights. A checkpoint keeps the config, so that loading it needs neither folder nor hub. hidden: width of the projector's middle, that of the
    model unless given. extractor: what the encoder's own feature extraction was set to, read from `model` where there is one.
    Norms over the batch (Parakeet's) keep their statistics while training: an utterance gives the same whatever it is batched with.
    Raises ConfigError.
    """

    def __init__(
        self,
        width: int,
        n_mels: int = 0,
        *,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        stack: int = 1,
        hidden: int | None = None,
        extractor: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if config is None:
            found = self.settle({"model": model, "extractor": extractor})
            config, extractor = found["config"], found["extractor"]
        self.family = family_of(config, extractor or {})
        self.reads = self.family.reads
        self.stack = stack
        self.rule = Subsampling([(*self.family.chain, every(stack))])
        self.stride = self.rule.stride
        try:
            self.encoder = self.family.random()
        except Exception as error:  # transformers checks each field in its own way
            raise ConfigError(f"model.speech_input.config describes no possible encoder: {first_line(error)}") from None
        self.up_proj = nn.Linear(stack * self.family.width, hidden or width)
        self.down_proj = nn.Linear(hidden or width, width)
        for layer in (self.up_proj, self.down_proj):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.down_proj.weight.mul_(0.35)  # towards the scale at which blocks of the backbone write

    @classmethod
    def settle(cls, options: dict[str, Any], offline: bool = False) -> dict[str, Any]:
        name, config = options.get("model"), options.get("config")
        if (name is None) == (config is None):
            raise ConfigError("model.speech_input: an encoder needs exactly one of model (a folder or hub name) and config (random weights)")
        rest = {key: value for key, value in options.items() if key != "model"}
        if config is not None:
            kind = config.get("model_type") if isinstance(config, dict) else None
            family_of({"model_type": kind}, {})
            check_fields(config, "model.speech_input.config")
            return rest
        folder = encoder_folder(name, offline)
        fields = _fields(folder, name)
        return {**rest, "config": fields, "extractor": {**_extractor(folder, fields, name), **(options.get("extractor") or {})}}

    def load_pretrained(self, options: dict[str, Any], offline: bool = False) -> set[str]:
        from melcli.models.checkpoint import not_finite

        if options.get("model") is None:
            return set()
        folder = encoder_folder(options["model"], offline)
        try:
            encoder, missing = self.family.pretrained(str(folder))
        except Exception as error:
            raise ConfigError(f"model.speech_input.model: the weights of {options['model']} cannot be loaded ({first_line(error)})") from None
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ConfigError(f"model.speech_input.model: {options['model']} holds no whole encoder: {', '.join(missing[:3])}{more} missing")
        if broken := not_finite(encoder.state_dict()):
            raise ConfigError(f"model.speech_input.model: {broken} of {options['model']} holds numbers that are not finite")
        self.encoder = encoder
        return {f"encoder.{name}" for name in encoder.state_dict()}

    def bind(self, spec: MelSpec) -> None:
        self.family.bind(spec)

    @property
    def subsampling(self) -> Subsampling:
        return self.rule

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, x_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        patches_U = self.rule.positions(frames_U)
        enough_U = frames_U.clamp_min(max(self.family.least, least(self.family.chain)))
        x_FM = x_FM if torch.equal(enough_U, frames_U) else respace(x_FM, frames_U, enough_U)
        x_FM = x_FM if self.reads == "wave" else x_FM.to(self.up_proj.weight.dtype)
        # torch 2.13's strided convolutions on a processor read memory nobody wrote when they make their weights' gradients in bfloat16
        with torch.autocast("cpu", enabled=False) if x_FM.device.type == "cpu" else nullcontext():
            vectors = self.family(self.encoder, x_FM, enough_U.tolist())
        counts_U = torch.tensor([len(v) for v in vectors], device=frames_U.device)
        stacked = respace(torch.cat(vectors), counts_U, patches_U * self.stack).reshape(len(counts_U) and int(patches_U.sum()), -1)
        return self.down_proj(F.gelu(self.up_proj(stacked))), patches_U


def encoder_folder(name: str, offline: bool) -> Path:
    """The folder of an encoder given by folder or hub name. Raises ConfigError."""
    from melcli.models.checkpoint import resolve

    try:
        return resolve(name, offline=offline)
    except CheckpointError as error:
        raise ConfigError(f"model.speech_input.model: {str(error).removeprefix('--model ')}") from None


def _fields(folder: Path, name: str) -> dict[str, Any]:
    """The encoder's configuration in a folder, as a checkpoint of ours keeps it."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise ConfigError(f"model.speech_input.model: the config.json of {name} cannot be used ({first_line(error)})") from None
    if config.model_type not in FAMILIES and isinstance(getattr(config, "encoder_config", None), PretrainedConfig):
        config = config.encoder_config
    if config.model_type not in FAMILIES:
        raise ConfigError(f"model.speech_input.model: {name} is a {config.model_type}, no audio encoder known here; valid: {', '.join(FAMILIES)}")
    return {key: value for key, value in config.to_diff_dict().items() if key not in NOT_KEPT} | {"model_type": config.model_type}


def _extractor(folder: Path, fields: dict[str, Any], name: str) -> dict[str, Any]:
    """What preprocessor_config.json says of the features; a Whisper's mel by the name of our preset."""
    path = folder / "preprocessor_config.json"
    try:
        said = parse_json(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.speech_input.model: {path} cannot be read ({first_line(error)})") from None
    cls = FAMILIES[fields["model_type"]]
    found = {key: said[key] for key in cls.extractor if key in said}
    if "mel" in cls.extractor:
        bins = fields.get("num_mel_bins", 80)
        if f"whisper-{bins}" not in PRESETS:
            raise ConfigError(f"model.speech_input.model: {name} reads {bins} mel bins, and there is no preset whisper-{bins}")
        found["mel"] = f"whisper-{bins}"
    return found
