"""A model that replies, small enough to read: it knows recordings by their seconds, and speaks as tests/fake_speaker.py does.

Of a recording it does not know it says how long it is. Said "nothing aloud", it has no speech; said "runaway", its voice is never over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.errors import CheckpointError, UsageError
from tests.fake_speaker import FakeSpeaker


@dataclass
class FakeReplier:
    """knows: seconds to (heard, said). asked: the options of each call. loaded: those of each loading."""

    spec: MelSpec = PRESETS["speecht5"]
    speaks: bool = True
    tasks: tuple[str, ...] = ("continue", "answer")
    prompt_seconds: float = 3.0
    temperature: float = 1.0
    knows: dict[float, tuple[str, str]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[dict[str, Any]] = field(default_factory=list)
    last: Any = None

    def load(self, name: str, **options: Any) -> FakeReplier:
        if name == "listener":
            raise CheckpointError(f"--model {name}: this model transcribes; it learnt neither continue nor answer")
        self.loaded.append({"model": name, **options})
        return self

    def check(self, wave_S: Tensor, task: str) -> None:
        seconds = len(wave_S) / self.spec.rate
        if task == "continue" and seconds < self.prompt_seconds:
            raise UsageError(f"{seconds:.2f} s of speech, and this model goes on after {self.prompt_seconds:g} s: give a longer prompt")
        if round(seconds, 1) == 6.6:
            raise UsageError("this model does not like 6.6 s")

    def reply(self, waves: Sequence[Tensor], task: str, *, speak: bool, **options: Any) -> list[SimpleNamespace]:
        self.asked.append({"task": task, "speak": speak, "count": len(waves), **options})
        return [self._reply(wave_S, speak, **options) for wave_S in waves]

    def stream(self, wave_S: Tensor, task: str, *, speak: bool, **options: Any) -> Iterator[SimpleNamespace]:
        self.asked.append({"task": task, "speak": speak, "count": "stream", **options})
        self.last = self._reply(wave_S, speak, **options)
        yield SimpleNamespace(kind="heard", text=self.last.heard)
        yield SimpleNamespace(kind="said", text=self.last.said)
        for mel_TM in self.last.spoken.mel_TM.split(7) if self.last.spoken else ():
            yield SimpleNamespace(kind="mel", mel_TM=mel_TM)

    def _reply(self, wave_S: Tensor, speak: bool, temperature: float, seed: int, max_seconds: float | None) -> SimpleNamespace:
        seconds = round(len(wave_S) / self.spec.rate, 1)
        heard, said = self.knows.get(seconds, (f"it lasts {seconds:g} seconds", "so it does"))
        reason = "repetition" if "again and again" in said else "eos"
        spoken = None
        if speak and self.speaks and said != "nothing aloud":
            (spoken,) = FakeSpeaker(alphabet="abcdefghijklmnopqrstuvwxyz' ,.?!0123456789").speak([said or heard], temperature=temperature, seed=seed)
            frames = None if max_seconds is None else round(max_seconds * self.spec.frame_rate)
            spoken.mel_TM = spoken.mel_TM[:frames]
        return SimpleNamespace(heard=heard, said=said, spoken=spoken, text_reason=reason)
