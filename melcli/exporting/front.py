"""What turns a recording into vectors, apart from melcli: settings and tensors for the scripts in `bundled`.

Shapes: n, m tokens of the prompt before and after speech, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from melcli.audio.mel import mel_filters, window
from melcli.errors import UsageError
from melcli.exporting.source import Source
from melcli.models.decoding.recognise import SPARE_TOKENS

BUNDLED = Path(__file__).parent / "bundled"
KINDS = ("mel-patch", "mel-conv", "mel-tdnn", "raw-frame")


def require(source: Source, target: str) -> None:
    """Raises UsageError for a model that no script in `bundled` can read speech for, or whose weights are not only its own."""
    config = source.model.config
    kind = config.speech_input["kind"]
    if kind not in KINDS:
        raise UsageError(f"--to {target}: is for the speech inputs {', '.join(KINDS)}, and that of {source.name} is {kind}; --to hf keeps any")
    if source.model.writes_by_ctc:
        raise UsageError(f"--to {target}: {source.name} learnt to hear by CTC alone, and its language model cannot write; --to hf keeps what it is")
    if config.lora is not None:
        raise UsageError(f"--to {target}: {source.name} has adapters beside its weights, for which there is no place; add --merge-lora")


def settings(source: Source) -> dict[str, Any]:
    """speech_input.json: all that is no tensor."""
    model, config, spec = source.model, source.model.config, source.processor.spec
    options: dict[str, Any] = {"kind": config.speech_input["kind"], "stride": model.speech_input.stride}
    if options["kind"] == "raw-frame":
        options["eps"] = model.speech_input.eps
    else:
        normaliser = model.speech_input.normalise
        options["norm"] = {"NoNorm": "none", "UtteranceNorm": "utterance", "GlobalNorm": "global"}[type(normaliser).__name__]
        options["prior"] = getattr(normaliser, "prior", 0.0)
        if options["kind"] == "mel-tdnn":
            options["reaches"] = [layer.reach for layer in model.speech_input.layers]
    derived = {name: getattr(spec, name) for name in ("span", "fft_pad", "reflected", "skipped")}
    return {
        "speech_input": options,
        "reads": source.processor.reads,
        "mel": {**spec.model_dump(), **derived},
        "max_seconds": config.max_seconds,
        "spare_tokens": SPARE_TOKENS,
        "tokens_per_frame": source.processor.tokens_per_second / (spec.frame_rate if source.processor.reads == "mel" else spec.rate),
        "prompt": config.prompt,
        "speech_attention": config.speech_attention,
        "stop_token_ids": list(config.stop_token_ids),
        "never": model.place_holders,
    }


def prompt(source: Source) -> tuple[list[int], list[int]]:
    """Tokens of the prompt before and after speech. Raises UsageError where speech is not in it just once."""
    ids = source.processor.prompts([1])[0]
    speech = source.model.config.speech_token_id
    if ids.count(speech) != source.processor.patches(1):
        raise UsageError(f"{source.name}: its prompt {source.model.config.prompt!r} has not just one place for speech")
    at = ids.index(speech)
    return ids[:at], ids[at + ids.count(speech) :]


@torch.no_grad()
def tensors(source: Source) -> dict[str, Tensor]:
    """speech_input.safetensors: weights in float32, the mel's window and filters, and the vectors of the prompt's tokens [n, D] and [m, D]."""
    model, spec = source.model, source.processor.spec
    found = {name: tensor.float() for name, tensor in model.speech_input.state_dict().items()}
    if source.processor.reads == "mel":
        found |= {"mel.window": window(spec).double(), "mel.filters": mel_filters(spec).float().double()}
    for name, ids in zip(("before", "after"), prompt(source), strict=True):
        found[f"prompt.{name}"] = model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)).float()
    return found
