"""`--to backbone`: the language model as transformers and servers know it, and beside it what turns a recording into its prompt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import GenerationConfig

from melcli.errors import UsageError
from melcli.exporting import card, clients, front, probes
from melcli.exporting.source import Source
from melcli.models import checkpoint

CLIENT = {"backbone_client.py": "client.py", "log_mel.py": "log_mel.py", "speech_input.py": "speech_input.py"}


def write(source: Source, folder: Path) -> None:
    """A stock checkpoint with its tokenizer, the speech input's settings and tensors, and a client. Raises UsageError."""
    front.require(source, "backbone")
    if source.model.config.speech_attention == "bidirectional":
        how = "which no server does with prompt embeddings; --to onnx keeps it, or train with model.speech_attention=causal"
        raise UsageError(f"--to backbone: in {source.name} positions of speech see each other both ways, {how}")
    model, config = source.model, source.model.config
    llm = model.llm.to(source.dtype)
    llm.config.dtype = source.dtype
    llm.generation_config = GenerationConfig(
        eos_token_id=list(config.stop_token_ids), pad_token_id=config.pad_token_id, suppress_tokens=model.place_holders
    )
    llm.save_pretrained(folder)
    model.float()
    source.processor.tokenizer.save_pretrained(folder)
    (folder / "speech_input.json").write_text(json.dumps(front.settings(source), indent=2) + "\n", encoding="utf-8")
    checkpoint.write_tensors(folder / "speech_input.safetensors", front.tensors(source))
    for name, copy in CLIENT.items():
        shutil.copyfile(front.BUNDLED / name, folder / copy)
    (folder / "README.md").write_text(card.backbone(source), encoding="utf-8")


def check(source: Source, folder: Path) -> list[probes.Compared]:
    """What the client of the folder, in a process of its own, makes of recordings by transformers' generate()."""
    waves = probes.pieces(source.processor.spec.rate, source.model.config.max_seconds)
    ours = probes.tokens(source.model, source.processor, waves)
    theirs = clients.tokens(folder, waves, source.processor.spec.rate)
    return [probes.compare("transcripts", ours, theirs)]
