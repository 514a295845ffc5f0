"""Silence of speech that is learnt to be said: found by the level of its mel frames, cut at both ends, and shortened inside.

A voice that learns from long silences falls silent itself, and does not come back.
Shapes: T mel frames, M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.features import FeatureSource


class Trim(BaseModel):
    """What counts as silence and how much of it stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    below: float = Field(40.0, gt=0, description="dB under the loudest frame of an utterance from which a frame is silent")
    keep: float = Field(0.1, ge=0, description="seconds of silence left at either end")
    pause: float | None = Field(None, gt=0, description="seconds that a silence inside may last; longer ones lose their middle")


def level(spec: MelSpec, mel_TM: Tensor) -> Tensor:
    """Level of each frame in dB: of the power in all bins together, on the scale of the spec's waveform."""
    power_TM = decibels(spec, mel_TM) * (math.log(10) / 10)
    return torch.logsumexp(power_TM, -1) * (10 / math.log(10))


def decibels(spec: MelSpec, mel_TM: Tensor) -> Tensor:
    """Mel values as dB of power."""
    log10_TM = (mel_TM.float() / spec.scale - spec.shift) * (math.log10(math.e) if spec.log == "ln" else 1.0)
    return log10_TM * (20.0 / spec.power)


def decibels_each(spec: MelSpec) -> float:
    """dB that a difference of one in mel values is."""
    return (20.0 / spec.power) * (math.log10(math.e) if spec.log == "ln" else 1.0) / spec.scale


def kept(spec: MelSpec, mel_TM: Tensor, trim: Trim) -> Tensor:
    """True for the frames that stay; all of them where nothing is loud."""
    level_T = level(spec, mel_TM)
    loud = torch.nonzero(level_T > level_T.max() - trim.below)[:, 0]
    stays_T = torch.zeros(len(mel_TM), dtype=torch.bool)
    margin = round(trim.keep * spec.frame_rate)
    stays_T[max(0, int(loud[0]) - margin) : int(loud[-1]) + 1 + margin] = True
    if trim.pause is not None:
        most = max(1, round(trim.pause * spec.frame_rate))
        for before, after in zip(loud[:-1].tolist(), loud[1:].tolist(), strict=True):
            if after - before - 1 > most:
                stays_T[before + 1 + (most + 1) // 2 : after - most // 2] = False
    return stays_T


class TrimmedFeatures:
    """A source of mel features without their silence. `frames` are those before it is cut, which reading alone can tell."""

    def __init__(self, source: FeatureSource, spec: MelSpec, trim: Trim) -> None:
        self.source = source
        self.spec = spec
        self.trim = trim
        self.utterances = source.utterances
        self.frames = source.frames

    def get(self, index: int, generator: torch.Generator | None) -> Tensor:
        mel_TM = self.source.get(index, generator)
        return mel_TM[kept(self.spec, mel_TM, self.trim)]

    def block(self, index: int) -> int:
        block = getattr(self.source, "block", None)
        return index // 256 if block is None else block(index)

    def ahead(self, indices: Iterable[int]) -> None:
        if hasattr(self.source, "ahead"):
            self.source.ahead(indices)
