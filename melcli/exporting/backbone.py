"""`--to backbone`: the language model as transformers and servers know it, and beside it what turns a recording into its prompt."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig

from melcli.errors import UsageError
from melcli.exporting import card, clients, front
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
    checkpoint.write_tensors(folder / "speech_input.safetensors", front.tensors(source))
    clients.write(source, folder, CLIENT, front.settings(source), card.backbone(source))


check = clients.check  # by transformers' generate()
