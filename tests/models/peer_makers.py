"""Checkpoints of transformers' speech recognisers, made in a blink: random weights, each family's own layout, tokenizers trained on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXTS = ["one two three four", "five six seven", "eight nine zero oh", "the cat sat on the mat", "it's a long way"]


def train_bpe(special: Sequence[str], size: int = 400) -> Tokenizer:
    """A byte-level BPE, as most of these families have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def wrapped(special: Sequence[str], **names: str) -> PreTrainedTokenizerFast:
    """The BPE as a tokenizer of transformers."""
    return PreTrainedTokenizerFast(tokenizer_object=train_bpe(special), **names)


def sharpened(model: PreTrainedModel, factor: float = 3.0) -> PreTrainedModel:
    """Larger weights, so that greedy choices are no coin tosses."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(factor)
    return model.eval()


def ending(model: PreTrainedModel, **fields: Any) -> PreTrainedModel:
    """The model with a generation config of its own, as published checkpoints have one."""
    for name, value in {"_from_model_config": False, **fields}.items():
        setattr(model.generation_config, name, value)
    return model


def whisper(folder: Path) -> None:
    """Special tokens follow the text's, and timestamps follow them all: whatever comes after <|notimestamps|> is taken for one."""
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|nospeech|>", "<|notimestamps|>"]
    trained = json.loads(train_bpe([]).to_str())["model"]
    vocabulary = trained["vocab"] | {name: len(trained["vocab"]) + i for i, name in enumerate(special)}
    tokenizer = transformers.WhisperTokenizer(vocabulary, [tuple(merge) for merge in trained["merges"]], additional_special_tokens=special[1:])
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer),
        **sizes,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        decoder_start_token_id=ids["<|startoftranscript|>"],
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), ids["<|endoftext|>"]),
    )
    ending(
        sharpened(transformers.WhisperForConditionalGeneration(config)),
        is_multilingual=True,
        lang_to_id={"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
        task_to_id={"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
    ).save_pretrained(folder)
    transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)


def moonshine(folder: Path) -> None:
    tokenizer = wrapped(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>")
    sizes = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in (("num_hidden_layers", 1), ("num_attention_heads", 2))}
    config = transformers.MoonshineConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, **sizes, pad_token_id=2)
    sharpened(transformers.MoonshineForConditionalGeneration(config)).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


def _letters(folder: Path) -> transformers.Wav2Vec2CTCTokenizer:
    """The tokenizer of the older CTC models: a class a letter."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINSHRDLU'"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    return transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))


def wav2vec2(folder: Path, norm: str = "layer") -> None:
    tokenizer = _letters(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [16] * 7}
    sizes |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    config = transformers.Wav2Vec2Config(vocab_size=len(tokenizer), **sizes, feat_extract_norm=norm, do_stable_layer_norm=True)
    sharpened(transformers.Wav2Vec2ForCTC(config)).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


def hubert(folder: Path) -> None:
    tokenizer = _letters(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "conv_dim": [16] * 7}
    sizes |= {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    config = transformers.HubertConfig(vocab_size=len(tokenizer), **sizes, feat_extract_norm="layer", do_stable_layer_norm=True)
    sharpened(transformers.HubertForCTC(config)).save_pretrained(folder)
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(folder)


def wav2vec2_bert(folder: Path) -> None:
    tokenizer = _letters(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "feature_projection_input_dim": 160}
    config = transformers.Wav2Vec2BertConfig(vocab_size=len(tokenizer), **sizes)
    sharpened(transformers.Wav2Vec2BertForCTC(config)).save_pretrained(folder)
    transformers.Wav2Vec2BertProcessor(transformers.SeamlessM4TFeatureExtractor(), tokenizer).save_pretrained(folder)


def _parakeet_encoder() -> dict[str, Any]:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return sizes | {"subsampling_conv_channels": 8, "layerdrop": 0.0, "num_mel_bins": 80}


def _parakeet_processor(folder: Path, special: list[str], decoder: str) -> None:
    trained = train_bpe(special)
    tokenizer = transformers.ParakeetTokenizer(tokenizer_object=trained, unk_token="<unk>", pad_token="<pad>")
    extractor = transformers.ParakeetFeatureExtractor(feature_size=80)
    transformers.ParakeetProcessor(extractor, tokenizer, decoder_type=decoder).save_pretrained(folder)


def parakeet_ctc(folder: Path) -> None:
    special = ["<unk>", "<pad>"]
    config = transformers.ParakeetCTCConfig(vocab_size=len(train_bpe(special).get_vocab()), pad_token_id=1, encoder_config=_parakeet_encoder())
    sharpened(transformers.ParakeetForCTC(config)).save_pretrained(folder)
    _parakeet_processor(folder, special, "ctc")


def parakeet_tdt(folder: Path) -> None:
    special = ["<unk>", "<pad>", "<blank>"]
    sizes = {"vocab_size": len(train_bpe(special).get_vocab()), "decoder_hidden_size": 16, "num_decoder_layers": 1}
    config = transformers.ParakeetTDTConfig(**sizes, pad_token_id=1, blank_token_id=2, encoder_config=_parakeet_encoder())
    beyond = [config.vocab_size + i for i in range(len(config.durations))]  # the durations' logits follow the tokens'
    ending(sharpened(transformers.ParakeetForTDT(config)), decoder_start_token_id=2, suppress_tokens=beyond).save_pretrained(folder)
    _parakeet_processor(folder, special, "tdt")


def parakeet_rnnt(folder: Path) -> None:
    special = ["<unk>", "<pad>", "<blank>"]
    sizes = {"vocab_size": len(train_bpe(special).get_vocab()), "decoder_hidden_size": 16, "num_decoder_layers": 1}
    config = transformers.ParakeetRNNTConfig(**sizes, pad_token_id=1, blank_token_id=2, encoder_config=_parakeet_encoder())
    ending(sharpened(transformers.ParakeetForRNNT(config)), decoder_start_token_id=2).save_pretrained(folder)
    _parakeet_processor(folder, special, "rnnt")


def phi4_multimodal(folder: Path) -> None:
    """The native layout: the LoRA for speech lies in a folder of its own."""
    from peft import LoraConfig

    special = ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|endoftext10|>", "<|endoftext11|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(special),
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>"),
        extra_special_tokens={"image_token": "<|endoftext10|>", "audio_token": "<|endoftext11|>"},
    )
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    audio = sizes | {"num_blocks": 2, "ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 8}
    vision = sizes | {"num_hidden_layers": 2, "image_size": 28, "patch_size": 14, "crop_size": 28}
    config = transformers.Phi4MultimodalConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        num_hidden_layers=1,
        **sizes,
        audio_config=audio | {"audio_token_id": 5},
        vision_config=vision | {"image_token_id": 4},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=[0, 1],
        pad_token_id=0,
    )
    model = sharpened(transformers.Phi4MultimodalForCausalLM(config), 2.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.Phi4MultimodalFeatureExtractor().save_pretrained(folder)
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False), adapter_name="speech")
    model.save_pretrained(folder / "speech-lora")


def granite_speech(folder: Path) -> None:
    from peft import LoraConfig

    special = ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"]
    tokenizer = wrapped(special, **dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|end_of_text|>"))
    tokenizer.chat_template = (
        "{% for message in messages %}<|start_of_role|>{{ message['role'] }}<|end_of_role|>{{ message['content'] }}<|end_of_text|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = {"num_layers": 2, "hidden_dim": 32, "num_heads": 2, "dim_head": 16, "output_dim": 8, "context_size": 20, "max_pos_emb": 32}
    projector = {"model_type": "blip_2_qformer", "encoder_hidden_size": 32} | sizes
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GraniteSpeechConfig(
        text_config={"model_type": "granite", "vocab_size": len(tokenizer), "num_key_value_heads": 2} | sizes | ids,
        encoder_config=encoder,
        projector_config=projector,
        audio_token_index=3,
        has_lora_adapter=True,
    )
    model = sharpened(transformers.GraniteSpeechForConditionalGeneration(config))
    model.save_pretrained(folder)
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    PreTrainedModel.save_pretrained(model, str(folder))  # the adapter alone: Granite's own method would rename the weights below it
    transformers.GraniteSpeechProcessor(transformers.GraniteSpeechFeatureExtractor(), tokenizer).save_pretrained(folder)


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}"
)


def qwen3_asr(folder: Path) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<asr_text>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(special),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"},
    )
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 32}
    audio = {"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "d_model": 32, "output_dim": 32, "downsample_hidden_size": 8}
    text = {"model_type": "qwen3", "vocab_size": len(tokenizer)} | sizes
    config = transformers.Qwen3ASRConfig(audio_config=audio, text_config=text, audio_token_id=5, pad_token_id=0, tie_word_embeddings=False)
    ending(sharpened(transformers.Qwen3ASRForConditionalGeneration(config)), eos_token_id=[0, 2], pad_token_id=0).save_pretrained(folder)
    processor = transformers.Qwen3ASRProcessor(transformers.Qwen3ASRFeatureExtractor(), tokenizer, chat_template=CHATML)
    processor.save_pretrained(folder)


def qwen2_audio(folder: Path) -> None:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|audio_eos|>", "<|AUDIO|>", "<|en|>"]
    tokenizer = wrapped(special, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
    audio = {"d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    config = transformers.Qwen2AudioConfig(
        audio_config=audio, text_config={"model_type": "qwen2", "vocab_size": len(tokenizer)} | sizes, audio_token_index=5
    )
    ending(sharpened(transformers.Qwen2AudioForConditionalGeneration(config)), eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)
    transformers.Qwen2AudioProcessor(extractor, tokenizer).save_pretrained(folder)


def moonshine_streaming(folder: Path) -> None:
    tokenizer = wrapped(["<unk>", "<s>", "</s>"], unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    config = transformers.MoonshineStreamingConfig(
        encoder_config=sizes | {"num_key_value_heads": 2, "sliding_windows": [[8, 2]]},
        vocab_size=len(tokenizer),
        **sizes,
        num_key_value_heads=2,
        decoder_start_token_id=1,
        pad_token_id=2,
    )
    sharpened(transformers.MoonshineStreamingForConditionalGeneration(config)).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    transformers.MoonshineStreamingProcessor(extractor, tokenizer).save_pretrained(folder)


COHERE = ["startofcontext", "startoftranscript", "emo:undefined", "en", "pnc", "noitn", "notimestamp", "nodiarize"]
CANARY = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "<|startoftranscript|><|{{ part['source_language'] }}|><|{{ part['target_language'] }}|><|pnc|>{% endif %}{% endfor %}{% endfor %}"
)


def _conformer_pair() -> tuple[PreTrainedTokenizerFast, dict[str, Any]]:
    """The tokenizer and the decoder's sizes of Cohere's and NVIDIA's recognisers, which both have Parakeet's encoder."""
    special = ["<pad>", "<unk>", *(f"<|{name}|>" for name in ("endoftext", *COHERE)), "▁"]
    tokenizer = wrapped(special, unk_token="<unk>", pad_token="<pad>", eos_token="<|endoftext|>", bos_token="<|startoftranscript|>")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return tokenizer, sizes | {"vocab_size": len(tokenizer), "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 4}


def cohere_asr(folder: Path) -> None:
    tokenizer, sizes = _conformer_pair()
    config = transformers.CohereAsrConfig(encoder_config=_parakeet_encoder(), decoder_start_token_id=12, **sizes)
    ending(sharpened(transformers.CohereAsrForConditionalGeneration(config)), decoder_start_token_id=12).save_pretrained(folder)
    transformers.CohereAsrProcessor(transformers.CohereAsrFeatureExtractor(feature_size=80), tokenizer).save_pretrained(folder)


def canary(folder: Path) -> None:
    tokenizer, sizes = _conformer_pair()
    ids = {name: sizes[name] for name in ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")}
    config = transformers.CanaryConfig(encoder_config=_parakeet_encoder(), decoder_config=sizes, decoder_start_token_id=4, **ids)
    ending(sharpened(transformers.CanaryForConditionalGeneration(config)), decoder_start_token_id=4).save_pretrained(folder)
    extractor = transformers.ParakeetFeatureExtractor(feature_size=80)
    transformers.CanaryProcessor(extractor, tokenizer, chat_template=CANARY).save_pretrained(folder)


GLM = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% for part in message['content'] %}{% if part['type'] == 'audio' %}"
    "<|begin_of_audio|><|pad|><|end_of_audio|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def glmasr(folder: Path) -> None:
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|end_of_audio|>", "<|pad|>"]
    tokenizer = wrapped(special, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 128}
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "eos_token_id": 0, "pad_token_id": 0} | sizes
    config = transformers.GlmAsrConfig(audio_config=sizes, text_config=text, audio_token_id=5, tie_word_embeddings=False)
    ending(sharpened(transformers.GlmAsrForConditionalGeneration(config)), eos_token_id=0, pad_token_id=0).save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    transformers.GlmAsrProcessor(extractor, tokenizer, chat_template=GLM).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {
    maker.__name__.replace("wav2vec2_", "wav2vec2-"): maker
    for maker in (
        whisper,
        moonshine,
        wav2vec2,
        hubert,
        wav2vec2_bert,
        parakeet_ctc,
        parakeet_tdt,
        parakeet_rnnt,
        phi4_multimodal,
        granite_speech,
        qwen3_asr,
        qwen2_audio,
        moonshine_streaming,
        cohere_asr,
        canary,
        glmasr,
    )
}
