"""What a log-mel spectrogram is: every number that changes its values, in one frozen object.

A MelSpec travels with every checkpoint and every feature shard, and two that differ are never mixed.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from melcli.errors import ConfigError, nearest


class MelSpec(BaseModel):
    """The recipe from waveform to log-mel frames.

    A frame is `win_length` samples, `hop_length` apart: optional pre-emphasis, window, `waveform_scale`, FFT of `n_fft`, magnitude to the
    `power`, triangular filters, floor, logarithm, and last `(x + shift) * scale`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rate: int = Field(gt=0, le=1_000_000, description="samples a second")
    n_fft: int = Field(gt=0, le=1 << 16, description="FFT length in samples")
    win_length: int = Field(gt=0, description="window length in samples, at most n_fft")
    hop_length: int = Field(gt=0, le=1 << 16, description="samples from one frame to the next")
    n_mels: int = Field(gt=0, le=1024, description="mel bins")
    f_min: float = Field(0.0, ge=0, description="lower edge of the first filter in Hz")
    f_max: float = Field(gt=0, description="upper edge of the last filter in Hz")
    mel_scale: Literal["htk", "kaldi", "slaney"] = Field("htk", description="kaldi is htk with triangles that are straight in mel, not in Hz")
    mel_norm: Literal["none", "slaney"] = Field("none", description="slaney: every filter has the same area in Hz")
    power: Literal[1, 2] = Field(2, description="1 is magnitude, 2 is power")
    magnitude_epsilon: float = Field(0.0, ge=0, description="added to the power before the square root of the magnitude")
    log: Literal["ln", "log10"] = Field("ln", description="the logarithm")
    floor: float = Field(1e-10, gt=0, description="mel values are raised to this before the logarithm")
    preemphasis: float = Field(0.0, ge=0, lt=1, description="x[n] - a x[n-1] inside each frame, whose first sample is its own predecessor")
    window: Literal["hann", "hamming"] = "hann"
    periodic: bool = Field(True, description="the window is one period of win_length, not symmetric")
    waveform_scale: float = Field(1.0, gt=0, description="samples in [-1, 1] are multiplied by this")
    padding: Literal["none", "center", "hop"] = Field(
        "none", description="reflected at both ends: center n_fft/2 samples, hop (n_fft - hop_length)/2, none nothing"
    )
    drop_last: bool = Field(False, description="the last frame is dropped, as Whisper does")
    dynamic_range: float | None = Field(None, gt=0, description="values are raised to the utterance's maximum less this, in log units")
    precision: Literal["single", "double"] = Field("single", description="double: as if computed in float64, to 1e-3 in the logarithm")
    shift: float = Field(0.0, description="added after the logarithm")
    scale: float = Field(1.0, gt=0, description="multiplied after the shift")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is more than n_fft {self.n_fft}")
        if not self.f_min < self.f_max <= self.rate / 2:
            raise ValueError(f"f_min {self.f_min:g} and f_max {self.f_max:g} must satisfy 0 <= f_min < f_max <= {self.rate / 2:g} (half the rate)")
        if self.padding == "hop" and self.hop_length > self.n_fft:
            raise ValueError(f"hop_length {self.hop_length} is more than n_fft {self.n_fft}, which padding=hop cannot have")
        return self

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.rate / self.hop_length

    @property
    def fft_pad(self) -> int:
        """Samples reflected at each end in front of the FFT frame."""
        return {"none": 0, "center": self.n_fft // 2, "hop": (self.n_fft - self.hop_length) // 2}[self.padding]

    @property
    def reflected(self) -> int:
        """Samples reflected at each end in front of the window: a window shorter than the FFT sits in the middle, as in torch.stft."""
        return max(0, self.fft_pad - self._margin)

    @property
    def skipped(self) -> int:
        """Samples at the start that no window reaches."""
        return max(0, self._margin - self.fft_pad)

    @property
    def _margin(self) -> int:
        return 0 if self.padding == "none" else (self.n_fft - self.win_length) // 2

    @property
    def span(self) -> int:
        """Samples of the padded waveform that a frame needs to exist."""
        return self.win_length if self.padding == "none" else self.n_fft

    def frames(self, samples: int) -> int:
        """How many frames a waveform of so many samples has; 0 where it is shorter than one window."""
        if samples < self.win_length:
            return 0
        return (samples + 2 * self.fft_pad - self.span) // self.hop_length + 1 - self.drop_last

    def samples(self, frames: int) -> int:
        """The fewest samples that have so many frames."""
        if frames <= 0:
            return 0
        return max(self.win_length, (frames - 1 + self.drop_last) * self.hop_length + self.span - 2 * self.fft_pad)

    def difference(self, other: MelSpec) -> str | None:
        """What differs, as 'hop_length 160 is not 256, ...', or None for equal specifications."""
        fields = type(self).model_fields
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in fields)
        return ", ".join(f"{name} {mine} is not {theirs}" for name, mine, theirs in pairs if mine != theirs) or None

    def fingerprint(self) -> str:
        """16 hex digits that are the same for equal specifications, on every machine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def _whisper(n_mels: int) -> MelSpec:
    return MelSpec(
        rate=16000,
        n_fft=400,
        win_length=400,
        hop_length=160,
        n_mels=n_mels,
        f_max=8000,
        mel_scale="slaney",
        mel_norm="slaney",
        log="log10",
        floor=1e-10,
        padding="center",
        drop_last=True,
        dynamic_range=8.0,
        shift=4.0,
        scale=0.25,
    )


PRESETS: dict[str, MelSpec] = {
    # Phi-4-multimodal (METHODS B.1; transformers' Phi4MultimodalFeatureExtractor)
    "phi4mm": MelSpec(
        rate=16000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=80,
        f_max=7690,
        mel_scale="kaldi",
        log="ln",
        floor=1.0,
        preemphasis=0.97,
        window="hamming",
        periodic=False,
        waveform_scale=32768,
        precision="double",
    ),
    # OpenAI Whisper (transformers' WhisperFeatureExtractor), without its padding to 30 s
    "whisper-80": _whisper(80),
    "whisper-128": _whisper(128),
    # microsoft/speecht5_hifigan (transformers' SpeechT5FeatureExtractor)
    "speecht5": MelSpec(
        rate=16000,
        n_fft=1024,
        win_length=1024,
        hop_length=256,
        n_mels=80,
        f_min=80,
        f_max=7600,
        mel_scale="slaney",
        mel_norm="slaney",
        power=1,
        log="log10",
        floor=1e-10,
        padding="center",
        precision="double",
    ),
    # charactr/vocos-mel-24khz (vocos 0.1.0)
    "vocos-24k": MelSpec(
        rate=24000,
        n_fft=1024,
        win_length=1024,
        hop_length=256,
        n_mels=100,
        f_max=12000,
        mel_scale="htk",
        power=1,
        log="ln",
        floor=1e-7,
        padding="center",
    ),
    # nvidia/bigvgan_v2_22khz_80band_fmax8k_256x (bigvgan 2.4.1)
    "bigvgan-22k": MelSpec(
        rate=22050,
        n_fft=1024,
        win_length=1024,
        hop_length=256,
        n_mels=80,
        f_max=8000,
        mel_scale="slaney",
        mel_norm="slaney",
        power=1,
        magnitude_epsilon=1e-9,
        log="ln",
        floor=1e-5,
        padding="hop",
    ),
    # nvidia/bigvgan_v2_24khz_100band_256x; and UnivNet (transformers' UnivNetFeatureExtractor) before it scales
    "bigvgan-24k": MelSpec(
        rate=24000,
        n_fft=1024,
        win_length=1024,
        hop_length=256,
        n_mels=100,
        f_max=12000,
        mel_scale="slaney",
        mel_norm="slaney",
        power=1,
        magnitude_epsilon=1e-9,
        log="ln",
        floor=1e-5,
        padding="hop",
    ),
}


def preset(name: str) -> MelSpec:
    """The named specification. Raises ConfigError, with the nearest name, for one that does not exist."""
    if name not in PRESETS:
        raise ConfigError(f"unknown mel preset '{name}'; there are {', '.join(PRESETS)}.{nearest(name, PRESETS)}")
    return PRESETS[name]
