"""Voice prompts in training: another utterance of the same speaker is read before what is said, as if it had been said, and counts in no loss.

Which utterance gets which is drawn anew each epoch, as a pure function of the data, the seed and the epoch: the batch plan counts prompts without
reading any, and a training that is resumed draws what it would have drawn.
Shapes: N utterances of the training data, T mel frames, M mel bins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from melcli.data.features import Joined
from melcli.data.utterance import Utterance

NONE = -1


@dataclass(frozen=True, slots=True)
class Voice:
    """The prompt of one utterance: its frames mel_TM, and the utterance that is whole in it where its text is told."""

    mel_TM: Tensor
    told: Utterance | None


@dataclass(frozen=True, slots=True)
class Draw:
    """The prompts of an epoch. voice_N: the utterance that prompts each, NONE where there is none; told_N: whether its text is told; frames_N: of it,
    silence that is cut when it is read included."""

    voice_N: np.ndarray
    told_N: np.ndarray
    frames_N: np.ndarray


class VoicePrompts:
    """Draws and reads them.

    speakers: of each utterance, None where nobody knows or it may have no prompt. frames, tokens: of its mel and its text. stride: frames a step.
    share: of the utterances that get a prompt, of those that can. told: share of the prompts whose text is told, which are whole utterances of
    `least` to `most` frames; where the speaker has none, and for the other prompts, a stretch of so many frames out of any that holds them.
    """

    def __init__(
        self,
        speakers: Sequence[Hashable | None],
        frames: Sequence[int],
        tokens: Sequence[int],
        stride: int,
        *,
        share: float,
        told: float,
        least: int,
        most: int,
        fingerprint: str,
        seed: int,
    ) -> None:
        numbers: dict[Hashable, int] = {}
        speaker_N = np.asarray([NONE if who is None else numbers.setdefault(who, len(numbers)) for who in speakers], dtype=np.int64)
        self.frames_N = np.asarray(frames, dtype=np.int64)
        self.tokens_N = np.asarray(tokens, dtype=np.int64)
        self.stride, self.share, self.told, self.least, self.most = stride, share, told, max(1, least), most
        holds_N = self.frames_N >= self.least
        self.parts = _Others(speaker_N, holds_N)
        self.wholes = _Others(speaker_N, holds_N & (self.frames_N <= most))
        self.able_N = self.parts.count_N > 0
        self._entropy = [seed, int.from_bytes(hashlib.sha256(f"{fingerprint}/voice prompts".encode()).digest()[:8], "little")]
        self._drawn: dict[int, Draw] = {}

    def draw(self, epoch: int) -> Draw:
        """The prompts of an epoch. The last two asked for are kept."""
        if epoch not in self._drawn:
            self._drawn = dict(list(self._drawn.items())[-1:]) | {epoch: self._draw(epoch)}
        return self._drawn[epoch]

    def _draw(self, epoch: int) -> Draw:
        rng = np.random.default_rng([*self._entropy, epoch])
        wanted_N, told_N, which_N, length_N = (rng.random(len(self.frames_N)) for _ in range(4))
        whole_N = self.wholes.pick(which_N)
        told_N = (told_N < self.told) & (whole_N != NONE)
        voice_N = np.where(told_N, whole_N, self.parts.pick(which_N))
        voice_N[wanted_N >= self.share] = NONE
        told_N &= voice_N != NONE
        there_N = self.frames_N[voice_N]
        part_N = self.least + np.floor(length_N * (np.minimum(there_N, self.most) - self.least + 1)).astype(np.int64)
        return Draw(voice_N, told_N, np.where(voice_N == NONE, 0, np.where(told_N, there_N, part_N)))

    def positions(self, epoch: int) -> np.ndarray:
        """Positions that the prompts of an epoch take, of each utterance: steps, and the text that is told with the space after it."""
        drawn = self.draw(epoch)
        return -(-drawn.frames_N // self.stride) + np.where(drawn.told_N, self.tokens_N[drawn.voice_N] + 1, 0)

    def wanted(self, indices: Sequence[int], epoch: int) -> list[int]:
        """The utterances that prompt these in an epoch."""
        return [int(i) for i in self.draw(epoch).voice_N[list(indices)] if i != NONE]

    def read(self, features: Joined, index: int, epoch: int, generator: torch.Generator) -> Voice | None:
        """The prompt of an utterance in an epoch, None where it has none. generator: draws where a stretch is taken out. Raises AudioError."""
        drawn = self.draw(epoch)
        at, frames = int(drawn.voice_N[index]), int(drawn.frames_N[index])
        if at == NONE:
            return None
        mel_TM = features.get(at, None)
        if drawn.told_N[index]:
            return Voice(mel_TM, features.utterances[at])
        start = int(torch.randint(max(0, len(mel_TM) - frames) + 1, (), generator=generator))
        return Voice(mel_TM[start : start + frames], None)


class _Others:
    """For each utterance those of the same speaker, out of the ones that fit, but for itself. count_N: how many these are."""

    def __init__(self, speaker_N: np.ndarray, fits_N: np.ndarray) -> None:
        known_N = speaker_N != NONE
        fit = np.flatnonzero(fits_N & known_N)
        self.order = fit[np.argsort(speaker_N[fit], kind="stable")]  # speaker after speaker
        counts = np.bincount(speaker_N[fit], minlength=int(speaker_N.max(initial=0)) + 1)
        self.place_N = np.full(len(speaker_N), len(self.order))  # of an utterance in the order; past the end where it does not fit itself
        self.place_N[self.order] = np.arange(len(self.order))
        self.first_N = (np.cumsum(counts) - counts)[speaker_N]
        self.count_N = np.where(known_N, counts[speaker_N] - (self.place_N < len(self.order)), 0)

    def pick(self, level_N: np.ndarray) -> np.ndarray:
        """One for each, by numbers in [0, 1); NONE where there are none."""
        at_N = self.first_N + np.floor(level_N * self.count_N).astype(np.int64)
        at_N += at_N >= self.place_N  # itself is left out
        return np.where(self.count_N > 0, np.append(self.order, NONE)[np.minimum(at_N, len(self.order))], NONE)
