"""A small unified encoder: a speech branch and a text branch that give vectors of one space.

Shapes: F frames of all utterances, M mel bins, U utterances, B utterances of a group, L positions of the longest, T positions of an utterance,
H width of a branch, V vectors of an utterance, W width of a vector.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from melcli.audio.mel_spec import MelSpec
from melcli.errors import CheckpointError, ConfigError, MelcliError, first_line
from melcli.files import put_in_place, writing
from melcli.models.groups import in_groups, valid
from melcli.models.masks import for_layers
from melcli.models.speech_input import build_speech_input
from melcli.unified_recipe import UnifiedSizes

MODEL_TYPE = "unified_encoder"
WAVES = 8  # pairs of sine and cosine that say where in its utterance a position is


class UnifiedEncoderConfig(UnifiedSizes):
    """What a checkpoint says of a unified encoder. input: of the speech branch; backbones: transformers configs; alphabet: characters it reads."""

    model_type: str = Field(MODEL_TYPE, pattern=f"^{MODEL_TYPE}$")
    mel: MelSpec
    alphabet: str
    input: dict[str, Any]
    speech_backbone: dict[str, Any]
    text_backbone: dict[str, Any]


class Trunk(nn.Module):
    """The layers of a causal language model of transformers, each position seeing all of its sequence, or (causal) what is before it.

    Raises ConfigError.
    """

    def __init__(self, fields: dict[str, Any], key: str, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        kind = fields.get("model_type")
        if kind not in CONFIG_MAPPING:
            raise ConfigError(f"{key}.model_type: {kind!r} is no model of transformers, as llama and qwen3 are")
        try:
            rest = {name: value for name, value in fields.items() if name != "model_type"}
            self.config = AutoConfig.for_model(kind, **{**rest, "vocab_size": 1, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None})
            self.layers = AutoModel.from_config(self.config, attn_implementation="sdpa")
        except Exception as error:  # transformers checks each field in its own way
            raise ConfigError(f"{key} describes no possible model: {first_line(error)}") from None
        self.layers.set_input_embeddings(nn.Identity())
        self.width: int = self.config.hidden_size

    def forward(self, x_PH: Tensor, lengths: Sequence[int]) -> list[Tensor]:
        """Packed sequences to their states [T, H], in their order."""

        def run(x_BLH: Tensor, lengths_B: Tensor) -> list[Tensor]:
            length = x_BLH.shape[1]
            allowed = valid(lengths_B, length)[:, None, None].expand(-1, 1, length, -1)
            at_L = torch.arange(length, device=x_BLH.device)
            allowed = allowed & (at_L <= at_L[:, None]) if self.causal else allowed
            mask = for_layers(allowed, (at_L[:, None] - at_L).abs()[None], self.config)
            states = self.layers(inputs_embeds=x_BLH, attention_mask=mask, use_cache=False).last_hidden_state
            return [state[:n] for state, n in zip(states, lengths_B.tolist(), strict=True)]

        return in_groups(x_PH, lengths, run)


class Pool(nn.Module):
    """Attention pooling of any number of states into V vectors.

    Each has a query of its own and looks, to begin with, at its part of the utterance: where a position lies between the utterance's beginning (0)
    and end (1) is added to the keys, and the scores fall off with the distance from a centre that is learnt.
    """

    def __init__(self, width: int, sizes: UnifiedSizes) -> None:
        super().__init__()
        count, hidden = sizes.vectors, sizes.hidden
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(width)
        self.keys, self.values = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.places = nn.Linear(2 * WAVES, hidden, bias=False)
        self.query_VH = nn.Parameter(torch.randn(count, hidden) / math.sqrt(hidden))
        self.centre_V = nn.Parameter((torch.arange(count) + 0.5) / count)
        self.sharp_V = nn.Parameter(torch.full((count,), math.log(count)))  # log of 1 / width of the part
        self.mix = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))
        self.out = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, sizes.width))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """States [T, H] of each utterance to vectors [U, V, W]."""
        lengths = [len(state) for state in states]
        found = in_groups(torch.cat(list(states)), lengths, lambda x_BLH, lengths_B: list(self._pooled(x_BLH, lengths_B)))
        return torch.stack(found)

    def _pooled(self, x_BLH: Tensor, lengths_B: Tensor) -> Tensor:
        batch, length, _ = x_BLH.shape
        place_BL = (torch.arange(length, device=x_BLH.device) + 0.5) / lengths_B[:, None]
        turns = place_BL[..., None] * math.pi * torch.arange(1, WAVES + 1, device=x_BLH.device)
        x_BLH = self.norm(x_BLH.to(self.norm.weight.dtype))
        keys = self.keys(x_BLH) + self.places(torch.cat([turns.sin(), turns.cos()], -1).to(x_BLH.dtype))
        away_BVL = (place_BL[:, None] - self.centre_V[:, None]) * self.sharp_V.exp()[:, None]
        bias_BVL = (-0.5 * away_BVL.square()).masked_fill(~valid(lengths_B, length)[:, None], -math.inf)

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

        scores = split(self.query_VH) @ split(keys).mT / math.sqrt(self.query_VH.shape[-1] // self.heads)
        weights = (scores.float() + bias_BVL[:, None].float()).softmax(-1).to(scores.dtype)
        pooled = (weights @ split(self.values(x_BLH))).transpose(-2, -3).reshape(batch, len(self.query_VH), -1)
        return self.out(pooled + self.mix(pooled))


class UnifiedEncoder(nn.Module):
    """Speech to vectors and text to vectors, [U, V, W] each, near each other where both say the same.

    The speech branch is a speech input and a transformer, the text branch characters and a transformer; both end in attention pooling. Which vectors
    belong together is learnt contrastively from pairs (melcli/train_unified.py). text_mean_VW, speech_mean_VW: means over the training data of each
    branch, whose difference is the gap between the modalities. Raises ConfigError.
    """

    def __init__(self, config: UnifiedEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config.speech_backbone, "unified.speech.backbone")
        self.front = build_speech_input(config.input, self.trunk.width, config.mel.n_mels)
        self.front.bind(config.mel)
        self.pool = Pool(self.trunk.width, config)
        self.text_trunk = Trunk(config.text_backbone, "unified.text.backbone")
        self.characters = nn.Embedding(len(config.alphabet) + 1, self.text_trunk.width)
        self.text_pool = Pool(self.text_trunk.width, config)
        self._ids = {character: i for i, character in enumerate(config.alphabet, 1)}  # 0 is any other character
        self.register_buffer("text_mean_VW", torch.zeros(config.vectors, config.width))
        self.register_buffer("speech_mean_VW", torch.zeros(config.vectors, config.width))

    @property
    def reads(self) -> str:
        """What speech is given as, `mel` or `wave`."""
        return self.front.reads

    @property
    def shape(self) -> tuple[int, int]:
        """(V, W)."""
        return self.config.vectors, self.config.width

    def bind(self, spec: MelSpec) -> None:
        """Raises ConfigError where features of this mel are not what the speech branch reads."""
        if gap := spec.difference(self.config.mel):
            raise ConfigError(f"data.mel: the features differ from those of the unified encoder: {gap}")

    def states(self, x_FM: Tensor, frames_U: Tensor) -> list[Tensor]:
        """States [T, H] of the speech branch, before the pooling."""
        x_PH, patches_U = self.front(x_FM, frames_U)
        return self.trunk(x_PH, patches_U.tolist())

    def speech(self, x_FM: Tensor, frames_U: Tensor) -> Tensor:
        """Packed features of the speech to vectors [U, V, W]."""
        return self.pool(self.states(x_FM, frames_U))

    def text(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors [U, V, W]; an empty one counts as an unknown character."""
        ids = [[self._ids.get(character, 0) for character in text.lower()] or [0] for text in texts]
        packed = torch.tensor([one for own in ids for one in own], device=self.characters.weight.device)
        return self.text_pool(self.text_trunk(self.characters(packed), [len(own) for own in ids]))


def similarity(one_UVW: Tensor, other_UVW: Tensor) -> Tensor:
    """The mean over vectors of their cosines, of each utterance with each: [U, U]."""
    one, other = F.normalize(one_UVW, dim=-1), F.normalize(other_UVW, dim=-1)
    return one.flatten(1) @ other.flatten(1).T / one.shape[1]


def config_of(fields: Mapping[str, Any], where: str) -> UnifiedEncoderConfig:
    """The configuration that a dictionary holds. Raises ConfigError starting with `where`."""
    try:
        return UnifiedEncoderConfig.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{where}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def save(folder: Path, encoder: UnifiedEncoder, dtype: torch.dtype, extra: Mapping[str, str]) -> None:
    """Write config.json, model.safetensors and further files under a temporary name and move them into place. Means stay float32."""
    from melcli.models.checkpoint import WEIGHTS, write_tensors

    partial = folder.with_name(f".{folder.name}.partial")
    state = {name: tensor.detach().cpu() for name, tensor in encoder.state_dict().items()}
    with writing(folder):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            (partial / "config.json").write_text(json.dumps(encoder.config.model_dump(mode="json"), indent=2, sort_keys=True) + "\n")
            write_tensors(partial / WEIGHTS, {name: t if "mean_" in name or not t.is_floating_point() else t.to(dtype) for name, t in state.items()})
            for name, content in extra.items():
                (partial / name).write_text(content)
            put_in_place(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def fill(encoder: UnifiedEncoder, folder: Path) -> None:
    """Put a checkpoint's tensors into an encoder. Raises CheckpointError where some are missing, strange, misshapen or not finite."""
    from melcli.models.checkpoint import not_finite, read_tensors

    tensors, wanted = read_tensors(folder), encoder.state_dict()
    check(encoder, tensors, folder)
    if broken := not_finite(tensors):
        raise CheckpointError(f"{folder}: {broken} holds numbers that are not finite")
    encoder.load_state_dict({name: tensor.to(wanted[name].dtype) for name, tensor in tensors.items()})


def check(encoder: UnifiedEncoder, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Raises CheckpointError where tensors are not those of an encoder, which may be one on the meta device."""
    wanted = encoder.state_dict()
    if not any(name.startswith(("front.", "trunk.", "pool.")) for name in tensors):
        raise CheckpointError(f"{folder}: a unified encoder without a speech branch: it holds tensors of text alone")
    wrong = sorted({*wanted} ^ {*tensors}) or [name for name in wanted if wanted[name].shape != tensors[name].shape]
    if wrong:
        raise CheckpointError(f"{folder}: not the tensors that its config.json describes: {', '.join(wrong[:3])}")


def load(folder: Path) -> UnifiedEncoder:
    """The unified encoder of a folder. Raises ConfigError and CheckpointError."""
    from melcli.models.checkpoint import read_config, read_tensors

    config = config_of(read_config(folder), f"{folder}/config.json")
    try:
        with torch.device("meta"):  # sizes that a file claims take no memory
            check(UnifiedEncoder(config), read_tensors(folder), folder)
        encoder = UnifiedEncoder(config)
    except MelcliError:
        raise
    except Exception as error:  # each part checks its sizes in its own way
        raise CheckpointError(f"{folder}: its config.json describes no possible encoder: {first_line(error)}") from None
    fill(encoder, folder)
    return encoder.eval()
