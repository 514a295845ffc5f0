"""How each family of transformers models is asked for a transcript: its processor's inputs for a batch of waveforms.

Every function takes the checkpoint's processor, the waveforms (float32 mono, numpy) and their rate, and returns the model's inputs. Some take an
instruction in the place of the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LANGUAGE = "en"  # of models that must be told one; ours hear English too
Waves = Sequence[np.ndarray]
Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a processor needs for speech alone."""

    feature_extractor: Any
    tokenizer: Any


def feature_extractor(processor: Any) -> Any:
    """The part of a processor that reads waveforms; some families call it audio_processor."""
    return getattr(processor, "feature_extractor", None) or processor.audio_processor


def audio_alone(processor: Any, waves: Waves, rate: int) -> Inputs:
    """No prompt: recognisers with a decoder of their own, CTC models and transducers."""
    return feature_extractor(processor)(list(waves), sampling_rate=rate, return_tensors="pt", padding=True)


def whisper(processor: Any, waves: Waves, rate: int) -> Inputs:
    """Thirty seconds of features whatever the audio: Whisper's encoder takes nothing else."""
    return feature_extractor(processor)(list(waves), sampling_rate=rate, return_tensors="pt", return_attention_mask=True)


def parakeet(processor: Any, waves: Waves, rate: int) -> Inputs:
    """The processor's own defaults: NeMo's features and their mask."""
    return processor(list(waves), sampling_rate=rate)


def cohere(processor: Any, waves: Waves, rate: int) -> Inputs:
    """The processor writes the decoder's prompt."""
    return processor(list(waves), language=LANGUAGE, sampling_rate=rate)


def canary(processor: Any, waves: Waves, rate: int) -> Inputs:
    """The processor writes the decoder's prompt from its chat template."""
    return processor.apply_transcription_request(list(waves), source_language=LANGUAGE)


def qwen3_asr(processor: Any, waves: Waves, rate: int) -> Inputs:
    """A chat whose answer begins with the language, so that the model goes on with the words."""
    return processor.apply_transcription_request(list(waves), language=LANGUAGE)


def glmasr(processor: Any, waves: Waves, rate: int) -> Inputs:
    """A chat with the processor's own instruction."""
    return processor.apply_transcription_request(list(waves))


def voxtral(processor: Any, waves: Waves, rate: int) -> Inputs:
    """Mistral's transcription request."""
    return processor.apply_transcription_request(list(waves), model_id="voxtral", language=LANGUAGE, sampling_rate=rate, format=["WAV"] * len(waves))


def phi4(processor: Any, waves: Waves, rate: int, instruction: str = "Transcribe the audio clip into text.") -> Inputs:
    """The instruction of the model card and the leaderboard. The processor is only `Parts`: the whole one reads images too, and wants torchvision."""
    features = processor.feature_extractor(list(waves), sampling_rate=rate, return_tensors="pt")
    token = processor.tokenizer.audio_token
    texts = [f"<|user|>{token * size}{instruction}<|end|><|assistant|>" for size in features["audio_embed_sizes"].tolist()]
    return {**processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt"), **features}


def granite(processor: Any, waves: Waves, rate: int, instruction: str = "can you transcribe the speech into a written format?") -> Inputs:
    """The instruction of the model card, in the checkpoint's chat template."""
    chat = [{"role": "user", "content": f"{processor.audio_token}{instruction}"}]
    prompt = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return processor(text=[prompt] * len(waves), audio=list(waves), padding=True, padding_side="left", return_tensors="pt")


def qwen2_audio(processor: Any, waves: Waves, rate: int) -> Inputs:
    """The prompt of Qwen2-Audio's own evaluation."""
    prompt = f"<|audio_bos|>{processor.audio_token}<|audio_eos|>Detect the language and recognize the speech: <|{LANGUAGE}|>"
    return processor(
        text=[prompt] * len(waves), audio=list(waves), sampling_rate=rate, padding=True, return_tensors="pt", text_kwargs={"padding_side": "left"}
    )
