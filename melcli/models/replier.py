"""A model that hears speech and replies: it writes what it heard and what it says to that, and says it, each as soon as it is there.

Shapes: S samples, T mel frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.models.speaker import Spoken

Task = Literal["continue", "answer"]


@dataclass(frozen=True, slots=True)
class Reply:
    """heard: the transcript of the prompt, or the question. said: what follows it, or the answer, in text; empty where nobody can tell it from what
    was heard. spoken: None where nothing is said aloud. text_reason: why the text ended, `eos`, `length` or `repetition`."""

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


class Replier:
    """spec: of its mel. speaks: whether it says replies aloud. tasks: those of `continue` and `answer` that it has learnt."""

    spec: MelSpec
    speaks: bool
    tasks: tuple[str, ...]

    @classmethod
    def load(cls, name: str, *, device: str = "auto", dtype: str = "auto", offline: bool = False) -> Replier:
        """The model of a registered name, folder or hub id. Raises CheckpointError, also for one that does neither, and UsageError."""
        raise NotImplementedError

    def check(self, wave_or_mel: Tensor, task: Task) -> None:
        """Raises UsageError for what cannot be replied to: a task that it has not learnt, a prompt that is too short, silence."""
        raise NotImplementedError

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
        """A reply to each wave_S at the spec's rate, or mel_TM of the spec. Of `continue` the first `prompt_seconds` are heard.

        speak: False for text alone. temperature, seed, max_seconds: of the speech, see Speaker.
        """
        raise NotImplementedError

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
        """`reply` to one, each stage as soon as it is there; `last` is the whole afterwards."""
        raise NotImplementedError
