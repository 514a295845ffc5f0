"""SIGINT (Ctrl-C) and SIGTERM: how they end a command, and the exit code that says so: 128 and the signal's number, as shells have it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAID = {128 + signal.SIGINT: "interrupted", 128 + signal.SIGTERM: "terminated"}
"""What there is to say, by exit code."""

_received: int | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM. A KeyboardInterrupt, so that whatever is tidied up after Ctrl-C is tidied up after it as well."""


@contextmanager
def listening() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated. Nothing changes outside the main thread, and where the signal is handled or ignored already."""
    global _received
    _received = None
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    note(number)
    raise Terminated


def note(number: int) -> None:
    """Remember which signal ends the work, for a handler that lets a step end first."""
    global _received
    _received = number


def noted() -> bool:
    """Whether there was one."""
    return _received is not None


def exit_code() -> int:
    """The exit code of work that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + (signal.SIGINT if _received is None else _received)
