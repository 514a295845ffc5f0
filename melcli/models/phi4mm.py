"""Phi-4-multimodal (arXiv 2503.01743) as a SpeechLM: what of its checkpoint is kept, under which names, and what is left behind.

Both layouts are read, from safetensors and with no code but ours: that of the hub's `main` (model_type `phi4mm`, which transformers can only
run with code from the hub) and that of transformers' own class (`phi4_multimodal`, the hub's `refs/pr/70`). The language model is a stock
`Phi3ForCausalLM`; the speech input is its convolutions and projector, with or without the conformer blocks between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerFast

from melcli.audio.mel_spec import preset
from melcli.errors import CheckpointError, first_line
from melcli.models import checkpoint, lora
from melcli.models.causal_lm import check_vocabulary
from melcli.models.config import SPEECH_TOKEN, SpeechLMConfig
from melcli.models.coverage import Coverage, sizes, some
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM
from melcli.untrusted import parse_json

LAYOUTS = ("phi4mm", "phi4_multimodal")
MEL = "phi4mm"
PROMPT = f"<|user|>{SPEECH_TOKEN}Transcribe the audio clip into text.<|end|><|assistant|>"
STOPS = ("<|end|>", "<|endoftext|>")  # either ends an answer; both, in this order, follow one in training
PLACEHOLDERS = ("<|audio|>", "<|endoftext11|>")  # where a prompt says <|audio_1|>, its ids hold one of these for each vector of speech

REQUIRED = (  # the native class's defaults are not the checkpoint's: nothing here may be left to them
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("hidden_act", "rms_norm_eps", "max_position_embeddings", "original_max_position_embeddings", "tie_word_embeddings"),
)
OPTIONAL = (*("sliding_window", "initializer_range", "bos_token_id", "resid_pdrop", "embd_pdrop", "attention_dropout"),)

ADAPTER_WEIGHTS = "adapter_model.safetensors"
REMOTE_LORA = {"r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "dp", "target_modules": "layer"}  # peft's word, the remote code's

LAYER = r"model\.layers\.\d+\."
AUDIO = r"model\.embed_tokens_extend\.audio_embed\."
ENCODER = rf"{AUDIO}encoder\."
ADAPTED = r"(model\.layers\.\d+\.\w+\.\w+)\.lora_([AB])\."
VALUES = r"(weight|bias)"

KEPT = (  # a tensor of the file, our name for it; the first that matches in full counts
    (rf"(model\.embed_tokens\.weight|model\.norm\.weight|lm_head\.weight|{LAYER}\w+_layernorm\.weight)", r"llm.\1"),
    (rf"({LAYER}\w+\.\w+)\.(?:base_layer\.)?weight", r"llm.\1.weight"),
    (rf"{ADAPTED}speech\.weight", r"llm.\1.lora_\2.default.weight"),
    (rf"{ENCODER}encoder_embedding\.(global_mean|global_invstd)", r"speech_input.normalise.\1"),
    (rf"{ENCODER}embed\.(conv\.\d+|out)\.{VALUES}", r"speech_input.\1.\2"),
    (rf"{AUDIO}audio_projection\.speech\.0\.{VALUES}", r"speech_input.up_proj_for_speech.\1"),
    (rf"{AUDIO}audio_projection\.speech\.2\.{VALUES}", r"speech_input.down_proj_for_speech.\1"),
    (rf"{AUDIO}((?:up|down)_proj_for_speech)\.{VALUES}", r"speech_input.\1.\2"),
)
CONFORMER = (  # kept where the speech input is `phi4mm-encoder`
    (rf"{ENCODER}(encoders\.\d+\.feed_forward_(?:in|out))\.net\.0\.linear\.{VALUES}", r"speech_input.\1.gate_up_proj.\2"),
    (rf"{ENCODER}(encoders\.\d+\.feed_forward_(?:in|out))\.net\.2\.{VALUES}", r"speech_input.\1.down_proj.\2"),
    (rf"{ENCODER}(encoders\.\d+\.self_attn)\.linear_([qkv])\.{VALUES}", r"speech_input.\1.\2_proj.\3"),
    (rf"{ENCODER}(encoders\.\d+\.self_attn)\.linear_out\.{VALUES}", r"speech_input.\1.o_proj.\2"),
    (rf"{ENCODER}(encoders\.\d+\.[\w.]+)", r"speech_input.\1"),
    (rf"{ENCODER}(relative_attention_bias_layer\.bias_values\.weight)", r"speech_input.\1"),
)
LEFT = (  # what a recogniser of speech has no place for, and what it is
    (r"model\.embed_tokens_extend\.image_embed\..+", "vision"),
    (rf"{ADAPTED}vision\.weight", "vision LoRA"),
    (rf"{AUDIO}audio_projection\.vision\.\d\.{VALUES}", "speech projector beside images"),
    (rf"{AUDIO}(?:up|down)_proj_for_vision_speech\.{VALUES}", "speech projector beside images"),
    (rf"{ENCODER}(?:encoders|relative_attention_bias_layer)\..+", "conformer"),
)


@dataclass
class Phi4MM:
    """A checkpoint, read. tensors: by the names of a SpeechLM, as if adapters lay beside the weights and not around them.

    config: of the SpeechLM, the checkpoint's own speech input and adapter included. left, groups: sizes of the tensors left behind and what
    each is part of.
    """

    config: SpeechLMConfig
    tokenizer: Any
    tensors: dict[str, Tensor]
    left: dict[str, int]
    groups: dict[str, str]

    @property
    def coverage(self) -> Coverage:
        return Coverage(sizes(self.tensors, self.tensors), dict(self.left), groups=dict(self.groups))


def read_phi4mm(folder: Path, speech_input: Mapping[str, Any] | None = None) -> Phi4MM:
    """A checkpoint in either layout, every tensor of it accounted for.

    speech_input: kind and options of a recipe, `mel-conv` by default; what `mel-conv` and `phi4mm-encoder` leave open is the checkpoint's.
    Raises CheckpointError.
    """
    fields = checkpoint.read_config(folder)
    if fields.get("model_type") not in LAYOUTS:
        raise CheckpointError(f"{folder}: model_type {fields.get('model_type')!r} is not Phi-4-multimodal, which is {' or '.join(LAYOUTS)}")
    options = _speech_input(folder, fields, speech_input or {})
    tensors, left, groups = _rename(folder, checkpoint.read_tensors(folder), options["kind"] == "phi4mm-encoder")
    declared = _declared_lora(folder, fields)
    if fields["model_type"] == "phi4_multimodal":
        tensors |= _adapter_file(folder, declared is not None)
        vision = folder / "vision-lora" / ADAPTER_WEIGHTS
        beside = {f"vision-lora/{name}": size for name, size in checkpoint.sizes_in(vision).items()} if vision.exists() else {}
        left, groups = left | beside, groups | dict.fromkeys(beside, "vision LoRA")
    adapter = _lora(folder, declared, tensors)
    tokenizer = _tokenizer(folder)
    check_vocabulary(_required(folder, fields, "vocab_size"), tokenizer, str(folder))
    stops = [_token_id(folder, tokenizer, name) for name in STOPS]
    config = SpeechLMConfig(
        text_config=_text_config(folder, fields, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id),
        speech_input=options,
        mel=preset(MEL).model_dump(),
        prompt=PROMPT,
        speech_token_id=_placeholder(folder, fields, tokenizer),
        stop_token_ids=stops,
        end_token_ids=stops,
        pad_token_id=tokenizer.pad_token_id,
        lora=adapter,
    )
    return Phi4MM(config, tokenizer, tensors, left, groups)


def load_phi4mm(
    folder: Path,
    *,
    speech_input: Mapping[str, Any] | None = None,
    merge: bool = False,
    dtype: torch.dtype | None = torch.float32,
    device: str = "cpu",
) -> tuple[SpeechLM, SpeechLMProcessor, Coverage]:
    """The model in evaluation mode, its processor, and what became of every tensor. Nothing is random.

    merge: add the speech LoRA to the weights, in float32, instead of keeping it live. dtype: None for the file's. Raises CheckpointError.
    """
    phi = read_phi4mm(folder, speech_input)
    with init_empty_weights():
        model = SpeechLM(phi.config)
    checkpoint.assign(model, wrapped(phi.tensors), folder, dtype, device)
    if merge:
        lora.merge_lora(model)
    return model.eval(), SpeechLMProcessor.of(phi.config, phi.tokenizer, model.speech_input), phi.coverage


def wrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors as a model with live adapters calls them: what an adapter lies on is its `base_layer`."""
    adapted = {match["module"] for name in tensors if (match := lora.PARTS.match(name))}
    return {f"{m}.base_layer.weight" if (m := name.removesuffix(".weight")) in adapted else name: tensor for name, tensor in tensors.items()}


# --- tensors -------------------------------------------------------------------------------------------------------------------------------


def _rename(folder: Path, tensors: Mapping[str, Tensor], conformer: bool) -> tuple[dict[str, Tensor], dict[str, int], dict[str, str]]:
    """Tensors under our names; sizes and groups of those left behind. Raises CheckpointError for any that is neither."""
    rules = (*KEPT, *CONFORMER) if conformer else KEPT
    kept: dict[str, Tensor] = {}
    groups: dict[str, str] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        if ours := next((match.expand(new) for old, new in rules if (match := re.fullmatch(old, name))), None):
            kept[ours] = tensor
        elif group := next((group for old, group in LEFT if re.fullmatch(old, name)), None):
            groups[name] = group
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"{folder}: holds unexpected {some(sorted(unknown))}, which no Phi-4-multimodal has")
    return kept, sizes(tensors, groups), groups


def _adapter_file(folder: Path, declared: bool) -> dict[str, Tensor]:
    """The speech LoRA of the native layout, which lies in a folder of its own; nothing where there is none."""
    if not declared:
        return {}
    place = folder / "speech-lora"
    if not (place / ADAPTER_WEIGHTS).exists():
        raise CheckpointError(f"{place}: {ADAPTER_WEIGHTS} is missing{checkpoint.pickle_hint(place)}")
    named = {}
    for name, tensor in checkpoint.load_tensors(place / ADAPTER_WEIGHTS).items():
        match = re.fullmatch(rf"(?:base_model\.model\.)?{ADAPTED}(?:\w+\.)?weight", name)
        if match is None:
            raise CheckpointError(f"{place}: holds unexpected {name}, which no LoRA of Phi-4-multimodal has")
        named[f"llm.{match[1]}.lora_{match[2]}.default.weight"] = tensor
    return named


# --- the adapter ---------------------------------------------------------------------------------------------------------------------------


def _declared_lora(folder: Path, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a checkpoint says of its speech LoRA, in peft's words; None where it says nothing, because it was merged."""
    if fields["model_type"] == "phi4mm":
        said = fields.get("speech_lora")
        if said and not isinstance(said, Mapping):
            raise CheckpointError(f"{folder / 'config.json'}: speech_lora is no description of an adapter")
        return said and {name: said.get(theirs) for name, theirs in REMOTE_LORA.items()}
    path = folder / "speech-lora" / "adapter_config.json"
    if not path.exists():
        return None
    try:
        return dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None


def _lora(folder: Path, declared: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """`SpeechLMConfig.lora` of the speech LoRA. Raises CheckpointError where what is said of it and its tensors disagree."""
    found = {match["module"] for name in tensors if (match := lora.PARTS.match(name))}
    if not declared:
        if found:
            raise CheckpointError(f"{folder}: holds a speech LoRA for {some(sorted(found))}, and its config.json does not describe it (speech_lora)")
        return None
    for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "lora_bias"):
        if declared.get(name):
            raise CheckpointError(f"{folder}: its speech LoRA is of another kind ({name})")
    linear = [name.removesuffix(".weight") for name in tensors if name.startswith("llm.model.layers.") and not lora.is_lora(name)]
    meant = {name for name in linear if _is_target(name.removeprefix("llm."), declared.get("target_modules"))}
    if over := sorted(found - meant):
        raise CheckpointError(f"{folder}: holds a speech LoRA for {some(over)}, which its description does not name")
    if less := sorted(meant - found) or ([] if found else ["anything"]):
        raise CheckpointError(f"{folder}: holds no speech LoRA for {some(less)}, which its description names")
    rank, alpha = declared.get("r"), declared.get("lora_alpha")
    for name, tensor in tensors.items():
        if lora.is_lora(name) and (held := tensor.shape[0 if ".lora_A." in name else 1]) != rank:
            raise CheckpointError(f"{folder}: holds a speech LoRA of rank {held} ({name}), and is said to have one of rank {rank}")
    targets = "|".join(sorted({name.rpartition(".")[2] for name in found}))
    return lora.options_of({"rank": rank, "alpha": alpha, "dropout": declared.get("lora_dropout") or 0.0, "targets": targets}).model_dump()


def _is_target(name: str, targets: Any) -> bool:
    """Whether peft would adapt a module, `model.layers.0.mlp.down_proj`, to which the remote code does not say `model.`."""
    if isinstance(targets, str):
        try:
            return any(re.fullmatch(targets, one) for one in (name, name.removeprefix("model.")))
        except re.error:  # what is no pattern names no module: the modules that have adapters are then too many
            return False
    return isinstance(targets, Iterable) and any(name == one or name.endswith(f".{one}") for one in targets)


# --- the description -----------------------------------------------------------------------------------------------------------------------


def _required(folder: Path, fields: Mapping[str, Any], *path: str) -> Any:
    """A field of config.json, at any depth. Raises CheckpointError where it is missing."""
    value: Any = fields
    for key in path:
        if not isinstance(value, Mapping) or value.get(key) is None:
            raise CheckpointError(f"{folder / 'config.json'}: {'.'.join(path)} is missing")
        value = value[key]
    return value


def _text_config(folder: Path, fields: Mapping[str, Any], **ids: Any) -> PretrainedConfig:
    """The configuration of the language model alone: a Phi3ForCausalLM's. Rotary settings are in one place, as transformers 5 has them."""
    rope = dict(_required(folder, fields, "rope_parameters" if "rope_parameters" in fields else "rope_scaling"))
    rope["rope_type"] = rope.pop("type", None) or rope.get("rope_type")
    rope |= {name: _required(folder, fields, name) for name in ("rope_theta", "partial_rotary_factor") if name not in rope}
    chosen = {name: _required(folder, fields, name) for name in REQUIRED} | {name: fields[name] for name in OPTIONAL if name in fields}
    try:
        return AutoConfig.for_model("phi3", rope_parameters=rope, **chosen, **ids)
    except Exception as error:  # transformers checks each field in its own way
        raise CheckpointError(f"{folder / 'config.json'}: {first_line(error)}") from None


FRONT = {  # an option of ours: where it stands in audio_processor.config of the remote code, and in audio_config of the native class
    "stride": (("time_reduction",), "time_reduction"),
    "channels": (("nemo_conv_settings", "conv_channels"), "nemo_conv_channels"),
    "hidden": (("attention_dim",), "hidden_size"),
}
BLOCKS = {
    "blocks": (("num_blocks",), "num_blocks"),
    "heads": (("attention_heads",), "num_attention_heads"),
    "ffn": (("linear_units",), "intermediate_size"),
    "kernel": (("kernel_size",), "kernel_size"),
    "max_distance": (("relative_attention_bias_args", "t5_bias_max_distance"), "bias_max_distance"),
    "dropout": (("dropout_rate",), "dropout_rate"),
}


def _speech_input(folder: Path, fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Kind and options of the speech input: those given, and the checkpoint's where they leave it open."""
    remote = fields["model_type"] == "phi4mm"

    def said(path: tuple[str, ...], native: str) -> Any:
        return _required(folder, fields, *(("audio_processor", "config", *path) if remote else ("audio_config", native)))

    kind = given.get("kind", "mel-conv")
    if kind not in ("mel-conv", "phi4mm-encoder"):
        return dict(given)
    if (bins := said(("input_size",), "input_size")) != preset(MEL).n_mels:
        raise CheckpointError(f"{folder / 'config.json'}: its features have {bins} mel bins, those of the mel preset {MEL} {preset(MEL).n_mels}")
    if _required(folder, fields, *(("embd_layer", "audio_embd_layer") if remote else ("audio_config",)), "downsample_rate") != 1:
        raise CheckpointError(f"{folder / 'config.json'}: downsample_rate is not 1, which no Phi-4-multimodal has")
    if kind == "phi4mm-encoder" and (size := said(("chunk_size",), "chunk_size")) != -1:
        raise CheckpointError(f"{folder / 'config.json'}: chunk_size is {size}: an encoder that hears in chunks is no phi4mm-encoder")
    names = FRONT | (BLOCKS if kind == "phi4mm-encoder" else {})
    return {"kind": kind, "norm": "global", **{name: said(*where) for name, where in names.items()}, **given}


# --- the tokenizer -------------------------------------------------------------------------------------------------------------------------


def _tokenizer(folder: Path) -> Any:
    """From tokenizer.json: the config of the remote-code layout names a tokenizer of somebody else's, which is not asked for."""
    if not (folder / "tokenizer.json").exists():
        raise CheckpointError(f"{folder}: tokenizer.json is missing")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({first_line(error)})") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = STOPS[-1]
    return tokenizer


def _token_id(folder: Path, tokenizer: Any, name: str) -> int:
    if name not in tokenizer.get_vocab():
        raise CheckpointError(f"{folder}: its tokenizer has no {name}, so it is not that of Phi-4-multimodal")
    return tokenizer.get_vocab()[name]


def _placeholder(folder: Path, fields: Mapping[str, Any], tokenizer: Any) -> int:
    """The id that stands where speech goes, found by name; the native config has it too."""
    names = [name for name in (getattr(tokenizer, "audio_token", None), *PLACEHOLDERS) if name in tokenizer.get_vocab()]
    if not names:
        raise CheckpointError(f"{folder}: its tokenizer has no token for audio ({' or '.join(PLACEHOLDERS)})")
    found = tokenizer.get_vocab()[names[0]]
    said = (fields.get("audio_config") or {}).get("audio_token_id", found)
    if said != found:
        raise CheckpointError(f"{folder}: its tokenizer's {names[0]} is {found}, and audio_token_id in config.json {said}: not a pair")
    return found
