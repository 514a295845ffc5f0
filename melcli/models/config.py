"""The configuration of a speech language model: a transformers config that holds the backbone's config, the mel, the speech input and output."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from melcli.audio.mel_spec import MelSpec, preset
from melcli.data.sounds import ALPHABET
from melcli.data.tasks import SPEECH as SPEECH_TOKEN
from melcli.data.tasks import TEXT as TEXT_MARK

STOP_TOKEN = "<|end|>"
PAD_TOKEN = "<|pad|>"
UNKNOWN_TOKEN = "<|unk|>"
SPEAK_TOKEN = "<|speak|>"
SPEAK_PROMPT = TEXT_MARK + SPEAK_TOKEN


class SpeechLMConfig(PretrainedConfig):
    """Configuration of `SpeechLM`.

    text_config: the backbone's own config (any causal LM of transformers).
    speech_input: `kind` and options of the speech input.
    mel: every field of the MelSpec the features must have.
    speech_attention: `causal`, or `bidirectional` among the positions of one stretch of speech.
    ctc_weight, ce_weight, label_smoothing: weights of the training losses.
    ctc_alphabet: the characters the CTC head tells apart, one class each; None for the tokenizer's own tokens. Those of data/sounds.py are how words
    sound, and a dictionary beside the weights says which words they make.
    ctc_rate: CTC frames that each speech position gives.
    ctc_from: what the CTC head reads, the `backbone`'s last hidden states at speech positions or what the `speech-input` gives it there.
    prompt: text before the transcript; `<|speech|>` in it is where the audio goes.
    prompts: of tasks that write something else than the transcript, by task: those that the model has learnt. What follows `<|text|>` in one is read
    between the text and speech that is said.
    prompt_seconds: of task continue, what it hears of an utterance.
    speech_token_id, pad_token_id: ids in the tokenizer; the first holds the place of speech and need not be called `<|speech|>` there.
    stop_token_ids: those that end a transcript. end_token_ids: what is learnt to follow one, the first of them unless given.
    lora: rank, alpha, dropout and targets of live low-rank adapters in the backbone, see `melcli.models.lora`; None for none.
    speech_output: `kind` and options of the speech output; None for a model that only listens.
    speak_prompt: text before speech that is said; `<|text|>` in it is where the text goes. spoken_token_id: holds the places of that speech.
    speak_temperature: of what is said, where nobody asks for another.
    spoken_pace: steps of the speech output that a token of text takes to say, measured on the training data. spoken_alphabet: characters that occur
    in texts it learnt to say. spoken_level: dB that frames of that speech reach, all but the loudest twentieth.
    spoken_lexicon: texts are said as the checkpoint's dictionary writes them, see data/lexicon.py.
    text_positions: `plain`, or `spread` so that a token of the text and the step that says it have about the same position.
    spoken_ctc_weight: of a CTC loss by which the positions that speech is predicted from know what is said, in the classes of ctc_weight.
    """

    model_type = "speech_lm"
    sub_configs = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        speech_input: dict[str, Any] | None = None,
        mel: dict[str, Any] | None = None,
        speech_attention: str = "causal",
        ctc_weight: float = 0.0,
        ctc_alphabet: str | None = None,
        ctc_rate: int = 1,
        ctc_from: str = "backbone",
        ce_weight: float = 1.0,
        label_smoothing: float = 0.0,
        prompt: str = SPEECH_TOKEN,
        prompts: dict[str, str] | None = None,
        prompt_seconds: float = 3.0,
        speech_token_id: int = 0,
        stop_token_ids: list[int] | None = None,
        end_token_ids: list[int] | None = None,
        pad_token_id: int = 0,
        max_seconds: float = 30.0,
        lora: dict[str, Any] | None = None,
        speech_output: dict[str, Any] | None = None,
        speak_prompt: str = SPEAK_PROMPT,
        speak_temperature: float = 1.0,
        spoken_token_id: int | None = None,
        spoken_pace: float = 0.0,
        spoken_alphabet: str | None = None,
        spoken_level: float | None = None,
        spoken_lexicon: bool = False,
        text_positions: str = "plain",
        spoken_ctc_weight: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            fields = dict(text_config)
            text_config = AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
        self.text_config = text_config if text_config is not None else AutoConfig.for_model("llama")
        self.speech_input = speech_input or {"kind": "mel-patch", "patch": 8}
        self.mel = mel or preset("phi4mm").model_dump()
        self.speech_attention = speech_attention
        self.ctc_weight = ctc_weight
        self.ctc_alphabet = ctc_alphabet
        self.ctc_rate = ctc_rate
        self.ctc_from = ctc_from
        self.ce_weight = ce_weight
        self.label_smoothing = label_smoothing
        self.prompt = prompt
        self.prompts = prompts or {}
        self.prompt_seconds = prompt_seconds
        self.speech_token_id = speech_token_id
        self.stop_token_ids = stop_token_ids or []
        self.end_token_ids = end_token_ids or self.stop_token_ids[:1]
        self.max_seconds = max_seconds
        self.lora = lora
        self.speech_output = speech_output
        self.speak_prompt = speak_prompt
        self.speak_temperature = speak_temperature
        self.spoken_token_id = spoken_token_id
        self.spoken_pace = spoken_pace
        self.spoken_alphabet = spoken_alphabet
        self.spoken_level = spoken_level
        self.spoken_lexicon = spoken_lexicon
        self.text_positions = text_positions
        self.spoken_ctc_weight = spoken_ctc_weight
        kwargs.setdefault("tie_word_embeddings", getattr(self.text_config, "tie_word_embeddings", False))
        super().__init__(pad_token_id=pad_token_id, **kwargs)

    @property
    def mel_spec(self) -> MelSpec:
        """The mel specification as a frozen object."""
        return MelSpec.model_validate(self.mel)

    @property
    def vocab_size(self) -> int:
        return self.text_config.vocab_size

    @property
    def ctc_classes(self) -> int:
        """Classes of the CTC head, the blank included as the last."""
        return (self.vocab_size if self.ctc_alphabet is None else len(self.ctc_alphabet)) + 1

    @property
    def ctc_sounds(self) -> bool:
        """Whether the CTC head tells apart how words sound."""
        return self.ctc_weight > 0 and self.ctc_alphabet == ALPHABET

    @property
    def ctc_at_input(self) -> bool:
        """Whether a CTC head reads what the speech input gives, so that nothing teaches the backbone's last layer to say more where speech is."""
        return self.ctc_weight > 0 and self.ctc_from == "speech-input"

    @property
    def hidden_size(self) -> int:
        return self.text_config.hidden_size


AutoConfig.register("speech_lm", SpeechLMConfig)
