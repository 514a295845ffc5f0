"""`--to onnx`: the speech input, the embedding table and a step of the decoder with its key-value cache as graphs for onnxruntime.

Shapes: T frames, M mel bins, P patches, L tokens, Q positions read at once, S positions held, K = S + Q, H heads, E width of a head, D width,
V vocabulary. One utterance at a time.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers.cache_utils import Cache, DynamicLayer

from melcli.errors import CheckpointError, UsageError, first_line
from melcli.exporting import card, clients, front, onnx_int8
from melcli.exporting.bundled import speech_input
from melcli.exporting.source import Source
from melcli.models import checkpoint
from melcli.models.masks import added
from melcli.models.speech_lm import SpeechLM

NEEDED = ("onnx", "onnxruntime", "onnxscript")
INLINE = 1_500_000_000  # bytes up to which weights lie in the graph's own file; ONNX ends at 2 GB
CLIENT = {"onnx_client.py": "client.py", "log_mel.py": "log_mel.py"}


class Speech(nn.Module):
    """features [T, M] (or samples [T, 1]) to x_PD."""

    def __init__(self, weights: dict[str, Tensor], options: dict[str, Any]) -> None:
        super().__init__()
        self.names = list(weights)
        self.options = options
        for i, tensor in enumerate(weights.values()):
            self.register_buffer(f"w{i}", tensor)

    def forward(self, features: Tensor) -> Tensor:
        return speech_input.embed(features, {name: getattr(self, f"w{i}") for i, name in enumerate(self.names)}, self.options)


class Embed(nn.Module):
    """input_ids [1, L] to x_1LD."""

    def __init__(self, model: SpeechLM) -> None:
        super().__init__()
        self.table = model.get_input_embeddings()

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.table(input_ids)


class Step(nn.Module):
    """Embeddings x_1QD, who of them sees whom [Q, Q], their positions [1, Q] and what is held of each layer, [1, H, S, E] twice, to logits [1, V]
    of what comes next and what is held then. All that is held is seen, as far as a layer's window goes."""

    def __init__(self, model: SpeechLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs_embeds: Tensor, among: Tensor, position_ids: Tensor, held: list[Tensor]) -> tuple[Tensor, ...]:
        count, past = inputs_embeds.shape[1], held[0].shape[2]
        allowed_11QK = torch.cat([among.new_ones(count, past), among], 1)[None, None]
        cache = Cache(layers=[_layer(keys, values) for keys, values in zip(held[::2], held[1::2], strict=True)])
        out = self.model.llm.get_decoder()(
            inputs_embeds=inputs_embeds,
            attention_mask=self._mask(allowed_11QK, count, past),
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        states = [tensor for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return self.model.logits(out.last_hidden_state[:, -1]), *states

    def _mask(self, allowed_11QK: Tensor, count: int, past: int) -> Any:
        """As `melcli.models.masks.for_layers`, without a branch on how many positions there are."""
        config = self.model.config.text_config
        window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
        mask: Any = allowed_11QK
        if window and not (kinds and "sliding_attention" not in kinds):
            back_QK = torch.arange(count)[:, None] + past - torch.arange(past + count)
            near = allowed_11QK & (back_QK < window)
            mask = {"full_attention": allowed_11QK, "sliding_attention": near} if kinds else near
        return added(mask, torch.float32) if self.model.llm.config._attn_implementation == "eager" else mask


def _layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


def write(source: Source, folder: Path) -> None:
    """speech.onnx, embed.onnx, decoder.onnx, the tokenizer, settings and a client. Raises UsageError."""
    front.require(source, "onnx")
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(f"--to onnx needs {', '.join(absent)}: pip install 'melcli[onnx]'")
    settings, tensors = front.settings(source), front.tensors(source)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(("mel.", "prompt."))}
    cache = _cache(source)
    settings |= {"prompt_ids": front.prompt(source), "graphs": ["speech", "embed", "decoder"], "cache": {n: list(t.shape) for n, t in cache.items()}}
    _write_graphs(source, folder, Speech(weights, settings["speech_input"]), cache)
    if source.processor.reads == "mel":
        checkpoint.write_tensors(folder / "mel.safetensors", {name: tensors[name] for name in ("mel.window", "mel.filters")})
    clients.write(source, folder, CLIENT, settings, card.onnx(source))


check = clients.check  # by onnxruntime


def _cache(source: Source) -> dict[str, Tensor]:
    """What is held before anything was read, by the names of the decoder's inputs: found by reading a token, as families differ."""
    with torch.no_grad():
        x_11D = source.model.get_input_embeddings()(torch.zeros(1, 1, dtype=torch.long))
        layers = source.model.llm.get_decoder()(inputs_embeds=x_11D, use_cache=True).past_key_values.layers
    named = {f"{part}_{i}": getattr(layer, part) for i, layer in enumerate(layers) for part in ("keys", "values")}
    if strange := [name for name, tensor in named.items() if tensor is None or tensor.dim() != 4]:
        raise UsageError(f"--to onnx: {source.name}'s {source.model.config.text_config.model_type} layers keep no keys and values ({strange[0]})")
    return {name: tensor[:, :, :0] for name, tensor in named.items()}


def _write_graphs(source: Source, folder: Path, speech: Speech, cache: dict[str, Tensor]) -> None:
    spec, model = source.processor.spec, source.model
    columns = spec.n_mels if source.processor.reads == "mel" else 1
    frames = torch.randn(9 * model.speech_input.stride + 3, columns)
    auto = Dim.DYNAMIC
    _graph(speech, (frames,), ({0: auto},), folder / "speech.onnx", ["features"], ["embeddings"])
    _graph(Embed(model), (torch.ones(1, 5, dtype=torch.long),), ({1: auto},), folder / "embed.onnx", ["input_ids"], ["embeddings"])
    held = [torch.randn(1, t.shape[1], 7, t.shape[3]) for t in cache.values()]
    given = (torch.randn(1, 5, model.config.hidden_size), torch.ones(5, 5, dtype=torch.bool).tril(), torch.arange(7, 12)[None], held)
    shapes = ({1: auto}, {0: auto, 1: auto}, {1: auto}, [{2: auto} for _ in held])
    names = ["inputs_embeds", "among", "position_ids", *cache]
    _graph(Step(model), given, shapes, folder / "decoder.onnx", names, ["logits", *(f"new_{name}" for name in cache)])
    if source.int8:
        for name in ("speech", "embed", "decoder"):
            onnx_int8.pack(folder / f"{name}.onnx")


def _graph(module: nn.Module, given: tuple[Any, ...], shapes: tuple[Any, ...], path: Path, inputs: list[str], outputs: list[str]) -> None:
    """Write a module as a graph. Raises CheckpointError where torch cannot."""
    size = sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])
    with _quiet():
        try:
            program = torch.onnx.export(
                module.eval(), given, dynamo=True, dynamic_shapes=shapes, input_names=inputs, output_names=outputs, verbose=False
            )
            program.save(str(path), external_data=size > INLINE)
        except Exception as error:  # torch traces programs of many families, and fails in as many ways
            raise CheckpointError(f"--to onnx: {path.name} cannot be made of this model: {first_line(error)}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and its helpers say while they trace."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
