"""Signals that end a command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from melcli import interrupts

NUMBERS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """The handlers of a program that a shell runs in the foreground."""
    before = {number: signal.signal(number, handler) for number, handler in zip(NUMBERS, (signal.SIG_DFL, signal.default_int_handler), strict=True)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _swallow(number: int) -> None:
    """What compiled code does that tries something and has another error when it fails."""
    try:
        os.kill(os.getpid(), number)
        while True:  # until Python sees it
            pass
    except BaseException:
        raise ValueError("could not determine the shape") from None


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_one_whatever_becomes_of_its_error(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.listening():
        _swallow(number)
    assert interrupts.exit_code() == 128 + number


def test_errors_without_a_signal_are_themselves() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts.listening():
        _swallow(signal.SIGTERM)
    with pytest.raises(ValueError, match="of its own"), interrupts.listening():
        raise ValueError("of its own")


@pytest.mark.parametrize("number", NUMBERS)
def test_handlers_of_others_stay(number: int) -> None:
    handler = lambda number, frame: None  # noqa: E731
    signal.signal(number, handler)
    with interrupts.listening():
        assert signal.getsignal(number) is handler
    assert signal.getsignal(number) is handler
