"""Audio for the training of a vocoder: crops of recordings that are kept in memory, with the pitch of each frame.

Shapes: B crops, S samples, T mel frames.

Which crops a step has is a pure function of the utterances, the seed and the step, so resuming is an index. A recording is decoded when it is
first drawn, and kept as 16-bit samples: ten hours are 1.1 GB.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from melcli import console
from melcli.audio.mel_spec import MelSpec
from melcli.audio.pitch import PitchGrid, track_many
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ConfigError
from melcli.steps_recipe import StepsSource
from melcli.training.setup import locate
from melcli.vocoder_recipe import VocoderData

PEAK = 0.98  # that a gain leaves
TRIES = 20  # recordings in a row that cannot be read before a training gives up


@dataclass(frozen=True, slots=True)
class Crops:
    """A batch: samples, and the pitch in Hz of the frames centred on multiples of the hop, and whether they have one."""

    wave_BS: Tensor
    hertz_BT: Tensor
    voiced_BT: Tensor


class CropSource:
    """Crops of `frames` hops (and so frames + 1 mel frames) from utterances, each drawn as often as it is long times its source's repeat."""

    def __init__(
        self, utterances: Sequence[Utterance], repeats: Sequence[float], spec: MelSpec, grid: PitchGrid, frames: int, data: VocoderData, seed: int
    ) -> None:
        self.utterances = utterances
        self.spec, self.grid, self.frames = spec, grid, frames
        self.gain_db, self.seed = data.gain_db, seed
        self.shares = list(accumulate((u.duration or 1.0) * times for u, times in zip(utterances, repeats, strict=True)))
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor] | None] = {}

    def batch(self, step: int, size: int) -> Crops:
        """The crops of a step."""
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        crops = [self._crop(generator) for _ in range(size)]
        return Crops(*(torch.stack(parts) for parts in zip(*crops, strict=True)))

    def _crop(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        recording = self._draw(generator)
        start, level = torch.rand(2, generator=generator).tolist()
        wave_S, hertz_T, voiced_T = recording
        hop, length = self.spec.hop_length, self.frames * self.spec.hop_length
        spare = max(0, len(hertz_T) - self.frames - 1)
        first = round(start * spare)
        found_S = wave_S[first * hop : first * hop + length].float() / 32768
        gain = 10 ** ((self.gain_db[0] + level * (self.gain_db[1] - self.gain_db[0])) / 20)
        found_S = found_S * min(gain, PEAK / max(float(found_S.abs().max()), 1e-4))
        tracks = (hertz_T[first : first + self.frames + 1], voiced_T[first : first + self.frames + 1])
        missing = self.frames + 1 - len(tracks[0])
        if missing:
            hertz = torch.cat([tracks[0], tracks[0][-1:].expand(missing)])
            tracks = (hertz, torch.nn.functional.pad(tracks[1], (0, missing)))
        return torch.nn.functional.pad(found_S, (0, length - len(found_S))), tracks[0].float(), tracks[1]

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(TRIES):
            place = float(torch.rand((), generator=generator, dtype=torch.float64)) * self.shares[-1]
            recording = self._recording(min(bisect(self.shares, place), len(self.shares) - 1))
            if recording is not None:
                return recording
        raise ConfigError(f"data.train: {TRIES} recordings in a row could not be read")

    def _recording(self, index: int) -> tuple[Tensor, Tensor, Tensor] | None:
        if index not in self.kept:
            try:
                wave_S = load_utterance(self.utterances[index], self.spec.rate)
                if len(wave_S) < self.spec.win_length:
                    raise AudioError(f"{self.utterances[index].id}: shorter than a window")
                hertz_T, voiced_T = track_many([wave_S], self.spec.rate, self.spec.hop_length, self.grid)[0]
                self.kept[index] = (wave_S.clamp(-1, 1) * 32767).round().to(torch.int16), hertz_T.half(), voiced_T
            except AudioError as error:
                console.warn(f"left out of training: {error}")
                self.kept[index] = None
        return self.kept[index]


def read_sources(sources: Sequence[StepsSource], root: Path, offline: bool) -> tuple[list[Utterance], list[float]]:
    """All utterances of the sources, and how often each is drawn."""
    utterances: list[Utterance] = []
    repeats: list[float] = []
    for entry in sources:
        found = read_source(locate(entry.source, root), root=root, offline=offline)
        utterances += found
        repeats += [entry.repeat] * len(found)
    return utterances, repeats


def held_out(data: VocoderData, rate: int, limit: int, offline: bool) -> dict[str, list[Tensor]]:
    """wave_S of evaluation recordings by source, spread evenly over each where there are more than `limit`."""
    sets = {}
    for entry in data.eval:
        utterances, _ = read_sources([entry], Path(data.root), offline)
        chosen = utterances[:: max(1, len(utterances) // limit)][:limit]
        sets[entry.source] = [load_utterance(u, rate) for u in chosen]
    return sets
