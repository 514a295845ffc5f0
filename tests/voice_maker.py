"""A model that speaks, random and small, saved as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from melcli.audio.mel_spec import preset
from melcli.models import checkpoint
from melcli.models.mel_norm import GlobalNorm
from tests.models.conftest import make_speaker


def save_voice(folder: Path) -> Path:
    """Writes it, reading and saying the mel speecht5, neither silent nor too loud."""
    model, processor = make_speaker(mel=preset("speecht5").model_dump())
    model.config.spoken_alphabet = "abcdefghijklmnopqrstuvwxyz' ,."
    for norm in (module for module in model.speech_output.modules() if isinstance(module, GlobalNorm)):
        norm.set(torch.full((80,), -3.0), torch.full((80,), 0.3))
    with torch.no_grad():
        for parameter in model.speech_output.parameters():
            parameter.mul_(0.25)
    checkpoint.save(folder, model, processor)
    return folder
