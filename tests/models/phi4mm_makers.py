"""Tiny random Phi-4-multimodal checkpoints in both layouts, written as those on the hub are, and the native model that they come from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM, PreTrainedTokenizerFast

from tests.models.peer_makers import sharpened, train_bpe

SPECIAL = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext10|>", "<|endoftext11|>"]
ENDOFTEXT, END, IMAGE, AUDIO = 0, 1, 5, 6
SPARE_ROWS = 10  # the table of embeddings is larger than the vocabulary, as Phi's is
RANK, ALPHA = 4, 8
LAYERS = r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))"  # the remote code's own words
NATIVE_TARGETS = r"model.layers.\d+.((self_attn.(qkv|o)_proj)|(mlp.(gate_up|down)_proj))"  # those of the native checkpoint
ROPE = {"short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.5], "long_factor": [1.0, 1.5, 2.0, 4.0, 8.0, 16.0]}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "sliding_window": 2048,
    "bos_token_id": ENDOFTEXT,
    "pad_token_id": ENDOFTEXT,
}
CHAT = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONV, WIDTH = 8, 32
# names of the native class and of the remote code, where they differ
REMOTE = (
    (r"audio_embed\.up_proj_for_speech\.", r"audio_embed.audio_projection.speech.0."),
    (r"audio_embed\.down_proj_for_speech\.", r"audio_embed.audio_projection.speech.2."),
    (r"audio_embed\.up_proj_for_vision_speech\.", r"audio_embed.audio_projection.vision.0."),
    (r"audio_embed\.down_proj_for_vision_speech\.", r"audio_embed.audio_projection.vision.2."),
    (r"(encoders\.\d+\.feed_forward_\w+)\.gate_up_proj\.", r"\1.net.0.linear."),
    (r"(encoders\.\d+\.feed_forward_\w+)\.down_proj\.", r"\1.net.2."),
    (r"(encoders\.\d+\.self_attn)\.([qkv])_proj\.", r"\1.linear_\2."),
    (r"(encoders\.\d+\.self_attn)\.o_proj\.", r"\1.linear_out."),
    (r"image_embed\.img_projection_up\.", "image_embed.img_projection.0."),
    (r"image_embed\.img_projection_down\.", "image_embed.img_projection.2."),
    (r"image_embed\.global_img_feature_extensor", "image_embed.glb_GN"),
    (r"image_embed\.sub_img_feature_extensor", "image_embed.sub_GN"),
)


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(SPECIAL),
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>"),
        chat_template=CHAT,
    )


def native_model(blocks: int = 0) -> Phi4MultimodalForCausalLM:
    """The native class with a LoRA for speech, which is on, and one for vision. blocks: of the conformer."""
    sizes = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 48}
    audio = sizes | {"num_blocks": blocks, "ext_pw_out_channel": WIDTH, "depthwise_separable_out_channel": WIDTH, "nemo_conv_channels": CONV}
    audio |= {"bias_max_distance": 50, "audio_token_id": AUDIO}
    vision = sizes | {"num_hidden_layers": 2, "image_size": 28, "patch_size": 14, "crop_size": 28, "image_token_id": IMAGE}
    ends = {"eos_token_id": [ENDOFTEXT, END]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, **ROPE}
    config = Phi4MultimodalConfig(
        vocab_size=len(tokenizer()) + SPARE_ROWS,
        **TEXT,
        rope_parameters=rope,
        audio_config=audio,
        vision_config=vision,
        **ends,
    )
    torch.manual_seed(0)
    model = sharpened(Phi4MultimodalForCausalLM(config), 2.0)
    statistics = model.model.embed_tokens_extend.audio_embed.encoder.encoder_embedding
    statistics.global_mean.uniform_(6, 10)
    statistics.global_invstd.uniform_(0.2, 0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layernorm" in name or name.endswith(("bias", ".b1", ".b2", "GN", "extensor")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    for name, rank in (("vision", 2), ("speech", RANK)):
        options = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.01, target_modules=NATIVE_TARGETS, init_lora_weights=False)
        model.add_adapter(options, adapter_name=name)
    model.set_adapter("speech")
    return model.eval()


def _tensors(model: Phi4MultimodalForCausalLM) -> dict[str, Tensor]:
    """Everything, adapters around the weights, the tied head left out."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def write_remote(folder: Path, model: Phi4MultimodalForCausalLM) -> Path:
    """The layout of the hub's `main`: both adapters among the weights, in two shards, and a config that points at code."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(model)
    for native, remote in REMOTE:
        tensors = {re.sub(native, remote, name): tensor for name, tensor in tensors.items()}
    names = sorted(tensors)
    shards = {f"model-{i + 1:05}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, metadata={"format": "pt"})
    places = {name: shard for shard, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps(remote_config(model.config)))
    tokenizer().save_pretrained(folder)
    return folder


def remote_config(native: Phi4MultimodalConfig) -> dict[str, Any]:
    """A config as the remote code writes it; attention_bias and its like are there and switched off."""
    audio = native.audio_config
    encoder = {
        "activation": "swish",
        "attention_dim": audio.hidden_size,
        "attention_heads": audio.num_attention_heads,
        "chunk_size": -1,
        "dropout_rate": 0.0,
        "encoder_embedding_config": {"input_size": 80},
        "ext_pw_out_channel": audio.ext_pw_out_channel,
        "input_layer": "nemo_conv",
        "input_size": 80,
        "kernel_size": audio.kernel_size,
        "left_chunk": 18,
        "linear_units": audio.intermediate_size,
        "nemo_conv_settings": {"conv_channels": audio.nemo_conv_channels},
        "num_blocks": audio.num_blocks,
        "relative_attention_bias_args": {"t5_bias_max_distance": audio.bias_max_distance, "type": "t5"},
        "time_reduction": 8,
    }
    return TEXT | {
        "model_type": "phi4mm",
        "architectures": ["Phi4MMForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_phi4mm.Phi4MMConfig",
            "AutoModelForCausalLM": "modeling_phi4mm.Phi4MMForCausalLM",
            "AutoTokenizer": "Xenova/gpt-4o",
        },
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": native.vocab_size,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "longrope", **ROPE},
        "partial_rotary_factor": 0.75,
        "eos_token_id": ENDOFTEXT,
        "torch_dtype": "bfloat16",
        "embd_layer": {
            "embedding_cls": "image_audio",
            "audio_embd_layer": {"compression_rate": 8, "downsample_rate": 1, "embedding_cls": "audio", "projection_cls": "mlp"},
            "image_embd_layer": {"crop_size": 448, "use_hd_transform": True},
        },
        "audio_processor": {"name": "cascades", "config": encoder},
        "speech_lora": {"r": RANK, "lora_alpha": ALPHA, "layer": LAYERS, "dp": 0.01},
        "vision_lora": {"r": 2, "lora_alpha": 4, "layer": LAYERS, "dp": 0.0},
    }


def write_native(folder: Path, model: Phi4MultimodalForCausalLM) -> Path:
    """The layout of transformers' own class: plain weights, and each adapter in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(model)
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in tensors.items() if ".lora_" not in name}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    for name in ("speech", "vision"):
        place = folder / f"{name}-lora"
        model.peft_config[name].save_pretrained(place)
        part = {key.replace(f".{name}.", "."): tensor for key, tensor in tensors.items() if f".{name}." in key and ".lora_" in key}
        save_file(part, place / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder
