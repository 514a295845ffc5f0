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
_raised = False


class Terminated(KeyboardInterrupt):
    """SIGTERM. A KeyboardInterrupt, so that whatever is tidied up after Ctrl-C is tidied up after it as well."""


@contextmanager
def listening() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated and SIGINT KeyboardInterrupt, which is also what comes of an error that compiled code made of either.

    Nothing changes outside the main thread, and where the signals are handled or ignored already.
    """
    global _received, _raised
    _received, _raised = None, False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    mine = {number: before for number, before in mine.items() if signal.getsignal(number) is before}
    for number in mine:
        signal.signal(number, _interrupt)
    try:
        yield
    except Exception as error:
        if _raised:  # torch, looking for the numbers in what safetensors gives it, takes whatever is raised there for a lack of them
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, before in mine.items():
            signal.signal(number, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _raised
    note(number)
    _raised = True
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


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
