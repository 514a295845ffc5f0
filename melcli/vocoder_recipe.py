"""The recipe of a vocoder's training: what `melcli train` runs where a recipe has a `vocoder:`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from melcli.config import Config
from melcli.steps_recipe import StepsRecipe, StepsSource, StepsTraining


class VocoderSizes(Config):
    """Sizes of a tiny-vocos vocoder (melcli/audio/tiny_vocos_net.py)."""

    kind: Literal["tiny-vocos"] = "tiny-vocos"
    width: int = Field(256, ge=8, description="channels of the trunk")
    layers: int = Field(8, ge=1, description="ConvNeXt blocks of the trunk")
    pitch_width: int = Field(128, ge=8, description="channels of the pitch estimator")
    pitch_layers: int = Field(4, ge=1, description="its ConvNeXt blocks")
    kernel: int = Field(7, ge=1, description="mel frames that a block's depthwise convolution sees; odd")
    expansion: int = Field(3, ge=1, description="width of a block's inner layer, in widths")
    n_fft: int = Field(512, ge=16, description="FFT of the synthesis, in samples")
    ratio: int = Field(2, ge=1, description="synthesis frames a mel frame")


class VocoderSection(VocoderSizes):
    mel: str = Field("speecht5", description="preset of the mel that it reads")


class VocoderData(Config):
    """What is heard; text is not needed."""

    root: str = Field("data", description="folder that holds the corpora")
    train: tuple[StepsSource, ...] = Field(min_length=1)
    eval: tuple[StepsSource, ...] = Field(
        (), description="audio that goes through mel and vocoder during training; the mels before and after are compared"
    )
    gain_db: tuple[float, float] = Field((-15.0, 6.0), description="each crop is made louder or softer by so much, but never clips")

    mel_noise: float = Field(
        0.2, ge=0, description="standard deviation, in natural logarithms, of noise on the mels of half the crops: models that write mels err, too"
    )

    @model_validator(mode="after")
    def _ordered(self) -> VocoderData:
        if self.gain_db[0] > self.gain_db[1]:
            raise ValueError(f"gain_db {list(self.gain_db)} is not a range: the first is the smaller")
        return self


class LossSection(Config):
    """Weights of the losses. All spectral ones are energy distances, see melcli/training/vocoder_loss.py."""

    stft: float = Field(1.0, ge=0, description="multi-resolution STFT magnitudes")
    ffts: tuple[int, ...] = Field((2048, 1024, 512, 256), min_length=1, description="their FFT lengths; a quarter of each is the hop")
    mel: float = Field(1.0, ge=0, description="the log-mel that the vocoder reads")
    pitch: float = Field(0.2, gt=0, description="cross entropy of the pitch estimator")


class AdversarialSection(Config):
    """The adversarial stage: discriminators of periods and of resolutions, see melcli/training/discriminators.py."""

    start: int = Field(ge=0, description="step from which they train and count")
    channels: int = Field(16, ge=1, description="of their first layers; 32 in the papers")
    weight: float = Field(0.1, gt=0, description="of the generator's adversarial loss")
    features: float = Field(0.1, ge=0, description="of feature matching")
    lr: float = Field(2e-4, gt=0)


class VocoderTraining(StepsTraining):
    batch: int = Field(16, gt=0, description="crops a step")
    crop_seconds: float = Field(1.0, gt=0, description="length of a crop; shorter recordings are filled up with silence")
    warmup: int = Field(200, ge=0, description="steps")
    weight_decay: float = Field(0.01, ge=0)
    average: float = Field(
        0.999, ge=0, lt=1, description="decay of the running mean of the weights, which is what is evaluated and becomes the model"
    )
    loss: LossSection = LossSection()
    adversarial: AdversarialSection | None = Field(None, description="off by default: it makes a step several times as long")
    eval_every: int = Field(1000, gt=0)
    eval_limit: int = Field(20, gt=0, description="recordings a source")


class VocoderRecipe(StepsRecipe):
    """A vocoder's training. `melcli train RECIPE key.sub=value` overrides any field by its dotted name."""

    what = "vocoder"

    data: VocoderData
    vocoder: VocoderSection
    train: VocoderTraining
