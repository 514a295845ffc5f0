"""What the recipes of a vocoder and of a unified encoder share: trainings whose loop is melcli/training/steps.py."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from melcli.config import Config


class StepsSource(Config):
    """One source of recordings: a manifest, folder, corpus or synthetic speech (`synth:en?hours=2`)."""

    source: str = Field(description="what to read; relative paths are looked up from data.root, then from the working directory")
    repeat: float = Field(1.0, gt=0, description="how often what it holds is drawn, beside the other sources' 1")


class StepsTraining(Config):
    """The optimiser (AdamW), its schedule, and how often is measured, saved and said. What a batch holds is each training's own."""

    steps: int = Field(gt=0, description="optimiser steps")
    lr: float = Field(1e-3, gt=0)
    warmup: int = Field(100, ge=0, description="steps")
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = Field(1.0, gt=0)
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="autocast type; auto takes bfloat16 where the hardware multiplies it")
    weights: Literal["float32", "bfloat16", "float16"] = Field("float32", description="number format of the weights on disk")
    eval_every: int = Field(500, gt=0)
    save_every: int = Field(500, gt=0)
    keep: int = Field(2, ge=1, description="checkpoints kept")
    log_every: int = Field(20, gt=0)
    log_to: tuple[Literal["tensorboard"], ...] = ("tensorboard",)


class StepsRecipe(Config):
    """Base of both recipes, which add `data` and a `train` of StepsTraining. what: that they make, without its article, which is `a`."""

    what: ClassVar[str]

    name: str
    summary: str = ""
    seed: int = 0
