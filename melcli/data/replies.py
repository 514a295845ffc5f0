"""Speech that is heard and speech that follows it: an utterance cut in two, or a question and its answer.

Shapes: T mel frames, M mel bins, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.features import BLOCK, ShardFeatures, WaveFeatures
from melcli.data.silence import Trim, kept
from melcli.data.utterance import Utterance
from melcli.data.written import question_and_answer
from melcli.errors import AudioError

LEAST_SECONDS = 0.1  # that follow the prompt, for something to be said
KEPT_NUMBERS = 100_000_000  # of mels of answers that were synthesised, two bytes each
TASKS = ("continue", "answer")
WITHOUT_ANSWER = "without an answer"  # a reason to leave an utterance out


class ReplyFeatures:
    """Base: utterances that are heard and, where they have it, speech that is said after each.

    `frames` are those heard, `said` those to be said, 0 where there are none. `pair` gives both, `get` what is heard alone. generator: draws the
    augmentation of what is heard; what is to be said stays as it is, but for the silence that trim cuts.
    """

    utterances: Sequence[Utterance]
    frames: Sequence[int]
    said: Sequence[int]

    def __init__(self, source: WaveFeatures | ShardFeatures, spec: MelSpec, trim: Trim | None) -> None:
        self.source = source
        self.spec = spec
        self.trim = trim
        self.utterances = source.utterances

    def pair(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        """heard, [T, M] or samples [S, 1] where the model reads them, and mel_TM to be said, None where nothing is."""
        raise NotImplementedError

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        return self.pair(index, generator)[0]

    def block(self, index: int) -> int:
        return self.source.block(index) if isinstance(self.source, ShardFeatures) else index // BLOCK

    def ahead(self, indices: Iterable[int]) -> None:
        if isinstance(self.source, ShardFeatures):
            self.source.ahead(indices)

    def _trimmed(self, mel_TM: Tensor) -> Tensor:
        return mel_TM if self.trim is None else mel_TM[kept(self.spec, mel_TM, self.trim)]


class Continued(ReplyFeatures):
    """Utterances cut after so many seconds: the model hears what is before, and goes on. speaks: False where it goes on in text alone."""

    def __init__(self, source: WaveFeatures | ShardFeatures, spec: MelSpec, seconds: float, *, speaks: bool = True, trim: Trim | None = None) -> None:
        super().__init__(source, spec, trim)
        self.speaks = speaks
        self.samples, self.cut = round(seconds * spec.rate), round(seconds * spec.frame_rate)
        if isinstance(source, WaveFeatures):
            heard = self.samples if source.reads == "wave" else spec.frames(self.samples)
            said = [spec.frames(max(n - self.samples, spec.span)) for n in source.samples]
        else:
            heard, said = self.cut, [max(1, n - self.cut) for n in source.frames]
        self.frames = [heard] * len(source.utterances)
        self.said = said if speaks else [0] * len(said)

    def pair(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.source, WaveFeatures):
            wave_S = self.source.wave(index)
            first_S, rest_S = wave_S[: self.samples], wave_S[self.samples :]
            if len(rest_S) < self.spec.hop_length:
                raise AudioError(f"{self.utterances[index].id}: {len(wave_S) / self.spec.rate:.2f} s, nothing follows the prompt")
            heard = self.source.features(first_S, generator)
            said = WaveFeatures.mel(self.spec, rest_S) if self.speaks else None
        else:
            mel_TM = self.source.get(index, None)
            heard, said = mel_TM[: self.cut], mel_TM[self.cut :] if self.speaks else None
            if len(mel_TM) <= self.cut:
                raise AudioError(f"{self.utterances[index].id}: {len(mel_TM)} frames, nothing follows the prompt")
        return heard, None if said is None else self._trimmed(said)


class Answered(ReplyFeatures):
    """Questions, and the recordings of their answers (`answer_audio` of a row) where there are such. speaks: False to leave those alone."""

    def __init__(self, source: WaveFeatures | ShardFeatures, spec: MelSpec, *, speaks: bool = True, trim: Trim | None = None) -> None:
        super().__init__(source, spec, trim)
        self.frames = source.frames
        self.answers = WaveFeatures([spoken_answer(u) or Utterance("", (), duration=0.0) for u in source.utterances], spec)
        self.said = [n if speaks and u.audio else 0 for u, n in zip(self.answers.utterances, self.answers.frames, strict=True)]
        self._kept: dict[int, Tensor] = {}
        self._room = KEPT_NUMBERS

    def pair(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor | None]:
        heard = self.source.get(index, generator)
        return heard, self._trimmed(self._answer(index)) if self.said[index] else None

    def _answer(self, index: int) -> Tensor:
        """Its mel; of one that a synthesiser would have to make anew each time, kept."""
        if index in self._kept:
            return self._kept[index].float()
        mel_TM = self.answers.get(index, None)
        if self.answers.utterances[index].audio[0].startswith("synth:") and self._room >= mel_TM.numel():
            self._kept[index] = mel_TM.half()
            self._room -= mel_TM.numel()
            return self._kept[index].float()
        return mel_TM


def spoken_answer(utterance: Utterance) -> Utterance | None:
    """The recording of its answer: `answer_audio`, of `answer_duration` seconds where that is told."""
    audio, seconds = utterance.extra.get("answer_audio"), utterance.extra.get("answer_duration")
    if not audio:
        return None
    return Utterance(f"{utterance.id}-answer", (str(audio),), duration=float(seconds) if isinstance(seconds, int | float) else None)


def with_answer(utterance: Utterance, answer: str) -> Utterance:
    """The same utterance with the text of its answer replaced."""
    return utterance if utterance.extra.get("answer") == answer else replace(utterance, extra={**utterance.extra, "answer": answer})


def reply_features(
    task: str, source: WaveFeatures | ShardFeatures, spec: MelSpec, seconds: float, *, speaks: bool, trim: Trim | None
) -> ReplyFeatures:
    """What a task with speech at both ends hears and says of a source of what it hears."""
    if task == "continue":
        return Continued(source, spec, seconds, speaks=speaks, trim=trim)
    return Answered(source, spec, speaks=speaks, trim=trim)


def unfit(utterance: Utterance, task: str, seconds: float) -> str | None:
    """Why an utterance cannot be used for such a task, or None."""
    if task == "continue" and utterance.duration is not None and utterance.duration < seconds + LEAST_SECONDS:
        return f"no longer than data.prompt_seconds {seconds:g}"
    if task == "answer" and not question_and_answer(utterance)[1].strip():
        return WITHOUT_ANSWER
    return None
