"""What stands between people and the model: waveforms and text to tensors, token ids to text.

Shapes: S samples, F frames of all utterances, M mel bins, U utterances.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, ProcessorMixin
from transformers.utils.hub import cached_file

from melcli.audio.mel import log_mel_many
from melcli.audio.mel_spec import MelSpec
from melcli.data import lexicon as lexicons
from melcli.data import tasks
from melcli.data.lexicon import FILE, Lexicon
from melcli.data.sounds import ALPHABET, words_of
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, ConfigError, UsageError
from melcli.models.config import SPEECH_TOKEN, SpeechLMConfig
from melcli.models.decoding.dictionary import LIKELY, WORDS, Dictionary
from melcli.models.decoding.dictionary_search import DictionarySearch, Spelling
from melcli.models.decoding.draft import ctc_greedy
from melcli.models.decoding.hotwords import token_ids
from melcli.models.speech_input import SpeechInput
from melcli.models.speech_output import SpeechOutput
from melcli.models.subsampling import Chain, Subsampling

TOKENS_PER_SECOND = 12  # nobody speaks faster in a vocabulary of hundreds
CHARACTERS_PER_SECOND = 24  # nobody speaks faster: of English readings and synthetic voices one in a thousand comes near
FEW = 1000  # tokens, from which on each holds so many characters that the rate for large vocabularies is right
FROM_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")  # options of `from_pretrained`


class SpeechLMProcessor(ProcessorMixin):
    """Tokenizer, mel and prompt of one model.

    mel: fields of the MelSpec. stride: frames (or samples, where reads is `wave`) in one speech position. chains: see `Subsampling`, where it is
    more than ceil(frames / stride). prompt, stop_token_ids, end_token_ids, speech_token_id: see SpeechLMConfig; task_prompts: its `prompts`.
    lexicon: how words sound, of a model that reads what it is to say so; dictionary: the words that a CTC head's sounds make. These two are not among
    the fields that are written.
    speaking: of a model that speaks, `stride` of its output, `prompt`, `token_id`, `pace` and `positions` as SpeechLMConfig has them, and `lead`, the
    steps, and `seconds`, of what it hears of speech that it continues.
    """

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        mel: dict[str, Any] | None = None,
        stride: int = 8,
        reads: str = "mel",
        prompt: str = SPEECH_TOKEN,
        stop_token_ids: Sequence[int] = (),
        ctc_alphabet: str | None = None,
        end_token_ids: Sequence[int] = (),
        speech_token_id: int | None = None,
        chains: Sequence[Chain] | None = None,
        speaking: dict[str, Any] | None = None,
        task_prompts: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.mel = mel
        self.stride = stride
        self.reads = reads
        self.prompt = prompt
        self.stop_token_ids = list(stop_token_ids)
        self.ctc_alphabet = ctc_alphabet
        self.end_token_ids = list(end_token_ids) or self.stop_token_ids[:1]
        self.speech_token_id = speech_token_id
        self.chains = chains
        self.speaking = speaking
        self.task_prompts = task_prompts or {}
        self.lexicon: Lexicon | None = None
        self.dictionary: Dictionary | None = None
        self._search: DictionarySearch | None = None
        self._spelt: dict[tuple[int, bool], Sequence[int]] = {}
        self._rate: float | None = None

    @classmethod
    def of(
        cls,
        config: SpeechLMConfig,
        tokenizer: Any,
        speech_input: SpeechInput,
        speech_output: SpeechOutput | None = None,
        lexicon: Lexicon | None = None,
        dictionary: Dictionary | None = None,
    ) -> SpeechLMProcessor:
        """The processor that belongs to a model."""
        stride, chains = speech_input.stride, speech_input.subsampling.chains
        given = None if chains == Subsampling.of_stride(stride).chains else [[list(step) for step in chain] for chain in chains]
        ids = {name: getattr(config, name) for name in ("stop_token_ids", "end_token_ids", "speech_token_id")}
        speaking = None
        if speech_output is not None:
            named = {"token_id": config.spoken_token_id, "pace": config.spoken_pace, "positions": config.text_positions}
            lead = config.prompt_seconds * config.mel_spec.frame_rate / speech_output.stride
            seconds = config.prompt_seconds if config.ctc_weight > 0 else 0.0  # who replies knows by the CTC head which words it has heard
            speaking = {"stride": speech_output.stride, "prompt": config.speak_prompt, "lead": lead, "seconds": seconds, **named}
        options = {"ctc_alphabet": config.ctc_alphabet, "chains": given, "speaking": speaking, "task_prompts": config.prompts, **ids}
        processor = cls(tokenizer, config.mel, stride, speech_input.reads, config.prompt, **options)
        processor.lexicon, processor.dictionary = lexicon, dictionary
        return processor

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """As in transformers, and the lexicon and dictionary beside it."""
        written = super().save_pretrained(save_directory, *args, **kwargs)
        if self.lexicon is not None:
            Path(save_directory, FILE).write_text(self.lexicon.dump(), encoding="utf-8")
        if self.dictionary is not None:
            self.dictionary.save(Path(save_directory))
        return written

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> SpeechLMProcessor:
        """As in transformers, and the lexicon and dictionary beside it."""
        options = kwargs | {"trust_remote_code": bool(kwargs.get("trust_remote_code"))}  # unsaid, it would ask on the terminal
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **options)
        where = {name: kwargs[name] for name in FROM_HUB if name in kwargs}
        where |= {"_raise_exceptions_for_missing_entries": False}
        found = {name: cached_file(pretrained_model_name_or_path, name, **where) for name in (FILE, WORDS, LIKELY)}
        processor.lexicon = None if found[FILE] is None else lexicons.read(Path(found[FILE]))
        if processor.ctc_alphabet == ALPHABET:
            if missing := next((name for name in (WORDS, LIKELY) if found[name] is None), None):
                raise CheckpointError(f"{pretrained_model_name_or_path}: {missing} is missing")
            processor.dictionary = Dictionary.read(Path(found[WORDS]).parent)
        return processor

    @property
    def spec(self) -> MelSpec:
        return MelSpec.model_validate(self.mel)

    def features(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """mel_TM (or samples [S, 1]) of each waveform at the spec's rate; shorter than a window is filled with zeros."""
        spec = self.spec
        if self.reads == "vectors":
            raise ConfigError("this model has no speech branch: it reads vectors that another program's encoder made; see `melcli branches`")
        waves = [torch.nn.functional.pad(w, (0, spec.span - len(w))) if len(w) < spec.span else w for w in waves]
        return [w[:, None] for w in waves] if self.reads == "wave" else log_mel_many(spec, waves)

    def mels(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """mel_TM of each waveform, whatever the speech input reads: of speech that is to be said."""
        spec = self.spec
        return log_mel_many(spec, [torch.nn.functional.pad(w, (0, max(0, spec.span - len(w)))) for w in waves])

    def frames(self, samples: int) -> int:
        """How many rows `features` gives for a waveform of so many samples."""
        samples = max(samples, self.spec.span)
        return samples if self.reads == "wave" else self.spec.frames(samples)

    def patches(self, frames: int) -> int:
        """Speech positions of so many frames."""
        return (Subsampling(self.chains) if self.chains else Subsampling.of_stride(self.stride)).positions(frames)

    def steps(self, frames: int) -> int:
        """Positions of so many frames that are said."""
        return -(-frames // self.speaking["stride"]) if self.speaking else 0

    @property
    def tokens_per_second(self) -> float:
        """Tokens that speech can hold a second: few where a token is a word or most of one, as many as characters where it is one of these."""
        if self._rate is None:
            special = set(self.tokenizer.all_special_tokens)
            own = [] if len(self.tokenizer) > FEW else [len(token) for token in self.tokenizer.get_vocab() if token not in special]
            self._rate = max(TOKENS_PER_SECOND, CHARACTERS_PER_SECOND * len(own) / sum(own)) if own else TOKENS_PER_SECOND
        return self._rate

    def encoder(self, task: str = "asr") -> tasks.Encoder:
        """Encodes training examples and prompts of a task. Raises ConfigError for one that the model cannot do."""
        from melcli import registry

        build = registry.get("task", task).load()
        says = self.speaking or {}
        pace = says.get("pace") if says.get("positions") == "spread" else None
        prompt = says.get("prompt", "") if task == "tts" else self.task_prompts.get(task, self.prompt)
        ids = {"speech_id": self.speech_token_id, "spoken_id": says.get("token_id"), "pace": pace or None}
        ids |= {name: says.get(name, 0.0) if task == "continue" else 0.0 for name in ("lead", "seconds")}
        sounds = None if self.dictionary is None else self.dictionary.sounds
        encoder = tasks.Encoder(self.tokenizer, build, prompt, self.end_token_ids, self.ctc_alphabet, lexicon=self.lexicon, sounds=sounds, **ids)
        if encoder.speaks and not encoder.replies and not says:
            raise ConfigError(f"task {task} needs a model that speaks: give model.speech_output, see `melcli models ls --kind speech-output`")
        if encoder.reads_speech and self.reads == "nothing":
            raise ConfigError(f"task {task} needs a model that hears: model.speech_input is none")
        return encoder

    def prompts(self, frames: Sequence[int], task: str = "asr") -> list[list[int]]:
        """Token ids of a task's prompt for utterances of so many frames, without what is written."""
        encoder = self.encoder(task)
        blank = Utterance("", ())
        return [encoder(blank, self.patches(n), []).input_ids[: -len(self.end_token_ids) or None] for n in frames]

    def __call__(self, audio: Sequence[Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Left-padded inputs of `SpeechLM.generate`: input_ids and attention_mask [U, L], speech [F, M], speech_lengths [U]."""
        features = self.features(audio)
        prompts = self.prompts([len(f) for f in features])
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([[pad] * (width - len(p)) + p for p in prompts]),
            "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
            "speech": torch.cat(features),
            "speech_lengths": torch.tensor([len(f) for f in features]),
        }

    def heard_by_ctc(self, ctc_logits_TC: Tensor, frames_U: Tensor) -> list[list[int]]:
        """What the CTC head hears in each utterance, as tokens: a transcript of its own, or a draft (melcli/models/decoding/draft.py) of one."""
        if self.dictionary is not None:
            texts = self._words_in(ctc_logits_TC, frames_U)
        else:
            heard = ctc_greedy(ctc_logits_TC, frames_U)
            if self.ctc_alphabet is None:
                return heard
            texts = [" ".join("".join(self.ctc_alphabet[c] for c in classes).split()) for classes in heard]
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def listening_for(self, hotwords: Sequence[str], spelling: Spelling | None = None) -> SpeechLMProcessor:
        """The same, the words of these phrases favoured among those of the dictionary. Raises UsageError."""
        told = copy(self)
        words = [word for phrase in hotwords for word in words_of(phrase)]
        for phrase in hotwords:
            if not self.dictionary.sounds.write(phrase):
                raise UsageError(f"--hotwords: nobody knows how '{phrase}' sounds in English")
        for word in words:
            token_ids(self.tokenizer, word, first=True)  # whether it can be written at all
        told._search = DictionarySearch(self.dictionary, spelling, hotwords=words) if words else None
        return told

    def _words_in(self, ctc_logits_TC: Tensor, frames_U: Tensor) -> list[str]:
        """The dictionary's words that each utterance sounds like."""
        if self._search is None:
            self._search = DictionarySearch(self.dictionary)
        log_probs_TC = torch.log_softmax(ctc_logits_TC.float(), -1).cpu()
        nothing_C = log_probs_TC.new_full(log_probs_TC.shape[1:], -torch.inf)
        nothing_C[-1] = 0
        log_probs_TC[log_probs_TC.isnan().any(-1)] = nothing_C
        return [" ".join(self._search(piece.numpy())) for piece in log_probs_TC.split(frames_U.tolist())]

    def spell(self, token: int, first: bool) -> Sequence[int]:
        """The CTC head's classes that a token stands for inside a text, or at its beginning."""
        if self.ctc_alphabet is None:
            return (token,)
        if (token, first) not in self._spelt:
            anchor = self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize("a"))[:1]
            piece = self.tokenizer.decode([*anchor, token], skip_special_tokens=True)[len(self.tokenizer.decode(anchor)) :]
            piece = piece.lstrip() if first else piece
            self._spelt[token, first] = [i for i in map(self.ctc_alphabet.find, piece) if i >= 0]
        return self._spelt[token, first]

    def text(self, tokens: Sequence[int]) -> str:
        """Token ids to text, special tokens left out."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()


AutoProcessor.register(SpeechLMConfig, SpeechLMProcessor)
