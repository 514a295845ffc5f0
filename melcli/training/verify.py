"""What was written is what was trained: the model of a folder is read again and asked the same."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from melcli.data.collate import pack
from melcli.data.features import Joined
from melcli.data.tasks import Encoder
from melcli.errors import AudioError, CheckpointError
from melcli.models import checkpoint, lora
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM

TOLERANCE = 1e-4  # of the largest logit: what the order of additions may change, and no lost tensor could
TRIED = 20  # utterances, until one can be read


def one_batch(features: Joined, encoders: list[Encoder], text_ids: list[list[int]], processor: SpeechLMProcessor) -> dict[str, Tensor]:
    """An utterance of the training data without augmentation, the first with speech, as the model's input."""
    spoken = [i for i, frames in enumerate(features.frames) if frames] or [0]
    for index in spoken[:TRIED]:
        encoder, utterance = encoders[index], features.utterances[index]
        with suppress(AudioError):
            mel_TM = features.get(index, None) if encoder.reads_speech else None
            example = encoder(utterance, 0 if mel_TM is None else processor.patches(len(mel_TM)), text_ids[index])
            batch = pack([[(example, mel_TM)]], processor.tokenizer.pad_token_id)
            return {name: batch[name] for name in ("input_ids", "speech", "speech_lengths", "documents", "position_ids") if name in batch}
    raise AudioError(f"none of the first {TRIED} utterances can be read")


@torch.no_grad()
def check_written(folder: Path, model: SpeechLM, batch: dict[str, Tensor], dtype: torch.dtype) -> float:
    """The largest difference between the logits of a model and of what was written of it, on one batch; both end up on the processor.

    dtype: what the weights were rounded to on disk; those of `model` are rounded as well. Raises CheckpointError where the difference is more than
    rounding, and where the written model has adapters that change nothing.
    """
    model = model.cpu().eval()
    model.load_state_dict({name: checkpoint.cast(name, tensor, dtype).to(tensor.dtype) for name, tensor in model.state_dict().items()})
    again, _ = checkpoint.load(str(folder), dtype=torch.float32)
    again.llm.set_attn_implementation(model.llm.config._attn_implementation)
    with torch.compiler.set_stance("force_eager"):
        logits, logits_again = model(**batch).logits, again(**batch).logits
    gap, most = float((logits - logits_again).abs().max()), float(logits.abs().max())
    if not gap <= TOLERANCE * max(most, 1.0):
        raise CheckpointError(f"{folder}: read again, it is not the model that was trained: logits up to {most:.3g} differ by up to {gap:.3g}")
    if again.config.lora is not None and not lora.lora_is_zero(model) and not lora.lora_is_used(again):
        raise CheckpointError(f"{folder}: read again, its adapters change nothing")
    return gap
