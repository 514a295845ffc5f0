"""`melcli synthesize`: text to speech with a model that speaks and a vocoder, a passage at a time.

    synthesizer = Synthesizer.load("tiny-voice")
    for speech in synthesizer.speak([Request("1", "Hello there."), Request("2", "Good bye.")]):
        save(f"{speech.id}.wav", speech.wave_S, speech.rate)

Shapes: S samples, T mel frames, M mel bins, P steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from melcli.audio.vocoder import Vocoder, load_vocoder
from melcli.audio.writer import AudioWriter
from melcli.data.lexicon import read as read_lexicon
from melcli.data.passages import paragraphs
from melcli.data.speakable import Piece, passages
from melcli.errors import AudioError, UsageError
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype

if TYPE_CHECKING:
    from melcli.models.speaker import Speaker, Spoken, VoicePrompt

DEFAULT_MODEL = "tiny-voice"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ',.;:!?-"  # of a model that does not say which it knows
WINDOW = 32  # passages spoken together: enough for even batches, few enough for memory


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be spoken. text: whole, or its lines as they come. voice: to speak like; None for the model's own."""

    id: str
    text: str | Iterable[str]
    voice: VoicePrompt | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next samples of a request, which may be none.

    spoken, piece: what the model made and of which text, with the last samples of a passage. last: the request is done; error: why it failed.
    """

    request: Request
    wave_S: Tensor
    spoken: Spoken | None = None
    piece: Piece | None = None
    last: bool = False
    error: str | None = None


@dataclass(slots=True)
class Speech:
    """A request spoken. wave_S: float32 in [-1, 1] at `rate`, on the processor. spoken: a passage each, of the texts in `pieces`.

    error: why there is no audio, in one line.
    """

    id: str
    wave_S: Tensor
    rate: int
    spoken: list[Spoken] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    error: str | None = None

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.wave_S) / self.rate

    @property
    def reasons(self) -> list[str]:
        """Why each passage ended: stop, or what went wrong."""
        return [spoken.reason for spoken in self.spoken]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the voice could not say."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(piece.left_out for piece in self.pieces)))


@dataclass(frozen=True, slots=True)
class Item:
    """A passage of a request with the silence before it, or (piece None) the end of the request."""

    request: Request
    piece: Piece | None
    silence: float = 0.0
    error: str | None = None


class Synthesizer:
    """A speaking model and a vocoder, ready to speak. decisions: what was decided at loading, each with its reason.

    The same seed, model and text give the same audio on the same machine, whatever is spoken besides; in batches up to rounding.
    """

    def __init__(self, speaker: Speaker, vocoder: Vocoder, decisions: dict[str, str], *, temperature: float | None = None, seed: int = 0) -> None:
        self.speaker = speaker
        self.vocoder = vocoder
        self.decisions = decisions
        self.temperature = speaker.temperature if temperature is None else temperature
        self.seed = seed
        self.alphabet = (speaker.alphabet or LETTERS) + " "

    @classmethod
    def load(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        vocoder: str = "auto",
        temperature: float | None = None,
        seed: int = 0,
        lexicon: Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
    ) -> Synthesizer:
        """A model by name, folder or hub id, with a vocoder that reads its mel.

        temperature: of the latents, the model's own unless given; 0 is the mean of each. lexicon: a pronunciation dictionary for words that the
        model's own does not hold, or says otherwise (data/lexicon.py).
        Raises CheckpointError, also where the model cannot speak, ConfigError and UsageError.
        """
        where, why_device = pick_device(device)
        kind, why_dtype = pick_dtype(dtype, where)
        from melcli.models.speaker import Speaker

        if where == "cpu":
            keep_freed_memory()
        speaker = Speaker.load(model, device=where, dtype=str(kind).removeprefix("torch."), offline=offline)
        if lexicon is not None:
            words = read_lexicon(lexicon)
            speaker.pronounce(words)
        spec = speaker.spec
        chosen = load_vocoder(vocoder, spec, device=where, offline=offline)
        mel = f"{spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames/s; {spec.frame_rate / speaker.frames_per_step:g} steps/s"
        decisions = {
            "device": f"{where}: {why_device}",
            "dtype": f"{str(kind).removeprefix('torch.')}: {why_dtype}",
            "model": model,
            "mel": mel,
            "vocoder": f"{chosen.family}: {'reads this mel' if vocoder == 'auto' else 'as asked'}",
        }
        if lexicon is not None:
            decisions["lexicon"] = f"{len(words.words):,} word{'' if len(words.words) == 1 else 's'} as in {lexicon}"
        return cls(speaker, chosen, decisions, temperature=temperature, seed=seed)

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.vocoder.spec.rate

    def speak(self, requests: Iterable[Request]) -> Iterator[Speech]:
        """Each request spoken, in order, passages of several together. One that fails comes with its error; the others go on."""
        parts: list[Tensor] = []
        done = Speech("", torch.empty(0), self.rate)
        for chunk in self.chunks(requests):
            parts.append(chunk.wave_S)
            if chunk.spoken is not None:
                done.spoken.append(chunk.spoken)
            if chunk.piece is not None:
                done.pieces.append(chunk.piece)
            if chunk.last:
                done.id, done.error = chunk.request.id, chunk.error
                done.wave_S = torch.empty(0) if chunk.error else torch.cat(parts)
                yield done
                parts, done = [], Speech("", torch.empty(0), self.rate)

    def chunks(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """The audio of the requests in order, a passage a chunk, in memory that does not grow with the text; WINDOW passages are ahead of it."""
        items = itertools.chain.from_iterable(map(self.items, requests))
        failed: Request | None = None
        while window := list(itertools.islice(items, WINDOW)):
            for chunk in self.say(window):
                if chunk.request is not failed:
                    yield chunk
                if chunk.error is not None:
                    failed = chunk.request

    def say(self, window: Sequence[Item]) -> Iterator[Chunk]:
        """The audio of these passages, spoken together, a chunk each in their order. One that fails has its error and is its request's last."""
        spoken = self._spoken(window)
        for item in window:
            try:
                yield self._chunk(item, spoken.pop(id(item), None))
            except (AudioError, UsageError) as error:
                yield Chunk(item.request, torch.empty(0), last=True, error=str(error))

    def stream(self, request: Request) -> Iterator[Chunk]:
        """The audio of one request as soon as it is there: a chunk whenever the model has said enough for the vocoder. Raises AudioError."""
        for item in self.items(request):
            if item.piece is None or not item.piece.text:
                yield self._chunk(item, None)
                continue
            stream = self.vocoder.stream()
            yield Chunk(request, self._silence(item))
            for mel_TM in self.speaker.stream(item.piece.text, **self._options(request)):
                if len(wave_S := stream.push(mel_TM)):
                    yield Chunk(request, wave_S.cpu())
            yield Chunk(request, stream.flush().cpu(), self.speaker.last, item.piece)

    def items(self, request: Request) -> Iterator[Item]:
        """The passages of a request, as its text comes, and its end."""
        silence, said, left_out = 0.0, False, dict[str, None]()
        lines = request.text.splitlines(keepends=True) if isinstance(request.text, str) else request.text
        for paragraph in paragraphs(lines):
            for piece in passages(paragraph, self.alphabet):
                left_out |= dict.fromkeys(piece.left_out)
                yield Item(request, piece, silence)
                if piece.text:
                    silence, said = piece.pause, True
        yield Item(request, None, error=None if said else unspeakable(left_out))

    def _spoken(self, window: Sequence[Item]) -> dict[int, Spoken | UsageError]:
        """What the model makes of each item's text, by the item's identity; those of one voice together."""
        found: dict[int, Spoken | UsageError] = {}
        todo = [item for item in window if item.piece is not None and item.piece.text]
        for voice in dict.fromkeys(id(item.request.voice) for item in todo):
            same = [item for item in todo if id(item.request.voice) == voice]
            try:
                spoken = self.speaker.speak([item.piece.text for item in same], **self._options(same[0].request))
            except UsageError as error:  # a voice that this model cannot take; other rows go on
                spoken = [error] * len(same)
            found |= {id(item): one for item, one in zip(same, spoken, strict=True)}
        return found

    def _options(self, request: Request) -> dict[str, object]:
        return {"voice": request.voice, "temperature": self.temperature, "seed": self.seed}

    def _chunk(self, item: Item, spoken: Spoken | UsageError | None) -> Chunk:
        if isinstance(spoken, UsageError):
            raise spoken
        if item.piece is None:
            return Chunk(item.request, torch.empty(0), last=True, error=item.error)
        if spoken is None:
            return Chunk(item.request, torch.empty(0), piece=item.piece)
        wave_S = self.vocoder(spoken.mel_TM[None])[0].cpu()
        return Chunk(item.request, torch.cat([self._silence(item), wave_S]), spoken, item.piece)

    def _silence(self, item: Item) -> Tensor:
        return torch.zeros(round(item.silence * self.rate))


@dataclass(slots=True)
class Delivered:
    """What was written of one request.

    odd: (reason, text) of each passage that did not end by itself. spoken: the passages of the first `keep` seconds, for a picture.
    """

    keep: float = 0.0
    samples: int = 0
    passages: int = 0
    odd: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, None] = field(default_factory=dict)
    spoken: list[Spoken] = field(default_factory=list)

    def take(self, chunk: Chunk, rate: int) -> None:
        """Note a chunk that was written."""
        if chunk.spoken is not None and self.samples < self.keep * rate:
            self.spoken.append(chunk.spoken)
        self.samples += len(chunk.wave_S)
        if chunk.piece is not None:
            self.left_out |= dict.fromkeys(chunk.piece.left_out)
        if chunk.spoken is not None:
            self.passages += 1
            if chunk.spoken.reason != "stop":
                self.odd.append((chunk.spoken.reason, chunk.piece.text if chunk.piece else ""))


def deliver(
    chunks: Iterable[Chunk],
    writer: AbstractContextManager[AudioWriter],
    rate: int,
    *,
    keep: float = 0.0,
    done: Callable[[Chunk], None] = lambda _: None,
    whole: Callable[[Delivered], None] = lambda _: None,
) -> Delivered:
    """Write the chunks of one request as they come. done: called after each; whole: after all, before the file gets its name.

    Raises UsageError where there is nothing to say in it, AudioError where the model failed; a file that was begun is then taken back.
    """
    found = Delivered(keep)
    with writer as out:
        for chunk in chunks:
            if chunk.error is not None:
                raise (AudioError if found.passages else UsageError)(chunk.error)
            out.write(chunk.wave_S)
            found.take(chunk, rate)
            done(chunk)
            if chunk.last:  # whoever asked for another would have the next request's speech made before this one's file is there
                break
        whole(found)
    return found


def unspeakable(left_out: Iterable[str]) -> str:
    """The error of a text in which there is nothing to say."""
    named = shown(tuple(left_out))
    return f"nothing in the text can be said: the voice does not know {named}." if named else "there is nothing to say in the text."


def shown(left_out: tuple[str, ...], limit: int = 8) -> str:
    """What a voice left out, for a message: the first few, and how many more."""
    more = f" and {len(left_out) - limit} more" if len(left_out) > limit else ""
    return ", ".join(one if len(one) <= 24 else one[:24] + "…" for one in left_out[:limit]) + more
