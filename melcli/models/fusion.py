"""Several speech inputs at once, fused position by position.

Shapes: F frames (or S samples) of all utterances, M mel bins, U utterances, P patches of all utterances, D model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from melcli.audio.mel import log_mel_many
from melcli.audio.mel_spec import MelSpec
from melcli.errors import ConfigError
from melcli.models.mel_norm import GlobalNorm
from melcli.models.speech_input import SpeechInput, build_speech_input, frame_index, respace, settle_speech_input, speech_input_class
from melcli.models.subsampling import Chain, Subsampling, every, mel_step


class Fusion(SpeechInput):
    """Two or more speech inputs over the same utterances.

    inputs: `kind` and options of each. how: `concatenate` puts their vectors end to end and projects them with one linear layer; `add` sums
    them, each projected on its own. All come to the slowest one's rate: a faster one whose rate is a multiple has so many vectors stacked.
    Where one reads the waveform all are given it, and the log-mel of the others is computed here. Where inputs end at different places (filters
    reach beyond the last sample differently) the shorter counts.
    Raises ConfigError where fewer than two are given or their rates have no common multiple among them.
    """

    def __init__(self, width: int, n_mels: int, *, inputs: list[dict[str, Any]], how: str = "concatenate") -> None:
        super().__init__()
        if how not in ("concatenate", "add"):
            raise ConfigError(f"model.speech_input.how: {how!r} is not one of concatenate, add")
        _checked(inputs)
        self.inputs = nn.ModuleList(build_speech_input(options, width, n_mels) for options in inputs)
        self.kinds = [options["kind"] for options in inputs]
        self.how = how
        self.reads = "wave" if any(one.reads == "wave" for one in self.inputs) else "mel"
        self.mixed = any(one.reads != self.reads for one in self.inputs)
        self.spec: MelSpec | None = None
        self.width = width
        if not self.mixed:
            self._align()

    def _align(self) -> None:
        """Settle the rate and make what joins the inputs, once the length of a mel frame in samples is known."""
        strides = [one.stride if one.reads == self.reads else one.stride * self.spec.hop_length for one in self.inputs]
        slowest = max(strides)
        for kind, stride in zip(self.kinds, strides, strict=True):
            if slowest % stride:
                unit = "samples" if self.reads == "wave" else "frames"
                raise ConfigError(
                    f"model.speech_input.inputs: {kind} gives a position every {stride} {unit}, which does not divide the slowest input's {slowest}"
                )
        self.stacks = [slowest // stride for stride in strides]
        self.stride = slowest
        self.rule = Subsampling([self._chain(one, stack) for one, stack in zip(self.inputs, self.stacks, strict=True)])
        if self.how == "concatenate":
            self.proj = nn.Linear(sum(self.stacks) * self.width, self.width)
        else:
            self.projs = nn.ModuleList(nn.Linear(stack * self.width, self.width) if stack > 1 else nn.Identity() for stack in self.stacks)

    def _chain(self, one: SpeechInput, stack: int) -> Chain:
        before = () if one.reads == self.reads else (mel_step(self.spec),)
        return (*before, *one.subsampling.chains[0], every(stack))

    @classmethod
    def settle(cls, options: dict[str, Any], offline: bool = False) -> dict[str, Any]:
        _checked(options.get("inputs"))
        return {**options, "inputs": [settle_speech_input(one, offline) for one in options["inputs"]]}

    def load_pretrained(self, options: dict[str, Any], offline: bool = False) -> set[str]:
        taken = [one.load_pretrained(speech_input_class(its)[1], offline) for one, its in zip(self.inputs, options["inputs"], strict=True)]
        return {f"inputs.{i}.{name}" for i, names in enumerate(taken) for name in names}

    def bind(self, spec: MelSpec) -> None:
        for one in self.inputs:
            one.bind(spec)
        self.spec = spec
        if self.reads == "wave" and any(isinstance(module, GlobalNorm) for module in self.modules()):
            raise ConfigError("model.speech_input.inputs: norm global needs mel features, and this fusion reads waveforms; use norm: utterance")
        if self.mixed:
            self._align()

    @property
    def subsampling(self) -> Subsampling:
        return self.rule

    def forward(self, x_FM: Tensor, frames_U: Tensor) -> tuple[Tensor, Tensor]:
        patches_U = self.rule.positions(frames_U)
        lengths = frames_U.tolist()
        parts = []
        for one, stack in zip(self.inputs, self.stacks, strict=True):
            if one.reads == self.reads:
                x_PD, counts_U = one(x_FM, frames_U)
            else:
                waves = [nn.functional.pad(wave[:, 0].float(), (0, max(0, self.spec.span - len(wave)))) for wave in x_FM.split(lengths)]
                mels = log_mel_many(self.spec, waves)
                x_PD, counts_U = one(torch.cat(mels), torch.tensor([len(mel) for mel in mels], device=frames_U.device))
            parts.append(self._stacked(x_PD, counts_U, stack, patches_U))
        if self.how == "concatenate":
            return self.proj(torch.cat(parts, -1)), patches_U
        return sum(proj(part) for proj, part in zip(self.projs, parts, strict=True)), patches_U

    @staticmethod
    def _stacked(x_PD: Tensor, counts_U: Tensor, stack: int, patches_U: Tensor) -> Tensor:
        """`stack` vectors a position, filled with zeros at the end, and no more positions than there are to be."""
        room_U = torch.maximum(-(-counts_U // stack), patches_U)
        rows = respace(x_PD, counts_U, room_U * stack).reshape(int(room_U.sum()), -1)
        return rows[frame_index(patches_U, room_U)]


def _checked(inputs: Any) -> None:
    if not isinstance(inputs, list | tuple) or len(inputs) < 2 or not all(isinstance(one, dict) for one in inputs):
        raise ConfigError("model.speech_input.inputs: a fusion needs a list of two or more inputs, each with its kind and options")
    if any(one.get("kind") == "unified" for one in inputs):
        raise ConfigError("model.speech_input.inputs: unified gives as many positions whatever the length, and can be fused with nothing")
