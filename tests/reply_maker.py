"""A model that hears, writes and speaks, random and small, saved as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from melcli.audio.mel_spec import preset
from melcli.data.tasks import ANSWER, ASKS, SPEECH
from melcli.models import checkpoint
from melcli.models.mel_norm import GlobalNorm
from tests.models.conftest import OUTPUTS, make_model, make_speaker

PROMPTS = {task: f"{SPEECH}{ask}<|text|><|speak|>" for task, ask in ASKS.items()}


def make_replier(tasks: tuple[str, ...] = ("continue", "answer"), speaks: bool = True, **more):
    """The model and its processor. What it writes is no sense, but follows from what it hears."""
    prompts = {task: PROMPTS[task] if speaks else PROMPTS[task].partition("<|text|>")[0] for task in tasks}
    mel = preset("speecht5").model_dump()
    make = make_speaker if speaks else make_model
    model, processor = make(
        **({"output": OUTPUTS["spectrogram"]} if speaks else {}),
        mel=mel,
        max_seconds=6.0,
        prompts=prompts,
        ctc_alphabet="abcdefghijklmnopqrstuvwxyz' ",
        **more,
    )
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [*ASKS.values(), ANSWER]}, replace_extra_special_tokens=False)
    model.llm.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.config.text_config.vocab_size = len(processor.tokenizer)
    with torch.no_grad():
        for parameter in model.llm.parameters():
            if parameter.dim() > 1:
                parameter.div_(4.0)  # fewer loops
    return model, processor


def save_replier(folder: Path, tasks: tuple[str, ...] = ("continue", "answer"), speaks: bool = True) -> Path:
    """Writes it, its voice neither silent nor too loud."""
    model, processor = make_replier(tasks, speaks)
    if speaks:
        for norm in (module for module in model.speech_output.modules() if isinstance(module, GlobalNorm)):
            norm.set(torch.full((80,), -3.0), torch.full((80,), 0.3))
        with torch.no_grad():
            for parameter in model.speech_output.parameters():
                parameter.mul_(0.25)
    checkpoint.save(folder, model, processor)
    return folder
