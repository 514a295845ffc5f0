"""A SpeechLM as a recogniser: which decoding it uses and why, and its batches.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy

import torch
from torch import Tensor

from melcli.errors import UsageError
from melcli.models import checkpoint
from melcli.models.chat import instructed
from melcli.models.config import SPEECH_TOKEN
from melcli.models.decoding.beam import Beam
from melcli.models.decoding.generate import ByCtc, Greedy, Strategy
from melcli.models.decoding.hotwords import Hotwords
from melcli.models.decoding.hypothesis import Hypothesis
from melcli.models.decoding.recognise import batch_budget, by_length, decode_batch
from melcli.models.fitting import Fitting
from melcli.models.hints import NONE, Hints
from melcli.models.processor import SpeechLMProcessor
from melcli.models.recogniser import Recognised, Word
from melcli.models.speech_lm import SpeechLM
from melcli.models.unified_input import Unified
from melcli.models.word_times import word_times

ONE_PATH = "--hotwords: a search that follows one hypothesis cannot take a wrong one back; give --beam 4, say, or leave --beam out"
BY_SOUND = "words of its dictionary, by the sounds that the CTC head hears"


class SpeechLMRecogniser:
    """Our own model, ready to hear. rows: utterances decoded together, None for as many as the token budget allows.

    greedy_asked: whether somebody wants greedy decoding, so that hotwords are no reason for beams.
    """

    def __init__(
        self,
        model: SpeechLM,
        processor: SpeechLMProcessor,
        strategy: Strategy | None = None,
        rows: int | None = None,
        hints: Hints = NONE,
        greedy_asked: bool = False,
    ) -> None:
        self.model = model
        self.processor = processor
        self.strategy = strategy or Greedy()
        self.rows = rows
        self.hints = hints
        self.fitting = Fitting("pieces of audio")
        self.greedy_asked = greedy_asked
        self.hotwords = Hotwords(processor.tokenizer, hints.hotwords) if hints.hotwords and isinstance(self.strategy, Beam) else None

    @classmethod
    def load(
        cls, folder: str, *, dtype: torch.dtype, device: str, rows: int | None, beam: int | None, ctc_weight: float | None, hints: Hints = NONE
    ) -> tuple[SpeechLMRecogniser, dict[str, str]]:
        """The model of a folder, and what was decided for it. Raises CheckpointError and UsageError."""
        model, processor = checkpoint.load(folder, dtype=dtype, device=device)
        if processor.reads == "vectors":
            raise UsageError(
                f"--model {folder}: it has no speech branch, only vectors that another program's encoder made go in; "
                "`melcli branches --vectors NAME=FILE` scores those"
            )
        processor = _told(model, processor, hints, folder)
        strategy, decoding = choose_strategy(model, beam, ctc_weight, bool(hints.hotwords))
        spec = processor.spec
        count = sum(p.numel() for p in model.parameters())
        if processor.reads == "mel":
            given, places = f"{spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames/s", spec.frame_rate / processor.stride
        else:
            given, places = f"{spec.rate} Hz waveform", spec.rate / processor.stride
        fixed = isinstance(model.speech_input, Unified)
        if hints.hotwords:
            decoding += f"; {len(hints.hotwords)} hotword{'s' if len(hints.hotwords) > 1 else ''} favoured"
        decisions = {
            "model": f"{count / 1e6:.1f} M parameters, {model.config.text_config.model_type} backbone, {model.config.speech_input['kind']}",
            "attention": f"{model.llm.config._attn_implementation}; speech {model.config.speech_attention}",
            "decoding": decoding,
            "batch": f"{rows} utterances, as asked" if rows else f"auto: utterances of like length, up to {batch_budget(strategy)} positions",
            "mel": f"{given}; {f'{model.speech_input.tokens} positions an utterance' if fixed else f'{places:g} positions/s'}",
        }
        return cls(model, processor, strategy, rows, hints, greedy_asked=beam == 1), decisions

    def hinted(self, hints: Hints) -> SpeechLMRecogniser:
        """The same model, its weights shared, told something else; hotwords need a beam or a dictionary. Raises UsageError.

        What is put into tokens is by a copy of the tokenizer: this one may be at work in another thread, and keeps settings of a call in itself.
        """
        strategy = self.strategy
        if hints.hotwords and not isinstance(strategy, Beam | ByCtc):
            if self.greedy_asked:
                raise UsageError(ONE_PATH)
            strategy = Beam()
        processor = copy(self.processor)
        if hints.hotwords or hints.prompt is not None:
            processor.tokenizer = deepcopy(self.processor.tokenizer)
        return SpeechLMRecogniser(self.model, _told(self.model, processor, hints, "the model"), strategy, self.rows, hints, self.greedy_asked)

    @property
    def rate(self) -> int:
        return self.processor.spec.rate

    @property
    def max_seconds(self) -> float:
        return self.model.config.max_seconds

    def recognise(self, waves: Sequence[Tensor]) -> Iterator[dict[int, Recognised]]:
        """What was heard in each wave_S, a batch at a time, the longest first."""
        lengths = [self.processor.patches(self.processor.frames(len(wave_S))) for wave_S in waves]
        for batch in by_length(lengths, batch_budget(self.strategy), self.rows):
            hypotheses = self.fitting(self._decode, [waves[i] for i in batch], [lengths[i] for i in batch])
            texts = ["" if self._heard_nothing(h) else self.processor.text(h.tokens) for h in hypotheses]
            words: Sequence[tuple[Word, ...] | None] = [None] * len(batch)
            if self.hints.word_times:
                words = word_times(self.processor, [h.ctc_logits for h in hypotheses], texts, [len(waves[i]) / self.rate for i in batch])
            yield {
                i: Recognised(text, h.finish_reason if text or h.finish_reason != "eos" else "silence", timed)
                for i, h, text, timed in zip(batch, hypotheses, texts, words, strict=True)
            }

    def _decode(self, waves: list[Tensor]) -> list[Hypothesis]:
        return decode_batch(self.model, self.processor, self.processor.features(waves), self.strategy, hotwords=self.hotwords)

    def _heard_nothing(self, hypothesis: Hypothesis) -> bool:
        """Whether the CTC head, which invents no words, says that there are none: blanks, or spaces, all along."""
        if hypothesis.ctc_logits is None:
            return False
        best_T = hypothesis.ctc_logits.argmax(-1)
        nothing = [hypothesis.ctc_logits.shape[-1] - 1]
        if self.processor.ctc_alphabet is not None and " " in self.processor.ctc_alphabet:
            nothing.append(self.processor.ctc_alphabet.index(" "))
        return bool(torch.isin(best_T, torch.tensor(nothing, device=best_T.device)).all())


def _told(model: SpeechLM, processor: SpeechLMProcessor, hints: Hints, name: str) -> SpeechLMProcessor:
    """A processor with the prompt that was asked for. Raises UsageError for hints that the model cannot follow."""
    if model.ctc_head is None:
        hints.refuse("this model", word_times="has no CTC head to align words by (tiny-en has one); leave it out, or give --timestamps segment")
    if model.writes_by_ctc and processor.dictionary is None:
        hints.refuse("this model", hotwords="learnt to hear by CTC alone, and has nothing to search with")
    if processor.dictionary is not None:
        processor = processor.listening_for(hints.hotwords)
    if hints.prompt is None:
        return processor
    asked = instructed(processor.task_prompts.get("asr", processor.prompt), processor.tokenizer, hints.prompt, name)
    if asked is None or SPEECH_TOKEN in hints.prompt:
        hints.refuse("this model", prompt=f"learnt the fixed prompt {processor.prompt!r}, which holds no instruction; leave it out")
    told = copy(processor)
    told.task_prompts = {**processor.task_prompts, "asr": asked}
    return told


def choose_strategy(model: SpeechLM, beam: int | None, ctc_weight: float | None, hotwords: bool = False) -> tuple[Strategy, str]:
    """How to decode, and why so. Raises UsageError."""
    if ctc_weight is not None and not 0 <= ctc_weight <= 1:
        raise UsageError(f"--ctc-weight {ctc_weight:g}: must lie between 0 and 1")
    by_sound = model.config.ctc_sounds
    if model.writes_by_ctc:
        if beam or ctc_weight or (hotwords and not by_sound):
            raise UsageError("this model learnt to hear by CTC alone, and has nothing to search with: leave --beam, --ctc-weight and --hotwords out")
        return ByCtc(), BY_SOUND if by_sound else "what the CTC head hears, greedily: all that this model has learnt"
    if by_sound and ctc_weight:
        raise UsageError("--ctc-weight: the CTC head of this model hears sounds and not tokens; leave it out")
    if by_sound and not beam:
        return ByCtc(), BY_SOUND
    width, why = (beam, "as asked") if beam else (getattr(model.generation_config, "num_beams", None) or 1, "as the model says")
    if hotwords and width == 1:
        if beam:
            raise UsageError(ONE_PATH)
        width, why = Beam().width, "because of the hotwords"
    if ctc_weight and model.ctc_head is None:
        raise UsageError("--ctc-weight: this model has no CTC head; leave it out")
    if ctc_weight and width == 1:
        raise UsageError("--ctc-weight is for beam search: give --beam 4, say, as well")
    if width == 1:
        return Greedy(), f"greedy, {why}" + ("; the CTC head drafts" if model.ctc_head is not None else "")
    weight = 0.0 if by_sound or model.ctc_head is None else Beam().ctc_weight if ctc_weight is None else ctc_weight
    strategy = Beam(width, ctc_weight=weight)
    joint = f", jointly with the CTC head ({weight:g})" if weight else ""
    return strategy, f"{width} beams{joint}, {why}"
