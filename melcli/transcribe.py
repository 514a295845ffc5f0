"""`melcli transcribe`: speech to text with any SpeechLM.

Shapes: S samples, T mel frames, M mel bins.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from melcli.audio.segment import chunks, is_silent
from melcli.data.load import load_utterance
from melcli.errors import AudioError, UsageError
from melcli.inputs import AudioInput
from melcli.models import checkpoint
from melcli.models.beam import Beam
from melcli.models.generate import Greedy, Sample
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype
from melcli.models.processor import SpeechLMProcessor
from melcli.models.recognise import BATCH_TOKENS, by_length, recognise
from melcli.models.speech_lm import SpeechLM
from melcli.transcripts import Segment, Transcript

WINDOW_SECONDS = 1800.0  # audio sorted by length at a time: long enough for even batches, short enough for memory
WINDOW_INPUTS = 256


@dataclass(frozen=True, slots=True)
class _Heard:
    """A decoded input: its pieces as (start, end) seconds and features, None where a piece is silent. seconds: the features took."""

    item: AudioInput
    duration: float
    pieces: list[tuple[float, float, Tensor | None]]
    error: str | None = None
    seconds: float = 0.0


class Transcriber:
    """A model ready to transcribe.

    transcribe() yields transcripts as windows of inputs are done, an input that fails with its error; it never stops for one.
    decisions: what was decided at loading (device, dtype, attention, model, mel), each with its reason.
    """

    def __init__(
        self,
        model: SpeechLM,
        processor: SpeechLMProcessor,
        decisions: dict[str, str],
        *,
        strategy: Greedy | Sample | Beam | None = None,
        batch_size: int | Literal["auto"] = "auto",
        warm_up: int = 0,
    ) -> None:
        self.model = model
        self.processor = processor
        self.decisions = decisions
        self.strategy = strategy or Greedy()
        self.rows = None if batch_size == "auto" else batch_size
        self.warm_up = warm_up

    @classmethod
    def load(
        cls,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        beam: int | None = None,
        ctc_weight: float | None = None,
        warm_up: int = 0,
        offline: bool = False,
    ) -> Transcriber:
        """A model by name, folder or hub id. Raises CheckpointError and UsageError.

        beam: hypotheses followed at once, 1 is greedy; None leaves it to the model's generation config. ctc_weight: the CTC head's share in the
        scores of a beam search; None is that of `Beam`. warm_up: batches that are decoded once more, before the first, so that what a device does
        only the first time is in nobody's `seconds`.
        """
        if batch_size != "auto" and batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: give `auto` or a number of at least 1")
        where, why_device = pick_device(device)
        kind, why_dtype = pick_dtype(dtype, where)
        if where == "cpu":
            keep_freed_memory()
        lm, processor = checkpoint.load(model, dtype=kind, device=where, offline=offline)
        strategy, decoding = _strategy(lm, beam, ctc_weight)
        spec = processor.spec
        count = sum(p.numel() for p in lm.parameters())
        decisions = {
            "device": f"{where}: {why_device}",
            "dtype": f"{str(kind).removeprefix('torch.')}: {why_dtype}",
            "model": f"{model}: {count / 1e6:.1f} M parameters, {lm.config.text_config.model_type} backbone, {lm.config.speech_input['kind']}",
            "attention": f"{lm.llm.config._attn_implementation}; speech {lm.config.speech_attention}",
            "decoding": decoding,
            "mel": f"{spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames/s; {spec.rate / spec.hop_length / processor.stride:g} positions/s"
            if processor.reads == "mel"
            else f"{spec.rate} Hz waveform; {spec.rate / processor.stride:g} positions/s",
        }
        return cls(lm, processor, decisions, strategy=strategy, batch_size=batch_size, warm_up=warm_up)

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        """Transcripts in the order of the inputs. The next window is decoded while the model works on this one.

        Their `seconds` are those of features, generation and detokenising; opening, decoding and resampling the audio is left out.
        """
        windows = self._windows(iter(items))
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[list[_Heard]] = pool.submit(next, windows, [])
            while window := ahead.result():
                ahead = pool.submit(next, windows, [])
                yield from self._transcribe_window(window)

    def _windows(self, items: Iterator[AudioInput]) -> Iterator[list[_Heard]]:
        window: list[_Heard] = []
        for item in items:
            window.append(self._hear(item))
            if len(window) >= WINDOW_INPUTS or sum(heard.duration for heard in window) >= WINDOW_SECONDS:
                yield window
                window = []
        if window:
            yield window

    def _hear(self, item: AudioInput) -> _Heard:
        rate = self.processor.spec.rate
        try:
            wave_S = load_utterance(item.utterance, rate)
        except AudioError as error:
            return _Heard(item, 0.0, [], str(error))
        pieces = []
        began = time.perf_counter()
        for first, last in chunks(wave_S, rate, self.model.config.max_seconds):
            piece_S = wave_S[first:last]
            features = None if is_silent(piece_S, rate) else self.processor.features([piece_S])[0]
            pieces.append((first / rate, last / rate, features))
        return _Heard(item, len(wave_S) / rate, pieces, seconds=time.perf_counter() - began)

    def _transcribe_window(self, window: Sequence[_Heard]) -> Iterator[Transcript]:
        features = [mel for heard in window for _, _, mel in heard.pieces if mel is not None]
        self._warm(features)
        began = time.perf_counter()
        hypotheses = recognise(self.model, self.processor, features, self.strategy, self.rows)
        texts = iter([(self.processor.text(hypothesis.tokens), hypothesis.finish_reason) for hypothesis in hypotheses])
        total = sum(heard.duration for heard in window) or 1.0
        seconds = time.perf_counter() - began
        for heard in window:
            segments = []
            for start, end, mel in heard.pieces:
                if mel is None:
                    segments.append(Segment(start, end, "", "silence"))
                else:
                    segments.append(Segment(start, end, *next(texts)))
            text = " ".join(itertools.chain.from_iterable([s.text] if s.text else [] for s in segments))
            audio = heard.item.utterance.audio[0]
            took = heard.seconds + seconds * heard.duration / total
            yield Transcript(heard.item.name, audio, heard.duration, text, segments, heard.error, took)

    def _warm(self, features: Sequence[Tensor]) -> None:
        """Decode the first batches of the first window, and forget what was heard."""
        lengths = [self.processor.patches(len(f)) for f in features]
        for batch in itertools.islice(by_length(lengths, BATCH_TOKENS, self.rows), self.warm_up):
            recognise(self.model, self.processor, [features[i] for i in batch], self.strategy, self.rows)
        if features:
            self.warm_up = 0


def _strategy(model: SpeechLM, beam: int | None, ctc_weight: float | None) -> tuple[Greedy | Beam, str]:
    """How to decode, and why so. Raises UsageError."""
    if ctc_weight is not None and not 0 <= ctc_weight <= 1:
        raise UsageError(f"--ctc-weight {ctc_weight:g}: must lie between 0 and 1")
    width, why = (beam, "as asked") if beam else (getattr(model.generation_config, "num_beams", None) or 1, "as the model says")
    if ctc_weight and model.ctc_head is None:
        raise UsageError("--ctc-weight: this model has no CTC head; leave it out")
    if ctc_weight and width == 1:
        raise UsageError("--ctc-weight is for beam search: give --beam 4, say, as well")
    if width == 1:
        return Greedy(), f"greedy, {why}" + ("; the CTC head drafts" if model.ctc_head is not None else "")
    strategy = Beam(width) if ctc_weight is None else Beam(width, ctc_weight=ctc_weight)
    joint = f", jointly with the CTC head ({strategy.ctc_weight:g})" if model.ctc_head is not None and strategy.ctc_weight else ""
    return strategy, f"{width} beams{joint}, {why}"
