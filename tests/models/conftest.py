"""Models small enough to build in a blink, of several backbone families."""

from __future__ import annotations

import pytest
import torch

from melcli.models.config import SpeechLMConfig
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speech_lm import SpeechLM
from melcli.models.task_prompts import prompt_tokens
from melcli.models.tokenizer import train_tokenizer

TEXTS = ["one two three four", "five six seven", "eight nine zero oh", "the cat sat on the mat", "it's a long way"]
BACKBONES = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16},
    "gpt_neox": {"model_type": "gpt_neox"},
    "phi3": {"model_type": "phi3", "num_key_value_heads": 2},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 6},
    "gemma3": {
        "model_type": "gemma3_text",
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


def make_model(backbone: str = "llama", attention: str = "bidirectional", speech_input: dict | None = None, ctc_weight: float = 0.5, **more):
    """A random SpeechLM of width 64 and its processor. The head is sharpened, so that greedy choices are no coin tosses."""
    says = more.get("speech_output") is not None
    special = ["<|transcribe|>", *(["<|spoken|>", "<|speak|>"] if says else []), *prompt_tokens(more.get("prompts") or {})]
    tokenizer = train_tokenizer(TEXTS, 60, list(dict.fromkeys(special)))
    fields = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": len(tokenizer),
        "tie_word_embeddings": False,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        **BACKBONES[backbone],
    }
    torch.manual_seed(0)
    model = SpeechLM(
        SpeechLMConfig(
            text_config=fields,
            speech_input=speech_input or {"kind": "mel-conv", "stride": 4, "channels": 16, "hidden": 32, "norm": "utterance"},
            speech_attention=attention,
            ctc_weight=ctc_weight,
            **more,
            prompt="<|speech|><|transcribe|>",
            speech_token_id=tokenizer.convert_tokens_to_ids("<|speech|>"),
            spoken_token_id=tokenizer.convert_tokens_to_ids("<|spoken|>") if says else None,
            stop_token_ids=[tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model, SpeechLMProcessor.of(model.config, tokenizer, model.speech_input, model.speech_output)


VAE = {"kind": "vae", "frames": 3, "prenet": 24, "hidden": 24, "postnet": 8}
OUTPUTS = {
    "vae": VAE,
    "codebook": {"kind": "codebook", "frames": 3, "prenet": 24, "hidden": 24, "postnet": 8, "codes": 12},
    "spectrogram": {"kind": "spectrogram", "frames": 3, "prenet": 24, "dropout": 0.5, "hidden": 24, "postnet": 8, "postnet_layers": 2},
    "diffusion": {"kind": "diffusion", "frames": 3, "prenet": 24, "hidden": 24, "postnet": 8, "latent": 16, "steps": 4},
}


def make_speaker(output: dict | None = None, backbone: str = "llama", **more):
    """A random SpeechLM that hears and speaks, and its processor. What it says depends on the text and on what was said."""
    model, processor = make_model(backbone, speech_output=output or VAE, **{"spoken_pace": 1.5, **more})
    with torch.no_grad():
        for parameter in model.speech_output.parameters():
            if parameter.dim() > 1:
                parameter.div_(4.0)  # speech of a likely loudness
        model.speech_output.measure([0.7 * torch.randn(60, 80) - 2.0])
        for convolution in model.speech_output.modules():
            if isinstance(convolution, torch.nn.Conv1d):
                convolution.weight.normal_(0, 0.1)
    return model, processor


@pytest.fixture(scope="session")
def features() -> list[torch.Tensor]:
    """Log-mels of awkward lengths."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, 80, generator=generator) * 3 + 8 for n in (97, 40, 1, 163, 8, 71)]
