"""SeamlessM4T-v2's text and speech encoders (transformers) as a unified encoder: both feed one decoder, and so share a space.

Their states are averaged over `vectors` stretches of equal length.
Shapes: S samples of all utterances, U utterances, B utterances of a group, L positions, T states of an utterance, H width, V vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, SeamlessM4Tv2Config
from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2Encoder, SeamlessM4Tv2SpeechEncoder

from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.errors import CheckpointError, ConfigError, first_line
from melcli.models.encoder_families import RATE, Wav2Vec2Bert
from melcli.models.groups import in_groups, valid
from melcli.models.written_config import check_fields

MODEL_TYPE = "seamless_m4t_v2"
SPEECH, TEXT, SHARED = "speech_encoder.", "text_encoder.", "shared.weight"
SETTLED = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "speech_encoder_layerdrop": 0.0}
LANGUAGE = "eng"


class Seamless(nn.Module):
    """fields: SeamlessM4T-v2's config. tokenizer: the folder or name whose tokenizer the text branch reads with; speech needs none.

    A single utterance gives what transformers' own encoders give; in a batch utterances do not see each other's padding.
    Raises ConfigError for a config that describes no possible model.
    """

    reads = "wave"

    def __init__(self, fields: dict[str, Any], vectors: int, tokenizer: str | None = None) -> None:
        super().__init__()
        if tokenizer is None:  # written by hand, and not by its maker
            check_fields(fields, "model.speech_input.config")
        rest = {name: value for name, value in fields.items() if name != "model_type"}
        try:
            config = SeamlessM4Tv2Config(**{**rest, **{name: value for name, value in SETTLED.items() if name in rest}})
            self.speech_encoder = SeamlessM4Tv2SpeechEncoder(config)
            self.text_encoder = SeamlessM4Tv2Encoder(config)
        except Exception as error:  # transformers checks each field in its own way
            raise ConfigError(f"model.speech_input.config describes no possible encoder: {first_line(error)}") from None
        self.config = config
        self.vectors = vectors
        self.tokenizer_name = tokenizer
        self._tokenizer: Any = None
        self.fbank = Wav2Vec2Bert(config, {"num_mel_bins": 80, "stride": config.feature_projection_input_dim // 80})

    @property
    def shape(self) -> tuple[int, int]:
        """(V, W)."""
        return self.vectors, self.config.hidden_size

    def bind(self, spec: MelSpec) -> None:
        """Raises ConfigError where waveforms of this mel have another rate than the encoder's 16 kHz."""
        if spec.rate != RATE:
            fitting = ", ".join(name for name, other in PRESETS.items() if other.rate == RATE)
            raise ConfigError(f"data.mel: {MODEL_TYPE} reads {RATE} Hz, not {spec.rate} Hz; presets of that rate: {fitting}")

    def speech(self, wave_S1: Tensor, samples_U: Tensor) -> Tensor:
        """Packed waveforms to vectors [U, V, W]."""
        least = 400 + 160 * (2 * self.fbank.options["stride"] - 1)  # two stacked frames
        waves = [F.pad(wave[:, 0], (0, max(0, least - len(wave)))) for wave in wave_S1.split(samples_U.tolist())]
        features = [self.fbank.features(wave) for wave in waves]

        def run(x_BLM: Tensor, lengths_B: Tensor) -> list[Tensor]:
            states = self.speech_encoder(x_BLM.to(self._dtype), attention_mask=valid(lengths_B, x_BLM.shape[1]).long()).last_hidden_state
            return [state for state in states]

        # of equal length only: the adapter's convolutions and the mask that it makes anew let padding into what comes before it
        return self._means(in_groups(torch.cat(features), [len(one) for one in features], run, waste=0.0))

    def text(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors [U, V, W]. Raises CheckpointError where the tokenizer is not on this machine."""
        ids = [self._read(text) for text in texts]
        packed = torch.tensor([one for own in ids for one in own], device=self.text_encoder.embed_tokens.weight.device)

        def run(ids_BL1: Tensor, lengths_B: Tensor) -> list[Tensor]:
            mask_BL = valid(lengths_B, ids_BL1.shape[1])
            ids_BL = ids_BL1[..., 0].masked_fill(~mask_BL, self.config.pad_token_id)
            states = self.text_encoder(input_ids=ids_BL, attention_mask=mask_BL.long()).last_hidden_state
            return [state[:n] for state, n in zip(states, lengths_B.tolist(), strict=True)]

        return self._means(in_groups(packed[:, None], [len(own) for own in ids], run))

    @property
    def _dtype(self) -> torch.dtype:
        return self.speech_encoder.dtype

    def _means(self, states: Sequence[Tensor]) -> Tensor:
        """The mean of each of V stretches of [T, H]."""
        return torch.stack([F.adaptive_avg_pool1d(state.mT.float(), self.vectors).mT for state in states])

    def _read(self, text: str) -> list[int]:
        if self._tokenizer is None:
            self._tokenizer = read_tokenizer(self.tokenizer_name)
        ids = self._tokenizer(text)["input_ids"]
        if not ids or max(ids) >= self.config.vocab_size:
            raise CheckpointError(
                f"model.speech_input: the tokenizer of {self.tokenizer_name} does not fit its encoder: token {max(ids, default=None)}"
            )
        return ids


def read_tokenizer(name: str | None) -> Any:
    """The tokenizer of a folder or hub name, for English. Raises CheckpointError."""
    from melcli.models import checkpoint

    if name is None:
        raise CheckpointError("model.speech_input: a text branch with random weights has no tokenizer; give model.speech_input.encoder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.resolve(name, offline=True, flag="model.speech_input.encoder"), trust_remote_code=False, local_files_only=True
        )
    except CheckpointError as error:
        raise CheckpointError(f"the text branch reads with the tokenizer of {name}: {error}") from None
    except Exception as error:
        raise CheckpointError(f"the text branch reads with the tokenizer of {name}, which cannot be loaded: {first_line(error)}") from None
    if hasattr(tokenizer, "src_lang"):
        tokenizer.src_lang = LANGUAGE
    return tokenizer


def fill(encoder: Seamless, folder: Path) -> None:
    """Take both encoders' weights out of a SeamlessM4T-v2 checkpoint. Raises CheckpointError where one of them is not whole."""
    from melcli.models.checkpoint import not_finite, read_tensors

    tensors = read_tensors(folder)
    for prefix, module, what in ((SPEECH, encoder.speech_encoder, "speech"), (TEXT, encoder.text_encoder, "text")):
        found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if not found:
            raise CheckpointError(f"{folder}: a unified encoder without a {what} branch: no tensors under {prefix[:-1]}")
        if what == "text" and SHARED in tensors:
            found.setdefault("embed_tokens.weight", tensors[SHARED])
        wanted = module.state_dict()
        wrong = sorted({*wanted} - {*found}) or [name for name in wanted if wanted[name].shape != found[name].shape]
        if wrong:
            raise CheckpointError(f"{folder}: no whole {what} encoder: {', '.join(wrong[:3])} missing or of another shape")
        if broken := not_finite(found):
            raise CheckpointError(f"{folder}: {broken} holds numbers that are not finite")
        module.load_state_dict({name: found[name].to(wanted[name].dtype) for name in wanted})
