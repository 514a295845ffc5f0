"""`melcli transcribe`: speech to text with any recogniser: a SpeechLM of ours, or a speech model of transformers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from melcli import registry
from melcli.audio.segment import Cutter, Whole
from melcli.audio.stretches import Speech
from melcli.audio.vad import Network
from melcli.audio.vad import load as load_vad
from melcli.data.utterance import MICROPHONE
from melcli.errors import UsageError
from melcli.inputs import AudioInput
from melcli.listening import Hearing, Window, ahead, windows
from melcli.models import checkpoint
from melcli.models.hardware import give_back_freed_memory, keep_few_kernels, keep_freed_memory, pick_device, pick_dtype
from melcli.models.hints import NONE, Hints
from melcli.models.peers.families import family_of
from melcli.models.peers.peer import Peer
from melcli.models.recogniser import Recognised, Recogniser
from melcli.models.speech_lm_recogniser import SpeechLMRecogniser
from melcli.transcripts import Segment, Transcript

WINDOW_SECONDS = 1800.0  # utterances sorted by length at a time: long enough for even batches, short enough for memory
LONG_SECONDS = 240.0  # and of recordings of any length, whose memory is to stay flat
SILENCE = Recognised("", "silence")
TRIM_SECONDS = 20.0  # heard until what was freed goes back to the system: ever new sizes leave holes that later ones do not fit in
STREAM_SECONDS = 60.0  # and where each segment is wanted soon
LEAST_CHUNK = 2.0  # seconds that --max-chunk may be at least


class Transcriber:
    """A model ready to transcribe.

    transcribe() yields each transcript as it is done, an input that fails with its error; it never stops for one.
    decisions: what was decided at loading (device, dtype, model, decoding and so on), each with its reason. folder: where the model's files are.
    network: the VAD that finds the stretches of speech; None gives the model whole recordings, cut only where they are too long for it.
    max_chunk: seconds of a piece at most; None for what the model takes.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        decisions: dict[str, str],
        folder: Path,
        *,
        warm_up: int = 0,
        network: Network | None = None,
        max_chunk: float | None = None,
    ) -> None:
        self.recogniser = recogniser
        self.decisions = decisions
        self.folder = folder
        self.warm_up = warm_up
        self.network = network
        self.max_chunk = max_chunk or recogniser.max_seconds
        self._since_trim = 0.0

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
        vad: bool = False,
        max_chunk: float | None = None,
        hints: Hints = NONE,
    ) -> Transcriber:
        """A model by name, folder or hub id: a SpeechLM, any speech model of transformers that `melcli.models.peers` knows, a registered recogniser.

        beam: hypotheses followed at once, 1 is greedy; None leaves it to the generation config of a SpeechLM, and is greedy for others.
        ctc_weight: the CTC head's share in the scores of a beam search; None is that of `Beam`. warm_up: batches that are decoded once more, before
        the first, so that what a device does only the first time is in nobody's `seconds`. vad, max_chunk: see the class. Raises CheckpointError and
        UsageError.
        """
        if batch_size != "auto" and batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: give `auto` or a number of at least 1")
        where, why_device = pick_device(device)
        kind, why_dtype = pick_dtype(dtype, where)
        if where == "cpu":
            keep_freed_memory()
            keep_few_kernels()
        rows = None if batch_size == "auto" else batch_size
        folder, chosen = cls._find(model, offline)
        recogniser, decisions = chosen.load(str(folder), dtype=kind, device=where, rows=rows, beam=beam, ctc_weight=ctc_weight, hints=hints)
        decisions["model"] = f"{model}: {decisions['model']}"
        hardware = {"device": f"{where}: {why_device}", "dtype": f"{str(kind).removeprefix('torch.')}: {why_dtype}"}
        decisions["chunks"] = _chunks(model, recogniser.max_seconds, vad, max_chunk)
        return cls(recogniser, hardware | decisions, folder, warm_up=warm_up, network=load_vad() if vad else None, max_chunk=max_chunk)

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

    def transcribe(self, items: Iterable[AudioInput], heard: Callable[[AudioInput, Segment], None] | None = None) -> Iterator[Transcript]:
        """Transcripts as they are done, within a window the longest pieces first. The next window is decoded while the model works on this one.

        heard: told each segment as soon as it and all before it in its recording are there; windows are shorter then, a
            segment where there is a microphone among the items.
        `Transcript.seconds` is the input's share, by its duration, of the time that features, decoding and detokenising of its batches took.
        """
        rate = self.recogniser.rate
        items = list(items)
        live = any(item.utterance.audio == (MICROPHONE,) for item in items)
        most = 0.0 if live else STREAM_SECONDS if heard else LONG_SECONDS if self.network else WINDOW_SECONDS
        for window in ahead(windows(items, rate, self.cutter, most)):
            for hearing in self.hear(window):
                for segment in hearing.ready() if heard else ():
                    heard(hearing.item, segment)
                if hearing.done:
                    yield hearing.transcript()

    def hinted(self, hints: Hints) -> Transcriber:
        """The same model, its weights shared, told something else. Raises UsageError for hints that it cannot follow."""
        told = getattr(self.recogniser, "hinted", None)
        if told is None:
            reason = "takes none; leave it out"
            hints.refuse("this model", word_times=reason, prompt=reason, hotwords=reason)
        recogniser = self.recogniser if told is None else told(hints)
        return Transcriber(recogniser, self.decisions, self.folder, network=self.network, max_chunk=self.max_chunk)

    def cutter(self) -> Cutter:
        """What cuts a recording into the pieces that this model is given."""
        rate = self.recogniser.rate
        return Whole(rate, self.max_chunk) if self.network is None else Speech(rate, self.max_chunk, self.network)

    def hear(self, window: Window) -> Iterator[Hearing]:
        """Hears the pieces of a window, the longest first; gives an input each time it got further."""
        ended = list(window.settle())
        for hearing, number, piece in window.pieces:
            if piece.wave_S is None:
                hearing.take(number, piece, SILENCE)
        places = [(hearing, number, piece) for hearing, number, piece in window.pieces if piece.wave_S is not None]
        busy = {id(hearing) for hearing, _, _ in places}
        yield from (hearing for hearing in ended if id(hearing) not in busy)
        waves = [piece.wave_S for _, _, piece in places]
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
            samples = sum(len(waves[i]) for i in batch)
            per_sample = (time.perf_counter() - began) / (samples or 1)
            self._since_trim += samples / self.recogniser.rate
            if self._since_trim >= TRIM_SECONDS:
                give_back_freed_memory()
                self._since_trim = 0.0
            for i, recognised in batch.items():
                hearing, number, piece = places[i]
                hearing.take(number, piece, recognised)
                hearing.seconds += per_sample * len(waves[i])
                yield hearing


def _chunks(model: str, most: float, vad: bool, asked: float | None) -> str:
    """How recordings are cut, in words. Raises UsageError for a length that cannot be."""
    if asked is not None and not LEAST_CHUNK <= asked <= most:
        raise UsageError(f"--max-chunk {asked:g}: {model} takes from {LEAST_CHUNK:g} to {most:g} seconds")
    why = f"up to {asked or most:g} s, {'as asked' if asked else 'what the model takes'}"
    return f"stretches of speech found by silero-vad, {why}" if vad else f"the whole recording, cut where it is quietest, {why}"
