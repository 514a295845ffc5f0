"""When a voice is to be cut off: it is silent, it hangs, or it goes on for longer than its text can take.

Shapes: T mel frames, M mel bins.
"""

from __future__ import annotations

import math

from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.silence import decibels, level

LONGEST, SPARE_SECONDS = 2.0, 2.0  # speech may take so many times what its text takes on average, and so many seconds more
SHORTEST = 0.35  # and must take this share of it
SILENT_BELOW = 35.0  # dB under the loudest frame
QUIET_VOICE = 20.0  # dB under the training data's level that a voice's loudest frame is taken to reach at least
SILENT_SECONDS = 1.5  # after so much silence nothing more is expected
SILENCE_KEPT = 0.2  # seconds of it that stay
HANGING_SECONDS = 1.5  # what stays the same for so long is no speech
HANGING_DB = 1.5  # mean difference of all bins from one patch to a later one that counts as the same
PERIODS = 6  # patches after which what repeats itself comes again, at most


class Guard:
    """Watches one utterance. steps: patches that its text takes on average; most, least: patches it may have and must have.

    check(mel_TM) takes the frames of each patch and says why to end after it, `silence`, `repetition` or `length`, or None. frames: how many of all
    frames seen are to be heard; held: how many of them are silence that may yet turn out to be the end.
    """

    def __init__(self, spec: MelSpec, stride: int, steps: float, reference: float | None, max_seconds: float | None = None) -> None:
        self.spec = spec
        rate = spec.frame_rate
        self.most = math.ceil(LONGEST * steps + SPARE_SECONDS * rate / stride)
        if max_seconds is not None:
            self.most = max(1, min(self.most, math.floor(max_seconds * rate / stride)))
        self.least = math.floor(SHORTEST * steps)
        self.loudest = -math.inf if reference is None else reference - QUIET_VOICE
        self.frames = self.held = self.said = 0
        self.silence, self.kept = round(SILENT_SECONDS * rate), round(SILENCE_KEPT * rate)
        self.span = max(2, math.ceil(HANGING_SECONDS * rate / stride))
        self.recent: list[Tensor] = []

    def may_stop(self, said: int) -> bool:
        """Whether so many patches may be all."""
        return said >= max(1, self.least)

    def check(self, mel_TM: Tensor) -> str | None:
        levels = level(self.spec, mel_TM).tolist()
        self.said += 1
        for loud in levels:
            self.loudest = max(self.loudest, loud)
            self.held = self.held + 1 if loud < self.loudest - SILENT_BELOW else 0
        self.frames += len(levels)
        if self.held >= self.silence:
            self.frames -= self.held - self.kept
            self.held = 0
            return "silence"
        if self._hangs(mel_TM):
            return "repetition"
        return "length" if self.said >= self.most else None

    def _hangs(self, mel_TM: Tensor) -> bool:
        """Whether what was said of late comes again and again."""
        self.recent = [*self.recent[-(self.span + PERIODS) + 1 :], decibels(self.spec, mel_TM)]
        if self.held:  # silence has a guard of its own
            return False
        for period in range(1, PERIODS + 1):
            if len(self.recent) < self.span + period:
                break
            pairs = zip(self.recent[-self.span :], self.recent[-self.span - period : -period], strict=True)
            if all(float((now - then).abs().mean()) < HANGING_DB for now, then in pairs):
                return True
        return False
