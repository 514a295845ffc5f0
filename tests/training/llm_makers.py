"""Tiny language models of many families as their makers would publish them: config, safetensors, a trained tokenizer, chat template, stop tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEXT = [
    "low mid high",
    "The low tone, then the high one.",
    "mid low low high mid",
    "Transcribe the audio clip into text.",
    "user assistant model system",
    "Once upon a time there was a tone in the middle, higher than the low one.",
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64, "head_dim": 16}

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
DATED = (
    "<|im_start|>system\nToday: {{ strftime_now('%d %B %Y') }}<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PHI = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def byte_level(specials: list[str], eos: str, **more: Any) -> PreTrainedTokenizerFast:
    """Byte-pair encoding of bytes, as GPT-2 and most since; special tokens come last, as they do in Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet))
    tokenizer.add_special_tokens(specials)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, **more)


def metaspace(specials: list[str], eos: str, bos: str, **more: Any) -> PreTrainedTokenizerFast:
    """Byte-pair encoding with `▁` for spaces and a token that texts begin with, as sentencepiece has it; special tokens come first."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=120, show_progress=False, special_tokens=["<unk>", *specials])
    tokenizer.train_from_iterator([*TEXT, "\n"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos, unk_token="<unk>", **more)


def write(folder: Path, tokenizer: PreTrainedTokenizerFast, family: str, rows: int | None = None, eos: Any = None, **more: Any) -> Path:
    """Make a random model of a family for a tokenizer and write both. rows: of the embedding table, as many as the tokenizer needs by default."""
    fields = {**SIZES, "vocab_size": rows or len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id}
    fields |= {"eos_token_id": tokenizer.eos_token_id, "initializer_range": 0.2, **more}
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if eos is not None:
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokenizer.convert_tokens_to_ids(token) for token in eos]}))
    return folder


def qwen3(folder: Path) -> Path:
    """A chat model that can think aloud, with a table padded far beyond its tokenizer."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level(specials, "<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML)
    rows = len(tokenizer) + 24
    return write(folder, tokenizer, "qwen3", rows, ["<|im_end|>", "<|endoftext|>"], tie_word_embeddings=True)


def llama(folder: Path) -> Path:
    """A base model: no template, no padding token, texts begin with <s>; embeddings and head apart."""
    return write(folder, metaspace(["<s>", "</s>"], "</s>", "<s>"), "llama", tie_word_embeddings=False)


def phi3(folder: Path) -> Path:
    """Fused projections, several stop tokens of which the first is not the one that ends a turn."""
    specials = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = byte_level(specials, "<|endoftext|>", pad_token="<|endoftext|>", chat_template=PHI)
    return write(folder, tokenizer, "phi3", None, ["<|endoftext|>", "<|end|>"], tie_word_embeddings=False)


def gemma2(folder: Path) -> Path:
    """Capped scores and logits, small enough for the caps to matter; scaled embeddings."""
    tokenizer = metaspace(["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], "<eos>", "<bos>", pad_token="<pad>", chat_template=GEMMA)
    caps = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 16}
    return write(folder, tokenizer, "gemma2", None, ["<eos>", "<end_of_turn>"], **caps)


def gemma3_text(folder: Path) -> Path:
    """Layers of two kinds, one with a window; scaled, tied embeddings."""
    tokenizer = metaspace(["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], "<eos>", "<bos>", pad_token="<pad>", chat_template=GEMMA)
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64, "query_pre_attn_scalar": 16}
    return write(folder, tokenizer, "gemma3_text", None, ["<eos>", "<end_of_turn>"], tie_word_embeddings=True, **kinds)


def smollm3(folder: Path) -> Path:
    """A chat template that writes today's date; a layer without positions."""
    tokenizer = byte_level(["<|im_start|>", "<|im_end|>", "<|pad|>"], "<|im_end|>", pad_token="<|pad|>", chat_template=DATED)
    return write(folder, tokenizer, "smollm3", no_rope_layers=[1, 0], tie_word_embeddings=True)


def smollm2(folder: Path) -> Path:
    """A Llama that is talked to as SmolLM2 is."""
    tokenizer = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>", pad_token="<|im_end|>", chat_template=CHATML)
    return write(folder, tokenizer, "llama", tie_word_embeddings=True)


def mistral(folder: Path) -> Path:
    """A base model with a sliding window."""
    return write(folder, metaspace(["<s>", "</s>"], "</s>", "<s>"), "mistral", tie_word_embeddings=False, sliding_window=64)


def gpt_neox(folder: Path) -> Path:
    """Layer norms with biases, fused attention, a head with a name of its own, a padded table."""
    tokenizer = byte_level(["<|endoftext|>", "<|padding|>"], "<|endoftext|>", bos_token="<|endoftext|>")
    return write(folder, tokenizer, "gpt_neox", len(tokenizer) + 1, tie_word_embeddings=False)


FAMILIES: dict[str, Callable[[Path], Path]] = {make.__name__: make for make in (qwen3, llama, phi3, gemma2, gemma3_text, smollm3, mistral, gpt_neox)}
