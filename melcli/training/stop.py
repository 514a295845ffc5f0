"""The signals that end a training early, after the step that is under way."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from melcli import interrupts


class StopSignals:
    """SIGTERM and Ctrl-C between `catch` and `release`: noted in `caught`, for the training to save and stop. A second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.caught = False
        self._before: dict[int, Any] = {}

    def catch(self) -> None:
        """From now on note them."""
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}

    def release(self) -> None:
        """Have them do what they did before."""
        for number, before in self._before.items():
            signal.signal(number, before or signal.SIG_DFL)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        interrupts.note(number)
        if self.caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = True
