"""Speech outputs: what turns states of the language model into mel frames, and frames into what it reads.

A stretch of speech is said in patches of `stride` frames. Each is predicted from the state before it, and the state after the last predicts the end
(models/spoken_layout.py). In training all utterances of a batch lie end to end, without padding; when speaking there is one patch a row.
Shapes: U utterances, F frames of all, M mel bins, P patches of all, S states (P + U), X numbers a patch, N rows, T frames of one utterance, D model
width.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from melcli.audio.mel_spec import MelSpec
from melcli.errors import ConfigError, nearest
from melcli.models.noise import Noise
from melcli.models.postnet import Windowed


@dataclass(frozen=True, slots=True)
class Said:
    """A patch for each row: patch_NX in the form that the output reads and renders; stop_N: probability that nothing more is said, the patch left
    out, and end_N: whether it is so; std_N: mean standard deviation of what the patch was drawn from, None where there is no such thing."""

    patch_NX: Tensor
    stop_N: Tensor
    end_N: Tensor
    std_N: Tensor | None = None


class SpeechOutput(nn.Module):
    """Base of all speech outputs.

    stride: frames a patch. parts: names of the losses. context: frames on either side that `polish` looks at.
    """

    stride: int
    parts: tuple[str, ...] = ()
    context: int = 0

    def steps(self, frames: int) -> int:
        """Patches of so many frames."""
        return -(-frames // self.stride)

    def bind(self, spec: MelSpec) -> None:
        """Told the mel that frames have. Raises ConfigError for one that cannot be said."""

    def raised(self, mel_FM: Tensor) -> Tensor:
        """Frames as the output knows them: one that has a floor knows nothing below it."""
        return mel_FM

    def measure(self, mels: Sequence[Tensor]) -> None:
        """Take what is fixed before training from a sample mel_TM of the data: statistics, a codebook."""

    def embed(self, mel_FM: Tensor, frames_U: Tensor, noise: Noise) -> Tensor:
        """What the model reads of speech that is given: x_PD."""
        raise NotImplementedError

    def counted(self, frames_U: Tensor) -> dict[str, int]:
        """What else than frames and states the losses are divided by, of utterances of so many frames; the same names for any."""
        return {}

    def losses(self, h_SD: Tensor, mel_FM: Tensor, frames_U: Tensor, counts: Mapping[str, Tensor | int], noise: Noise) -> dict[str, Tensor]:
        """Each of `parts`, unweighted. counts: what sums are divided by, the `frames` and the `states` of the whole optimiser step, and
        what `counted` gives where it is known."""
        raise NotImplementedError

    def weights(self, step: int | None) -> dict[str, float]:
        """Of the losses at a step of the training; None for the end of it."""
        raise NotImplementedError

    def say(self, h_ND: Tensor, noise: Noise, temperature: float = 1.0) -> Said:
        """The patch that follows each state. temperature scales what is drawn; at 0 it is the mean."""
        raise NotImplementedError

    def read(self, patch_NX: Tensor, noise: Noise) -> Tensor:
        """What the model reads of patches that it said: x_ND."""
        raise NotImplementedError

    def frames(self, patches_PX: Tensor) -> Tensor:
        """The frames of one utterance's patches, [P x stride, M], in the units of the mel specification, unpolished."""
        raise NotImplementedError

    def polish(self, mel_TM: Tensor) -> Tensor:
        """The frames of one utterance as they are heard in the end; each depends on `context` frames to either side."""
        return mel_TM

    def stream(self) -> Windowed:
        """`polish` for frames that come one after another."""
        return Windowed(self.polish, self.context)


def speech_output_class(options: dict[str, Any]) -> tuple[type[SpeechOutput], dict[str, Any]]:
    """The class that `options` names by `kind`, and its own fields. Raises ConfigError."""
    from melcli import registry

    fields = dict(options)
    kind = fields.pop("kind", None)
    if not kind:
        raise ConfigError(f"model.speech_output.kind is missing; valid: {', '.join(registry.names('speech-output'))}")
    cls = registry.get("speech-output", kind).load()
    valid = [name for name in inspect.signature(cls).parameters if name not in ("width", "n_mels")]
    for name in fields:
        if name not in valid:
            raise ConfigError(f"model.speech_output.{name} is unknown for {kind}; valid: {', '.join(valid)}.{nearest(name, valid)}")
    return cls, fields


def build_speech_output(options: dict[str, Any], width: int, n_mels: int) -> SpeechOutput:
    """The speech output that `options` names (`kind` and its own fields), for a model of this width. Raises ConfigError."""
    cls, fields = speech_output_class(options)
    return cls(width, n_mels, **fields)


def check_numbers(least: float, *, below: float | None = None, whole: bool = False, **options: Any) -> None:
    """Raises ConfigError where an option, given by its name, is no number in this range."""
    for name, value in options.items():
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and value >= least
        if not right or (below is not None and value >= below):
            range_ = f"at least {least:g}" + ("" if below is None else f" and less than {below:g}")
            raise ConfigError(f"model.speech_output.{name}: {value!r} is no {'whole ' if whole else ''}number of {range_}")


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | int) -> Tensor:
    """The sum of values [P, R, M] over frames of the mask [P, R], divided by so many frames and by the numbers in each, in float32."""
    return (values.float() * mask[..., None]).sum() / (count * values.shape[-1])


def stop_loss(logit_S: Tensor, ends_S: Tensor, positive: float, count: Tensor | int) -> Tensor:
    """Binary cross entropy of whether speech is over after each state; those where it is count `positive` times."""
    weight = torch.tensor(positive, device=logit_S.device)
    return nn.functional.binary_cross_entropy_with_logits(logit_S.float(), ends_S.float(), pos_weight=weight, reduction="sum") / count
