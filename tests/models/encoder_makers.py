"""Encoders of every family, small enough to build in a blink, as configurations and as checkpoints in their native format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel
from transformers.models.parakeet.modeling_parakeet import ParakeetEncoder

from melcli.audio.mel_spec import preset

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
# Groups of eight channels and an even kernel come out wrong in bfloat16 from oneDNN 3.12 on processors with AMX; no published model has them.
WAVE = {**LAYERS, "conv_dim": [12] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WHISPER = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 48,
    "vocab_size": 40,
    "max_source_positions": 40,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
ENCODERS: dict[str, dict[str, Any]] = {
    "whisper": WHISPER,
    "wav2vec2": {"model_type": "wav2vec2", **WAVE},
    "wav2vec2-large": {"model_type": "wav2vec2", **WAVE, **STABLE},
    "hubert": {"model_type": "hubert", **WAVE},
    "hubert-large": {"model_type": "hubert", **WAVE, **STABLE},
    "wavlm": {"model_type": "wavlm", **WAVE},
    "wav2vec2-bert": {"model_type": "wav2vec2-bert", **LAYERS, "conv_depthwise_kernel_size": 7},
    "parakeet": {"model_type": "parakeet_encoder", **LAYERS, "num_mel_bins": 80, "subsampling_conv_channels": 8, "conv_kernel_size": 5},
    "moonshine": {
        "model_type": "moonshine",
        "hidden_size": 32,
        "intermediate_size": 48,
        "encoder_num_hidden_layers": 2,
        "encoder_num_attention_heads": 2,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "vocab_size": 40,
        "pad_head_dim_to_multiple_of": None,
    },
    "speech_lm": {
        "model_type": "speech_lm",
        "text_config": {"model_type": "llama", **LAYERS, "num_key_value_heads": 1, "vocab_size": 20, "pad_token_id": 0},
        "speech_input": {"kind": "mel-conv", "stride": 4, "channels": 4, "hidden": 16, "norm": "utterance"},
        "mel": preset("phi4mm").model_dump(),
        "speech_attention": "bidirectional",
        "ctc_weight": 1.0,
        "speech_token_id": 1,
    },
}


def native(name: str) -> torch.nn.Module:
    """transformers' own model of a family, whole, its weights far from their start."""
    fields = dict(ENCODERS[name])
    torch.manual_seed(6)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    model = ParakeetEncoder(config) if name == "parakeet" else AutoModel.from_config(config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "embed_positions" not in key:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def saved(name: str, folder: Path, **preprocessor: Any) -> torch.nn.Module:
    """The model of a family written to a folder as its authors would."""
    model = native(name)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16000, **preprocessor}))
    return model
