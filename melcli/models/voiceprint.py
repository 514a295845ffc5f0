"""Speaker embeddings: how alike two voices are, by a speaker verification model of transformers (WavLM-SV and its kind).

Shapes: S samples, E embedding.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoFeatureExtractor, PreTrainedModel
from transformers.utils import logging as transformers_logging

from melcli.errors import CheckpointError
from melcli.models import checkpoint
from melcli.models.hardware import pick_device

FEWEST_SECONDS = 0.5  # in less there is no voice to know, and the time-delay layers need a third of a second
MOST_SECONDS = 30.0  # of a recording that are read: attention grows with the square
UNUSED = ("masked_spec_embed", "objective.weight")  # in training only


class Voiceprint:
    """A model with an x-vector head, ready to compare. rate: samples per second it wants."""

    def __init__(self, model: PreTrainedModel, extractor: Any) -> None:
        self.model = model
        self.extractor = extractor
        self.rate: int = extractor.sampling_rate

    @classmethod
    def load(cls, name: str, *, device: str = "auto", offline: bool = False) -> tuple[Voiceprint, str]:
        """A checkpoint by folder or hub id (microsoft/wavlm-base-plus-sv), and what was loaded, in words. Raises CheckpointError."""
        folder = checkpoint.resolve(name, offline=offline, flag="--similarity")
        kind = checkpoint.read_config(folder).get("model_type")
        known = transformers.models.auto.modeling_auto.MODEL_FOR_AUDIO_XVECTOR_MAPPING_NAMES
        if kind not in known:
            raise CheckpointError(f"--similarity {name}: a {kind} model gives no speaker embeddings; those of {', '.join(sorted(known))} do")
        if not any(folder.glob("*.safetensors")):
            raise CheckpointError(f"--similarity {name}: no safetensors file with its weights{checkpoint.pickle_hint(folder)}")
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        options = {"trust_remote_code": False, "local_files_only": True}
        try:
            extractor = AutoFeatureExtractor.from_pretrained(folder, **options)
            model, info = getattr(transformers, known[kind]).from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
        except Exception as error:  # whatever transformers makes of a broken checkpoint
            raise CheckpointError(f"--similarity {name}: cannot be loaded: {str(error).strip().splitlines()[0][:300]}") from None
        missing = sorted(key for key in info["missing_keys"] if not key.endswith(UNUSED))
        if missing:
            raise CheckpointError(f"--similarity {name}: the checkpoint misses {', '.join(missing[:3])}; it was not made for speaker embeddings")
        where, _ = pick_device(device)
        return cls(model.float().eval().to(where), extractor), f"{name}: {type(model).__name__} of transformers, cosine of its embeddings"

    @torch.inference_mode()
    def embed(self, wave_S: Tensor) -> Tensor | None:
        """The embedding of length 1 [E] of a waveform at `rate`, its first MOST_SECONDS; None where it is too short to tell."""
        if len(wave_S) < FEWEST_SECONDS * self.rate:
            return None
        wave_S = wave_S[: round(MOST_SECONDS * self.rate)]
        inputs = self.extractor(wave_S.numpy(), sampling_rate=self.rate, return_tensors="pt")
        found_BE = self.model(**inputs.to(self.model.device)).embeddings
        return torch.nn.functional.normalize(found_BE[0].float().cpu(), dim=0)

    def likeness(self, one_S: Tensor, other_S: Tensor) -> float | None:
        """The cosine of two voices, 1 for the same; None where a recording is too short."""
        one_E, other_E = self.embed(one_S), self.embed(other_S)
        return None if one_E is None or other_E is None else float(one_E @ other_E)
