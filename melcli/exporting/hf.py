"""`--to hf`: a whole folder that transformers' Auto classes load, with a model card."""

from __future__ import annotations

from pathlib import Path

import torch

from melcli.exporting import card, probes
from melcli.exporting.source import Source
from melcli.models import checkpoint, int8

KEPT = ("recipe.yaml", "training.json")
EVALUATION = "evaluation.json"


def write(source: Source, folder: Path) -> None:
    """Everything that the model needs, what was measured of it, and the licences of others' work in it."""
    names = [*KEPT, *([EVALUATION] if source.measured else []), *sorted(path.name for path in source.folder.glob("LICENSE*"))]
    extra = {name: (source.folder / name).read_text(encoding="utf-8") for name in names if (source.folder / name).is_file()}
    extra["README.md"] = card.hf(source)
    checkpoint.save(folder, source.model, source.processor, dtype=source.dtype, extra=extra)
    if source.int8:
        tied, state = set(source.model._tied_weights_keys or {}), source.model.state_dict()
        packed = int8.pack({n: t for n, t in state.items() if n not in tied}, keep=lambda name, t: checkpoint.cast(name, t, source.dtype))
        checkpoint.write_tensors(folder / int8.FILE, packed)
        for path in folder.glob("model*.safetensors*"):
            if path.name != int8.FILE:
                path.unlink()


def check(source: Source, folder: Path) -> list[probes.Compared]:
    """The folder read by the Auto classes, and asked the same. Raises CheckpointError where it says anything else."""
    from transformers import AutoModelForCausalLM, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32).eval()
    return probes.compare_models(source.model, source.processor, model, processor)
