"""The microphone as blocks of samples, until the user has had enough. Needs the extra `melcli[mic]`.

Shapes: S samples.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from melcli.errors import UsageError

BLOCK_SECONDS = 0.25
_stop = threading.Event()  # set by a signal in the main thread, looked at by whichever thread listens


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Inside, the first Ctrl-C ends `blocks`, so that what was said is still heard; a second one interrupts as always."""
    _stop.clear()
    before = signal.getsignal(signal.SIGINT)

    def stop(*_: Any) -> None:
        _stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def blocks(rate: int) -> Iterator[Tensor]:
    """wave_S float32 mono at `rate`, a quarter of a second at a time. Raises UsageError where there is no microphone, or no sounddevice."""
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: without the PortAudio library
        raise UsageError(f"mic: listening to a microphone needs sounddevice: pip install 'melcli[mic]' ({error})") from None
    arrived: queue.Queue[Tensor] = queue.Queue()

    def take(samples: Any, *_: Any) -> None:
        arrived.put(torch.tensor(samples[:, 0]))

    try:
        with sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", blocksize=round(BLOCK_SECONDS * rate), callback=take):
            while not (_stop.is_set() and arrived.empty()):
                try:
                    yield arrived.get(timeout=BLOCK_SECONDS)
                except queue.Empty:
                    continue
    except sounddevice.PortAudioError as error:
        raise UsageError(f"mic: the microphone cannot be used: {error}") from None
