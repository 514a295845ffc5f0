"""`melcli transcribe`: speech to text with any recogniser: a SpeechLM of ours, or a speech model of transformers.

Shapes: S samples.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from melcli import registry
from melcli.audio.segment import chunks, is_silent
from melcli.data.load import load_utterance
from melcli.errors import AudioError, UsageError
from melcli.inputs import AudioInput
from melcli.models import checkpoint
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype
from melcli.models.peers.families import family_of
from melcli.models.peers.peer import Peer
from melcli.models.recogniser import Recognised, Recogniser
from melcli.models.speech_lm_recogniser import SpeechLMRecogniser
from melcli.transcripts import Segment, Transcript

WINDOW_SECONDS = 1800.0  # audio sorted by length at a time: long enough for even batches, short enough for memory
WINDOW_INPUTS = 256


@dataclass(slots=True)
class _Heard:
    """A decoded input: its pieces as (start, end) seconds and waveform, None where a piece is silent, and what the model made of them."""

    item: AudioInput
    duration: float
    pieces: list[tuple[float, float, Tensor | None]]
    error: str | None = None
    found: dict[int, Recognised] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def open(self) -> int:
        """How many pieces the model has not heard yet."""
        return sum(wave is not None for _, _, wave in self.pieces) - len(self.found)

    def transcript(self) -> Transcript:
        """What was heard in all pieces."""
        silence = Recognised("", "silence")
        texts = [self.found.get(position, silence) for position in range(len(self.pieces))]
        segments = [Segment(start, end, r.text, r.finish_reason) for (start, end, _), r in zip(self.pieces, texts, strict=True)]
        text = " ".join(r.text for r in texts if r.text)
        return Transcript(self.item.name, self.item.utterance.audio[0], self.duration, text, segments, self.error, self.seconds)


class Transcriber:
    """A model ready to transcribe.

    transcribe() yields each transcript as it is done, an input that fails with its error; it never stops for one.
    decisions: what was decided at loading (device, dtype, model, decoding and so on), each with its reason. folder: where the model's files are.
    """

    def __init__(self, recogniser: Recogniser, decisions: dict[str, str], folder: Path, *, warm_up: int = 0) -> None:
        self.recogniser = recogniser
        self.decisions = decisions
        self.folder = folder
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
        """A model by name, folder or hub id: a SpeechLM, any speech model of transformers that `melcli.models.peers` knows, a registered recogniser.

        beam: hypotheses followed at once, 1 is greedy; None leaves it to the generation config of a SpeechLM, and is greedy for others.
        ctc_weight: the CTC head's share in the scores of a beam search; None is that of `Beam`. warm_up: batches that are decoded once more, before
        the first, so that what a device does only the first time is in nobody's `seconds`. Raises CheckpointError and UsageError.
        """
        if batch_size != "auto" and batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: give `auto` or a number of at least 1")
        where, why_device = pick_device(device)
        kind, why_dtype = pick_dtype(dtype, where)
        if where == "cpu":
            keep_freed_memory()
        rows = None if batch_size == "auto" else batch_size
        folder, chosen = cls._find(model, offline)
        recogniser, decisions = chosen.load(str(folder), dtype=kind, device=where, rows=rows, beam=beam, ctc_weight=ctc_weight)
        decisions["model"] = f"{model}: {decisions['model']}"
        hardware = {"device": f"{where}: {why_device}", "dtype": f"{str(kind).removeprefix('torch.')}: {why_dtype}"}
        return cls(recogniser, hardware | decisions, folder, warm_up=warm_up)

    @classmethod
    def check(cls, model: str, *, offline: bool = False) -> None:
        """See to it that a model is there, fetched where it must be, and of a kind that can be loaded. Raises CheckpointError."""
        cls._find(model, offline)

    @staticmethod
    def _find(model: str, offline: bool) -> tuple[Path, type[Any]]:
        """The folder of a model and the class that loads it: one registered as a recogniser, or what its config says."""
        if model in registry.names("recogniser") and not Path(model).is_dir():
            known = registry.get("recogniser", model).load()
            return known.folder(), known
        folder = checkpoint.resolve(model, offline=offline)
        kind = checkpoint.read_config(folder).get("model_type")
        if kind == "speech_lm":
            return folder, SpeechLMRecogniser
        family_of(str(folder), kind)
        return folder, Peer

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        """Transcripts as they are done, within a window the longest inputs first. The next window is decoded while the model works on this one.

        `Transcript.seconds` is the input's share, by its duration, of the time that features, decoding and detokenising of its batches took.
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
        rate = self.recogniser.rate
        try:
            wave_S = load_utterance(item.utterance, rate)
        except AudioError as error:
            return _Heard(item, 0.0, [], str(error))
        pieces = []
        for first, last in chunks(wave_S, rate, self.recogniser.max_seconds):
            piece_S = wave_S[first:last]
            pieces.append((first / rate, last / rate, None if is_silent(piece_S, rate) else piece_S))
        return _Heard(item, len(wave_S) / rate, pieces)

    def _transcribe_window(self, window: Sequence[_Heard]) -> Iterator[Transcript]:
        yield from (heard.transcript() for heard in window if not heard.open)
        places = [(heard, position, wave_S) for heard in window for position, (_, _, wave_S) in enumerate(heard.pieces) if wave_S is not None]
        waves = [wave_S for _, _, wave_S in places]
        if waves:
            for _ in itertools.islice(self.recogniser.recognise(waves), self.warm_up):
                pass
            self.warm_up = 0
        batches = self.recogniser.recognise(waves)
        while True:
            began = time.perf_counter()
            batch: Mapping[int, Recognised] | None = next(batches, None)
            if batch is None:
                return
            per_sample = (time.perf_counter() - began) / (sum(len(places[i][2]) for i in batch) or 1)
            for i, recognised in batch.items():
                heard, position, wave_S = places[i]
                heard.found[position] = recognised
                heard.seconds += per_sample * len(wave_S)
                if not heard.open:
                    yield heard.transcript()
