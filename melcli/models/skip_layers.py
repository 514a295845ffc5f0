"""How much a layer matters to speech: the same model with one layer skipped where the input is speech, and only there.

At a speech position a skipped layer passes its input on as it is: neither its attention nor its feed-forward block writes to the residual stream.
At every other position the layer works as always; its attention sees the keys and values that the layer makes of the speech positions, whose
inputs are what the layers before it left. So a skipped layer cannot refine speech and can still read it. To skip
the last layer changes no text, which never sees what that makes of speech, unless through a CTC head, which reads just that.

Shapes: B rows, L positions, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from melcli.errors import UsageError
from melcli.models.layers import decoder_layers, layer_range
from melcli.models.speech_lm import SpeechLM


def blocks_of(model: SpeechLM) -> nn.ModuleList:
    """The blocks of the language model, in order. Raises UsageError where its architecture keeps them otherwise than as one list."""
    found = decoder_layers(model.llm)
    if found is None:
        raise UsageError(f"--skip-layers: {model.config.text_config.model_type} does not keep its layers in one list")
    return found


def parse_layers(text: str, count: int) -> list[int]:
    """Layers named by `all`, or by numbers and ranges such as `0-3,8`, of a model that has so many. Raises UsageError."""
    if text == "all":
        return list(range(count))
    found: set[int] = set()
    for part in text.split(","):
        span = layer_range(part)
        if span is None or span[-1] >= count:
            raise UsageError(f"--skip-layers {text}: '{part.strip()}' names no layers; this model has 0-{count - 1}: write all, 0-3 or 0,4,8.")
        found.update(span)
    return sorted(found)


@contextmanager
def skipping(model: SpeechLM, layers: Collection[int]) -> Iterator[None]:
    """Within this `with` the model skips these layers at speech positions, whoever calls it: `decode`, `generate`, `forward`.

    Speech is read once, with the prompt, so all that is decoded after it goes through every layer. No layers: the model as it is.
    """
    blocks = blocks_of(model)
    speech_BL: Tensor | None = None

    def note(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal speech_BL
        ids_BL = named.get("input_ids", arguments[0] if arguments else None)
        speech = named.get("speech", arguments[1] if len(arguments) > 1 else None)
        speech_BL = None if ids_BL is None or speech is None else ids_BL == model.config.speech_token_id

    def forget(*_: Any) -> None:
        nonlocal speech_BL
        speech_BL = None

    def pass_on(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        if speech_BL is None:
            return None
        before_BLD = arguments[0] if arguments else named["hidden_states"]
        after_BLD = output[0] if isinstance(output, tuple) else output
        kept_BLD = torch.where(speech_BL[..., None], before_BLD, after_BLD)
        return (kept_BLD, *output[1:]) if isinstance(output, tuple) else kept_BLD

    hooks = []
    if layers:
        hooks = [model.register_forward_pre_hook(note, with_kwargs=True), model.register_forward_hook(forget, always_call=True)]
        hooks += [blocks[k].register_forward_hook(pass_on, with_kwargs=True) for k in sorted(set(layers))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
