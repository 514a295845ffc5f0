"""Unified encoders of both kinds, small enough for a blink, as their makers would publish them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, SeamlessM4Tv2Config, SeamlessM4Tv2Model

from melcli.audio.mel_spec import preset
from melcli.models import unified_encoder
from melcli.models.unified_encoder import UnifiedEncoder, UnifiedEncoderConfig

BACKBONE = {
    "model_type": "llama",
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
}
SEAMLESS = {
    "vocab_size": 64,
    "hidden_size": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 2,
    "speech_encoder_intermediate_size": 48,
    "t2u_vocab_size": 20,
    "t2u_encoder_layers": 1,
    "t2u_encoder_attention_heads": 2,
    "t2u_encoder_ffn_dim": 32,
    "t2u_decoder_layers": 1,
    "t2u_decoder_attention_heads": 2,
    "t2u_decoder_ffn_dim": 32,
    "unit_embed_dim": 16,
    "upsample_initial_channel": 64,
    "unit_hifi_gan_vocab_size": 20,
    "vocoder_num_langs": 2,
    "vocoder_num_spkrs": 2,
    "lang_embed_dim": 8,
    "spkr_embed_dim": 8,
    "char_vocab_size": 30,
}


def encoder_config(vectors: int = 3, **more) -> UnifiedEncoderConfig:
    given = {"mel": preset("phi4mm"), "alphabet": " abcdefghijklmnopqrstuvwxyz", "vectors": vectors, "width": 16, "hidden": 24, "heads": 2}
    given |= {"input": {"kind": "mel-conv", "stride": 4, "channels": 4, "hidden": 16, "norm": "utterance"}}
    return UnifiedEncoderConfig(**{**given, "speech_backbone": BACKBONE, "text_backbone": BACKBONE, **more})


def make_encoder(**more) -> UnifiedEncoder:
    torch.manual_seed(4)
    encoder = UnifiedEncoder(encoder_config(**more)).eval()
    encoder.text_mean_VW.normal_(0, 0.1)
    encoder.speech_mean_VW.normal_(0, 0.1)
    return encoder


def save_encoder(folder: Path, **more) -> Path:
    unified_encoder.save(folder, make_encoder(**more), torch.float32, {})
    return folder


def save_seamless(folder: Path) -> tuple[Path, SeamlessM4Tv2Model]:
    """A random SeamlessM4T-v2, all of it, with a tokenizer that puts a language before a text and an end behind it."""
    torch.manual_seed(6)
    model = SeamlessM4Tv2Model(SeamlessM4Tv2Config(**SEAMLESS)).eval()
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "<unk>", "<s>", "</s>", "__eng__"]
    tokenizer.train_from_iterator(
        ["one two three", "some words here"], trainers.BpeTrainer(vocab_size=60, show_progress=False, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="__eng__ $A </s>", special_tokens=[("__eng__", 4), ("</s>", 3)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder, model


def edit_config(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
