"""What was written is what was trained: the model of a folder is read again and asked the same."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from melcli.data.batches import read_item
from melcli.data.collate import pack
from melcli.data.features import Joined
from melcli.data.tasks import Encoder
from melcli.errors import AudioError, CheckpointError
from melcli.models import checkpoint, lora
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM

TOLERANCE = 1e-4  # of the largest logit: what the order of additions may change, and no lost tensor could
READ = ("input_ids", "speech", "speech_lengths", "spoken", "spoken_lengths", "voice", "voice_lengths", "documents", "position_ids")
TRIED = 20  # utterances, until one can be read


def one_batch(features: Joined, encoders: list[Encoder], text_ids: list[list[int]], processor: SpeechLMProcessor) -> dict[str, Tensor]:
    """An utterance of each task with speech in the training data, without augmentation, as the model's input; where none has any, one of text."""
    items = []
    for encoder in dict.fromkeys(encoders):
        own = [i for i, each in enumerate(encoders) if each is encoder and (features.frames[i] or not (encoder.reads_speech or encoder.speaks))]
        for index in own[:TRIED]:
            with suppress(AudioError):
                items.append(read_item(features, index, encoder, text_ids[index], processor.patches, processor.steps))
                break
    items = [item for item in items if item.heard_TM is not None or item.spoken_TM is not None] or items
    if not items:
        raise AudioError(f"none of the first {TRIED} utterances can be read")
    return pack([[item] for item in items], processor.tokenizer.pad_token_id)


@torch.no_grad()
def check_written(folder: Path, model: SpeechLM, batch: dict[str, Tensor], dtype: torch.dtype) -> float:
    """The largest difference between the logits of a model and of what was written of it, on one batch; both end up on the processor.

    dtype: what the weights were rounded to on disk; those of `model` are rounded as well. Raises CheckpointError where the difference is more than
    rounding, also that of a loss of speech which is said, and where the written model has adapters that change nothing.
    """
    model = model.cpu().eval()
    model.load_state_dict({name: checkpoint.cast(name, tensor, dtype).to(tensor.dtype) for name, tensor in model.state_dict().items()})
    again, _ = checkpoint.load(str(folder), dtype=torch.float32)
    again.llm.set_attn_implementation(model.llm.config._attn_implementation)
    read = {name: batch[name] for name in READ if name in batch}
    with torch.compiler.set_stance("force_eager"):
        gap, most = _gap(model(**read).logits, again(**read).logits)
        if not gap <= TOLERANCE * max(most, 1.0):
            raise CheckpointError(f"{folder}: read again, it is not the model that was trained: logits up to {most:.3g} differ by up to {gap:.3g}")
        if "spoken" in batch:
            ours, theirs = model(**batch).parts, again(**batch).parts
            for name in model.speech_output.parts:
                off, size = _gap(ours[name], theirs[name])
                if not off <= TOLERANCE * max(size, 1.0):
                    raise CheckpointError(
                        f"{folder}: read again, it is not the model that was trained: its loss {name} of {size:.3g} differs by {off:.3g}"
                    )
    if again.config.lora is not None and not lora.lora_is_zero(model) and not lora.lora_is_used(again):
        raise CheckpointError(f"{folder}: read again, its adapters change nothing")
    return gap


def _gap(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    """The largest difference, and the largest number."""
    return float((ours - theirs).abs().max()), float(ours.abs().max())
