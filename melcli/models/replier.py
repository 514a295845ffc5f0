"""A model that hears speech and replies: it writes what it heard and what it says to that, and says it, each as soon as it is there.

One sequence from end to end, as it was learnt (Spectron, arXiv 2305.15255): speech, text, speech. What was written is read again in one go before
the first patch is said, together with that of other replies; nothing is decided by anything but this model.
Shapes: S samples, T mel frames, M mel bins, C classes of the CTC head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.tasks import ANSWER, Example
from melcli.data.utterance import Utterance
from melcli.errors import CheckpointError, UsageError
from melcli.models import checkpoint
from melcli.models.decoding.generate import decode
from melcli.models.decoding.hypothesis import Hypothesis
from melcli.models.decoding.recognise import batch_budget, by_length, token_limit
from melcli.models.decoding.rows import spread_of
from melcli.models.fitting import Fitting
from melcli.models.guards import Guard
from melcli.models.hardware import pick_device, pick_dtype
from melcli.models.noise import seed_of
from melcli.models.processor import SpeechLMProcessor
from melcli.models.speaker import Spoken, speak_all, speak_streaming
from melcli.models.speaking import Prompt
from melcli.models.speech_lm import SpeechLM
from melcli.models.unified_input import Unified

TASKS = ("continue", "answer")
Task = Literal["continue", "answer"]
ANSWER_SECONDS = 10.0  # that an answer may take unless told otherwise
SILENT = 10 ** (-60 / 20)  # amplitude below which nothing was said
SHORTEST = 0.2  # seconds of a question


@dataclass(frozen=True, slots=True)
class Reply:
    """heard: the transcript of the prompt, or the question. said: what follows it, or the answer, in text. spoken: None where nothing is said aloud.

    Of `continue` the model writes one text. With a CTC head that hears the prompt alone, it is split where it is nearest to that in letters; else all
    of it is `heard` and `said` is empty. text_reason: why the text ended, `eos`, `length` or `repetition`.
    """

    heard: str
    said: str
    spoken: Spoken | None
    text_reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """A stage of a reply, as soon as it is there: the text that was `heard`, that which is `said`, and pieces of `mel` [t, M]."""

    kind: Literal["heard", "said", "mel"]
    text: str = ""
    mel_TM: Tensor | None = None


@dataclass(slots=True)
class _Draft:
    """A reply under way. features: what the model hears. ids: all that it has written. own: how many of them the speech is of. cut: how many of them
    are of the prompt of `continue`, by the CTC head; None where nobody knows."""

    features: Tensor
    ids: list[int]
    heard: str = ""
    said: str = ""
    own: int = 0
    cut: int | None = None
    reason: str = "eos"

    @property
    def aloud(self) -> bool:
        """Whether there is anything to say."""
        return self.own > 0 and any(character.isalnum() for character in self.said or self.heard)


class Replier:
    """spec: of its mel. speaks: whether it says replies aloud. tasks: those of `continue` and `answer` that it has learnt.

    prompt_seconds: what it hears of speech that it continues. last: what `stream` gave.
    A model that learnt `instruct` from text alone answers outright: what it heard is what it repeats when it is asked to, and empty where it has not
    learnt that either. It takes questions in writing, too (`melcli.data.written.codes_of`), which go through its encoder's text branch.
    """

    def __init__(self, model: SpeechLM, processor: SpeechLMProcessor) -> None:
        self.model = model.eval()
        self.processor = processor
        self.spec: MelSpec = processor.spec
        self.speaks = model.speech_output is not None
        self.outright = "instruct" in model.config.prompts and "answer" not in model.config.prompts
        self.tasks = tuple(task for task in TASKS if task in model.config.prompts or (task == "answer" and self.outright))
        self.prompt_seconds: float = model.config.prompt_seconds
        self.temperature: float = model.config.speak_temperature
        self.last: Reply | None = None
        self.fitting = Fitting("recordings")
        if not self.tasks:
            able = [*(["transcribe"] if processor.reads != "nothing" else []), *(["speak"] if self.speaks else [])]
            raise CheckpointError(f"this model has not learnt to continue or to answer speech; it can {' and '.join(able) or 'write'}")

    @classmethod
    def load(cls, name: str, *, device: str = "auto", dtype: str = "auto", offline: bool = False) -> Replier:
        """The model of a registered name, folder or hub id. Raises CheckpointError, also for one that does neither, and UsageError."""
        where, _ = pick_device(device)
        kind, _ = pick_dtype(dtype, where)
        model, processor = checkpoint.load(name, dtype=kind, device=where, offline=offline)
        try:
            return cls(model, processor)
        except CheckpointError as error:
            raise CheckpointError(f"--model {name}: {error}") from None

    def check(self, wave_or_mel: Tensor, task: Task) -> None:
        """Raises UsageError for what cannot be replied to: a task that it has not learnt, a prompt that is too short or too long, silence."""
        if task not in self.tasks:
            raise UsageError(f"this model has not learnt the task '{task}', but {', '.join(self.tasks)}")
        if not wave_or_mel.is_floating_point():
            if not isinstance(self.model.speech_input, Unified):
                raise UsageError("this model hears, and was given a text: only one whose speech input is unified reads")
            return
        wave = wave_or_mel.dim() == 1
        if not wave and self.processor.reads == "wave":
            raise UsageError("this model hears waveforms, and was given a mel")
        if not wave and wave_or_mel.shape[1] != self.spec.n_mels:
            raise UsageError(f"a mel of {wave_or_mel.shape[1]} bins, and the model's has {self.spec.n_mels}")
        seconds = len(wave_or_mel) / (self.spec.rate if wave else self.spec.frame_rate)
        if task == "continue" and seconds < self.prompt_seconds:
            raise UsageError(f"{seconds:.2f} s of speech, and this model goes on after {self.prompt_seconds:g} s: give a longer prompt")
        if task == "answer" and not SHORTEST <= seconds <= self.model.config.max_seconds:
            raise UsageError(f"a question of {seconds:.2f} s: between {SHORTEST:g} and {self.model.config.max_seconds:g} s can be answered")
        if wave and float(wave_or_mel.abs().max()) < SILENT:
            raise UsageError("nothing but silence")

    def reply(
        self,
        waves_or_mels: Sequence[Tensor],
        task: Task,
        *,
        speak: bool = True,
        temperature: float = 1.0,
        seed: int = 0,
        max_seconds: float | None = None,
    ) -> list[Reply]:
        """A reply to each wave_S at the spec's rate, or mel_TM of the spec. Of `continue` the first `prompt_seconds` are heard, whatever follows.

        speak: False for text alone. temperature, seed, max_seconds: of the speech, see Speaker; the text is the most probable one. Raises UsageError.
        """
        drafts = [self._draft(one, task) for one in waves_or_mels]
        self._hear(drafts, task, max_seconds)
        self._answer(drafts, task, max_seconds)
        aloud = [draft for draft in drafts if speak and self.speaks and draft.aloud]
        prompts = [self._prompt(draft, task, seed, max_seconds) for draft in aloud]
        spoken = dict(zip(map(id, aloud), speak_all(self.model, prompts, temperature, self.fitting), strict=True))
        return [Reply(draft.heard, draft.said, spoken.get(id(draft)), draft.reason) for draft in drafts]

    def stream(
        self,
        one: Tensor,
        task: Task,
        *,
        speak: bool = True,
        temperature: float = 1.0,
        seed: int = 0,
        max_seconds: float | None = None,
    ) -> Iterator[Event]:
        """`reply` to one, each stage as soon as it is there; the whole is `last` afterwards."""
        draft = self._draft(one, task)
        self._hear([draft], task, max_seconds)
        yield Event("heard", draft.heard)
        self._answer([draft], task, max_seconds)
        yield Event("said", draft.said)
        spoken = None
        if speak and self.speaks and draft.aloud:
            pieces = speak_streaming(self.model, self._prompt(draft, task, seed, max_seconds), temperature)
            while True:
                try:
                    yield Event("mel", mel_TM=next(pieces))
                except StopIteration as end:
                    spoken = end.value
                    break
        self.last = Reply(draft.heard, draft.said, spoken, draft.reason)

    # --- text ------------------------------------------------------------------------------------------------------------------------------

    def _draft(self, wave_or_mel: Tensor, task: Task) -> _Draft:
        self.check(wave_or_mel, task)
        if not wave_or_mel.is_floating_point():
            return _Draft(wave_or_mel, [])
        samples = round(self.prompt_seconds * self.spec.rate)
        if wave_or_mel.dim() == 1:
            return _Draft(self.processor.features([wave_or_mel[:samples] if task == "continue" else wave_or_mel])[0], [])
        return _Draft(wave_or_mel[: self.spec.frames(samples)].float() if task == "continue" else wave_or_mel.float(), [])

    def _hear(self, drafts: Sequence[_Draft], task: Task, max_seconds: float | None) -> None:
        """What was heard; of `continue` with all that follows, which is one text."""
        if task == "answer" and self.outright:
            repeats = "repeat" in self.model.config.prompts
            for draft, found, _ in self._write(drafts, "repeat", [self._limit(self._seconds(draft)) for draft in drafts]) if repeats else ():
                draft.heard = self.processor.text(found.tokens)
            return
        if task == "answer":
            between = self._separator()
            for draft, found, _ in self._write(drafts, task, [self._limit(self._seconds(draft)) for draft in drafts], between[:1]):
                draft.heard, draft.ids, draft.reason = self.processor.text(found.tokens), [*found.tokens, *between], found.finish_reason
            return
        most = self.model.config.max_seconds if max_seconds is None else self.prompt_seconds + max_seconds
        for draft, found, heard in self._write(drafts, task, [self._limit(most)] * len(drafts)):
            draft.ids, draft.own, draft.reason = found.tokens, len(found.tokens), found.finish_reason
            text = self.processor.text(found.tokens)
            draft.heard, draft.said = split(text, heard)
            if self.model.ctc_head is not None and len(text.split()) > 1:
                draft.cut = self.processor.encoder(task).count(draft.heard) if _letters(heard) else 0

    def _answer(self, drafts: Sequence[_Draft], task: Task, max_seconds: float | None) -> None:
        """The answer to a question that was written."""
        if task == "continue":
            return
        limits = [self._limit(max_seconds or ANSWER_SECONDS)] * len(drafts)
        for draft, found, _ in self._write(drafts, task, limits, listens=False):
            draft.ids, draft.own, draft.reason = [*draft.ids, *found.tokens], len(found.tokens), found.finish_reason
            draft.said = self.processor.text(found.tokens)

    def _separator(self) -> list[int]:
        return self.processor.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]

    def _write(
        self, drafts: Sequence[_Draft], task: Task | Literal["repeat"], limits: Sequence[int], stops: Sequence[int] = (), listens: bool = True
    ) -> Iterator[tuple[_Draft, Hypothesis, str]]:
        """What follows what each has written and, where it listens, what its CTC head hears, which is a draft of that; in batches of like length."""
        asked = "instruct" if task == "answer" and self.outright else task
        encoder = self.processor.encoder(asked)
        asks = [encoder.asked(self.processor.patches(len(draft.features)), draft.ids) for draft in drafts]
        prompts = [ask.input_ids for ask in asks]

        def write(batch: list[int]) -> list[tuple[_Draft, Hypothesis, str]]:
            heard: list[list[int]] = []

            def drafts_of(logits: Tensor, frames_U: Tensor) -> list[list[int]]:
                heard.extend(self.processor.heard_by_ctc(logits, frames_U))
                return heard

            found = decode(
                self.model,
                [prompts[i] for i in batch],
                torch.cat([drafts[i].features for i in batch]).to(self.model.device),
                torch.tensor([len(drafts[i].features) for i in batch], device=self.model.device),
                [limits[i] for i in batch],
                drafter=drafts_of if listens else None,
                stops=stops,
                spread=spread_of(encoder, [asks[i] for i in batch], [len(drafts[i].ids) for i in batch]),
            )
            return [(drafts[i], found[place], self.processor.text(heard[place]) if heard else "") for place, i in enumerate(batch)]

        lengths = list(map(len, prompts))
        for batch in by_length(lengths, batch_budget(None)):
            yield from self.fitting(write, batch, [lengths[i] for i in batch])

    def _limit(self, seconds: float) -> int:
        return token_limit(seconds, self.processor.tokens_per_second)

    def _seconds(self, draft: _Draft) -> float:
        if not draft.features.is_floating_point():
            return len(draft.features) / self.processor.tokens_per_second  # of a text: a token a character at the worst
        return len(draft.features) / (self.spec.rate if self.processor.reads == "wave" else self.spec.frame_rate)

    # --- speech ----------------------------------------------------------------------------------------------------------------------------

    def _prompt(self, draft: _Draft, task: Task, seed: int, max_seconds: float | None) -> Prompt:
        """All that is read before the first patch is said."""
        encoder = self.processor.encoder(task)
        taught = encoder(Utterance("", ()), self.processor.patches(len(draft.features)), draft.ids, steps=1, heard=draft.cut)
        ids, positions = taught.input_ids[:-1], taught.positions and taught.positions[:-1]
        first = taught.positions[-1] if taught.positions else None
        config, stride = self.model.config, self.model.speech_output.stride
        before = encoder.lead if draft.cut is None else config.spoken_pace * draft.cut  # what was heard is written as well
        steps = max(0.0, config.spoken_pace * draft.own - before) / taught.speed
        guard = Guard(self.spec, stride, steps, config.spoken_level, max_seconds)
        example = Example(ids, [-100] * len(ids), positions=positions, speed=taught.speed)
        return Prompt(example, seed_of(seed, *draft.ids), guard, heard=draft.features, first=first)


def split(text: str, heard: str) -> tuple[str, str]:
    """A text cut where its beginning is nearest in letters to what was heard of it; all of it and nothing where nothing was heard."""
    words, target = text.split(), _letters(heard)
    if not target:
        return text, ""
    costs = [Levenshtein.distance(_letters("".join(words[:count])), target) for count in range(len(words) + 1)]
    count = costs.index(min(costs))
    return " ".join(words[:count]), " ".join(words[count:])


def _letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())
