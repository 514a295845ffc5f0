"""The recipe of a unified encoder's training: what `melcli train` runs where a recipe has a `unified:`."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from melcli.config import Config
from melcli.steps_recipe import StepsRecipe, StepsSource, StepsTraining


class SpeechBranch(Config):
    """What hears: a speech input and a transformer whose positions all see each other."""

    init: str | None = Field(
        None,
        description="a speech model of ours (name, folder or hub id) whose speech input and layers the branch begins as; instead of the other two",
    )
    input: dict[str, Any] | None = Field(None, description="kind and options of the speech input, see `melcli models ls --kind speech-input`")
    backbone: dict[str, Any] | None = Field(None, description="a transformers config (model_type and its fields), trained from scratch")
    frozen: bool = Field(
        False, description="leave what `init` brings as it is and train what stands on top alone; its states are then kept in memory"
    )

    @model_validator(mode="after")
    def _one_start(self) -> SpeechBranch:
        if (self.init is None) == (self.input is None) or (self.input is None) != (self.backbone is None):
            raise ValueError("speech needs either init, a model to begin from, or both input and backbone")
        if self.frozen and self.init is None:
            raise ValueError("speech.frozen is for a branch that begins from a model: give speech.init")
        return self


class TextBranch(Config):
    """What reads: an embedding of characters and a transformer whose positions all see each other."""

    backbone: dict[str, Any] = Field(description="a transformers config (model_type and its fields), trained from scratch")


class UnifiedSizes(Config):
    """Sizes of what the two branches end in, each on its own weights: attention pooling into a few vectors of one space."""

    vectors: int = Field(1, ge=1, description="vectors of an utterance; the k-th looks at about its k-th part")
    width: int = Field(256, ge=4, description="numbers in a vector")
    hidden: int = Field(256, ge=8, description="width of the pooling")
    heads: int = Field(4, ge=1, description="of the pooling's attention")

    @model_validator(mode="after")
    def _heads(self) -> UnifiedSizes:
        if self.hidden % self.heads:
            raise ValueError(f"heads {self.heads} does not divide hidden {self.hidden}")
        return self


class UnifiedSection(UnifiedSizes):
    mel: str = Field("phi4mm", description="preset of the mel that the speech branch reads; with speech.init that model's, whatever is said here")
    speech: SpeechBranch
    text: TextBranch


class UnifiedData(Config):
    """Speech with its text."""

    root: str = Field("data", description="folder that holds the corpora")
    train: tuple[StepsSource, ...] = Field(min_length=1)
    eval: tuple[StepsSource, ...] = Field((), description="pairs that retrieval is measured on")
    text: str = Field("plain", description="normaliser applied to the text")
    min_seconds: float = Field(0.1, ge=0)
    max_seconds: float = Field(20.0, gt=0, description="longer utterances are left out, counted and said")
    spec_augment: dict[str, Any] | None = Field(None, description="options of melcli.audio.augment.SpecAugment; not where the branch is frozen")


class UnifiedTraining(StepsTraining):
    batch: int = Field(256, ge=2, description="pairs a step, each the others' counter-example")
    alike: int = Field(4, ge=1, description="a batch is taken, by length, out of so many batches drawn: the more alike, the harder to tell apart")
    temperature: float = Field(0.07, gt=0, description="of the contrastive softmax where training begins; it is learnt")
    align: float = Field(0.0, ge=0, description="weight of the distance between a pair's vectors, 1 - cosine, against the gap between the modalities")
    spelling: float = Field(
        0.0, ge=0, description="weight of a CTC loss by which the vectors of both branches spell the text through one head, so that they keep it"
    )
    spelling_rate: int = Field(4, ge=1, description="CTC frames a vector; vectors x rate bounds the characters that can be spelt")
    eval_limit: int = Field(500, gt=0, description="pairs a source")


class UnifiedRecipe(StepsRecipe):
    """A unified encoder's training. `melcli train RECIPE key.sub=value` overrides any field by its dotted name."""

    what = "unified encoder"

    data: UnifiedData
    unified: UnifiedSection
    train: UnifiedTraining
