"""Recordings to replies, for `melcli synthesize --continue` and `melcli answer`: a model that hears, writes and speaks in one pass, and a vocoder.

    responder = Responder.load("runs/spectron-qa", "answer", speak=True)
    for reply in responder.replies(inputs):
        print(reply.name, reply.heard, reply.said)      # reply.wave_S at responder.rate

Shapes: S samples, T mel frames, M mel bins.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from melcli.audio.segment import is_silent
from melcli.audio.vocoder import Vocoder, load_vocoder
from melcli.data.load import load_utterance
from melcli.errors import AudioError, UsageError
from melcli.inputs import AudioInput
from melcli.models.hardware import keep_freed_memory, pick_device, pick_dtype

if TYPE_CHECKING:
    from melcli.models.replier import Replier, Reply

Task = Literal["continue", "answer"]

SPARE_SECONDS = 0.01  # that a prompt may be too short by: encoders round
SEAM_SECONDS = 0.005  # over which a prompt fades out and what follows it fades in, so that the seam does not click
WINDOW = 16  # recordings replied to together: enough for even batches, few enough for memory


@dataclass(slots=True)
class Replied:
    """What became of one recording.

    seconds: of it that were heard. heard, said: what the model took it for, and what it says to it; said is empty where a continuation cannot be told
    from the transcript before it. reason: why the text ended, eos, length or repetition. wave_S: the reply spoken, at `Responder.rate`, None where it
    was to be silent; stopped: why the voice ended, stop, length, silence or repetition. took: seconds of computing. error: why there is no reply.
    """

    name: str
    seconds: float
    heard: str = ""
    said: str = ""
    reason: str = ""
    wave_S: Tensor | None = None
    stopped: str | None = None
    took: float = 0.0
    error: str | None = None

    @property
    def text(self) -> str:
        """All that the model wrote."""
        return f"{self.heard} {self.said}".strip()


@dataclass(frozen=True, slots=True)
class Stage:
    """What is there of a reply while it is made: text of `heard` or `said`, or samples of `speech` at `Responder.rate`."""

    kind: Literal["heard", "said", "speech"]
    text: str = ""
    wave_S: Tensor | None = None


class Responder:
    """A model that replies to recordings, ready. decisions: what was decided at loading, each with its reason. last: what `stream` replied."""

    def __init__(
        self,
        replier: Replier,
        task: Task,
        vocoder: Vocoder | None = None,
        decisions: dict[str, str] | None = None,
        *,
        temperature: float | None = None,
        seed: int = 0,
        max_seconds: float | None = None,
    ) -> None:
        """vocoder: None for replies in text alone. max_seconds: cuts longer speech."""
        self.replier = replier
        self.task = task
        self.vocoder = vocoder
        self.decisions = decisions or {}
        self.prompt_seconds = replier.prompt_seconds
        freely = replier.temperature if temperature is None else temperature
        self.options = {"speak": vocoder is not None, "temperature": freely, "seed": seed, "max_seconds": max_seconds}
        self.last: Replied | None = None

    @classmethod
    def load(
        cls,
        model: str,
        task: Task,
        *,
        speak: bool,
        vocoder: str = "auto",
        temperature: float | None = None,
        seed: int = 0,
        max_seconds: float | None = None,
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
    ) -> Responder:
        """A model by name, folder or hub id, with a vocoder that reads its mel where it is to speak.

        temperature: of what is drawn for the voice, the model's own unless given; 0 is the mean. Raises CheckpointError where the model was not
        trained for the task, UsageError where it does not speak and is to.
        """
        from melcli.models.replier import Replier

        where, why_device = pick_device(device)
        kind, why_dtype = pick_dtype(dtype, where)
        if where == "cpu":
            keep_freed_memory()
        number_format = str(kind).removeprefix("torch.")
        replier = Replier.load(model, device=where, dtype=number_format, offline=offline)
        check_task(replier, model, task, speak)
        spec = replier.spec
        decisions = {"device": f"{where}: {why_device}", "dtype": f"{number_format}: {why_dtype}", "model": model}
        decisions["mel"] = f"{spec.rate} Hz, {spec.n_mels} bins, {spec.frame_rate:g} frames/s"
        if task == "continue":
            decisions["prompt"] = f"the first {replier.prompt_seconds:g} s of each recording"
        chosen = load_vocoder(vocoder, spec, device=where, offline=offline) if speak else None
        if chosen is not None:
            decisions["vocoder"] = f"{chosen.family}: {'reads this mel' if vocoder == 'auto' else 'as asked'}"
        return cls(replier, task, chosen, decisions, temperature=temperature, seed=seed, max_seconds=max_seconds)

    @property
    def rate(self) -> int:
        """Samples a second of what is spoken."""
        return self.replier.spec.rate if self.vocoder is None else self.vocoder.spec.rate

    def replies(self, items: Iterable[AudioInput]) -> Iterator[Replied]:
        """A reply to each recording, in their order, several made together. One that fails comes with its error; the others go on."""
        items = iter(items)
        while window := list(itertools.islice(items, WINDOW)):
            waves: dict[str, Tensor] = {}
            errors: dict[str, str] = {}
            for item in window:
                try:
                    waves[item.name] = self.hear(item)
                except AudioError as error:
                    errors[item.name] = str(error)
            made = self._replies(waves)
            yield from (made[item.name] if item.name in made else Replied(item.name, 0.0, error=errors[item.name]) for item in window)

    def stream(self, item: AudioInput) -> Iterator[Stage]:
        """One reply as it is made, stage by stage; afterwards `last` is all of it, without its samples. Raises AudioError."""
        wave_S = self.hear(item)
        began = time.perf_counter()
        done = Replied(item.name, len(wave_S) / self.replier.spec.rate)
        voice = None if self.vocoder is None else self.vocoder.stream()
        for event in self.replier.stream(wave_S, self.task, **self.options):
            if event.kind == "mel":
                if voice is not None and len(piece_S := voice.push(event.mel_TM)):
                    yield Stage("speech", wave_S=piece_S.cpu())
                continue
            setattr(done, event.kind, getattr(done, event.kind) + event.text)
            yield Stage(event.kind, event.text)
        if voice is not None and len(piece_S := voice.flush()):
            yield Stage("speech", wave_S=piece_S.cpu())
        self._note(done, self.replier.last)
        done.took = time.perf_counter() - began
        self.last = done

    def hear(self, item: AudioInput) -> Tensor:
        """wave_S of what the model is to hear of a recording. Raises AudioError where it cannot be decoded, is silent, or the model refuses it."""
        rate, name = self.replier.spec.rate, item.utterance.audio[0] if item.utterance.audio else item.name
        wave_S = load_utterance(item.utterance, rate)
        if self.task == "continue":
            samples = round(self.prompt_seconds * rate)
            lacking = samples - len(wave_S)
            wave_S = torch.nn.functional.pad(wave_S, (0, lacking)) if 0 < lacking <= SPARE_SECONDS * rate else wave_S[:samples]
        if is_silent(wave_S, rate):
            raise AudioError(f"{name}: is silent: there is no {'question in it' if self.task == 'answer' else 'speech in it to continue'}.")
        try:
            self.replier.check(wave_S, self.task)
        except UsageError as error:
            raise AudioError(f"{name}: {error}") from None
        return wave_S

    def prompted(self, item: AudioInput) -> Tensor:
        """wave_S at `rate` of what a continuation goes on from, faded out over SEAM_SECONDS."""
        wave_S = load_utterance(item.utterance, self.rate)[: round(self.prompt_seconds * self.rate)]
        return _faded(wave_S, self.rate, out=True)

    def begun(self, wave_S: Tensor) -> Tensor:
        """The first samples of what follows a prompt, faded in over SEAM_SECONDS."""
        return _faded(wave_S, self.rate, out=False)

    def _replies(self, waves: dict[str, Tensor]) -> dict[str, Replied]:
        if not waves:
            return {}
        began = time.perf_counter()
        replies = self.replier.reply(list(waves.values()), self.task, **self.options)
        rate, found = self.replier.spec.rate, {}
        for (name, wave_S), reply in zip(waves.items(), replies, strict=True):
            found[name] = Replied(name, len(wave_S) / rate, reply.heard, reply.said)
            self._note(found[name], reply)
            if reply.spoken is not None and self.vocoder is not None and len(reply.spoken.mel_TM):
                found[name].wave_S = self.vocoder(reply.spoken.mel_TM[None])[0].cpu()
        each = (time.perf_counter() - began) / sum(one.seconds for one in found.values())
        for one in found.values():  # replied to together: each has its share by its length
            one.took = each * one.seconds
        return found

    def _note(self, done: Replied, reply: Reply) -> None:
        done.reason = reply.text_reason
        done.stopped = None if reply.spoken is None else reply.spoken.reason


def check_task(replier: Replier, model: str, task: str, speak: bool) -> None:
    """Raises UsageError where a model does not do a task, or does not speak and is to."""
    if task not in replier.tasks:
        does = ", ".join(replier.tasks) or "nothing of the kind"
        raise UsageError(f"--model {model}: this model was not trained for task {task}; it was for {does}. Recipe {RECIPES[task]} trains one.")
    if speak and not replier.speaks:
        raise UsageError(f"--model {model}: this model replies in text only, it has no speech output{'; leave out -o' if task == 'answer' else ''}.")


RECIPES = {"continue": "spectron", "answer": "spectron-qa"}


def _faded(wave_S: Tensor, rate: int, out: bool) -> Tensor:
    count = min(len(wave_S), round(SEAM_SECONDS * rate))
    ramp_S = torch.linspace(0, 1, count)
    faded_S = wave_S.clone()
    if out:
        faded_S[len(wave_S) - count :] *= ramp_S.flip(0)
    else:
        faded_S[:count] *= ramp_S
    return faded_S
