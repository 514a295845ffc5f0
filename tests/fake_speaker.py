"""A speaker and a vocoder small enough to read, in place of models: each letter is a tone of its own, four frames long.

Of words it does not speak as others: "runaway" is never over, "broken" has NaN frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.audio.vocoder import Vocoder, refuse_other
from melcli.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class VoicePrompt:
    mel_TM: Tensor
    text: str | None = None


@dataclass(slots=True)
class Spoken:
    mel_TM: Tensor
    stop_P: Tensor
    std_P: Tensor | None
    reason: str


@dataclass
class FakeSpeaker:
    """spoken: the texts of each call. A prompt of `melcli.models.speaker.VoicePrompt` makes all tones a bin higher."""

    spec: MelSpec = PRESETS["speecht5"]
    frames_per_step: int = 2
    temperature: float = 1.0
    alphabet: str = "abcdefghijklmnopqrstuvwxyz' ,.?!"
    spoken: list[list[str]] = field(default_factory=list)
    voices: list[Any] = field(default_factory=list)
    loaded: list[dict[str, Any]] = field(default_factory=list)
    last: Spoken | None = None

    def load(self, name: str, **options: Any) -> FakeSpeaker:
        if name == "listener":
            raise CheckpointError(f"--model {name}: this model only listens; it has no speech output")
        self.loaded.append({"model": name, **options})
        return self

    def speak(self, texts: Sequence[str], *, voice: Any = None, temperature: float = 1.0, seed: int = 0) -> list[Spoken]:
        self.spoken.append(list(texts))
        self.voices.append(voice)
        return [self._speak(text, voice, temperature, seed) for text in texts]

    def stream(self, text: str, *, voice: Any = None, temperature: float = 1.0, seed: int = 0) -> Iterator[Tensor]:
        spoken = self._speak(text, voice, temperature, seed)
        self.spoken.append([text])
        yield from spoken.mel_TM.split(5)
        self.last = spoken

    def _speak(self, text: str, voice: Any, temperature: float, seed: int) -> Spoken:
        assert set(text) <= set(self.alphabet), text
        chance = torch.Generator().manual_seed(seed + sum(map(ord, text)))
        frames = 4 * len(text)
        mel_TM = torch.full((frames, self.spec.n_mels), -4.0)
        for place, letter in enumerate(text):
            if letter.isalpha():
                mel_TM[4 * place : 4 * place + 4, 10 + 2 * (ord(letter) - ord("a")) + (voice is not None)] = 0.0
        mel_TM += 0.1 * temperature * torch.randn(mel_TM.shape, generator=chance)
        if "broken" in text:
            mel_TM[3] = float("nan")
        steps = frames // self.frames_per_step
        return Spoken(mel_TM, torch.linspace(0, 1, steps), torch.full((steps,), 0.1 * temperature), "length" if "runaway" in text else "stop")


class Hum(Vocoder):
    """A hum as loud as each frame: costs nothing, and a frame sounds the same wherever it stands."""

    family = "hum"

    def __init__(self, spec: MelSpec) -> None:
        super().__init__(spec, context=1)

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> Hum:
        return cls(spec)

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        hop = self.spec.hop_length
        wave_H = torch.sin(torch.arange(hop) * (2 * torch.pi / hop))
        return (0.5 * 10 ** mel_BTM.amax(2).clamp(max=0))[:, :, None].mul(wave_H).flatten(1)


class Picky(Hum):
    """A hum that reads one mel only."""

    family = "picky"

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> Picky:
        refuse_other(cls.family, PRESETS["vocos-24k"], spec)
        return cls(spec)
