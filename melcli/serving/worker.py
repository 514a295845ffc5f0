"""Where models work, in the thread that the server was run in: it asks each desk in turn for what waits there, and does it as one batch.

A desk is where the requests of one model are: `Ears` and `Mouth`. Everything that a desk shares with other threads is changed under one lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from melcli import console


class Job:
    """A request under way. `events` brings what becomes of it to the request's own event loop; an exception there is the last of them."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[object] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def send(self, event: object) -> None:
        """Tell the request, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)


class Desk(Protocol):
    """Where the requests of one model wait."""

    def take(self) -> Callable[[], None] | None:
        """The next batch, as the work to be done on it without the lock. Called under the lock."""

    @property
    def gathering(self) -> bool:
        """Whether `take` will give something soon though nothing new comes. Under the lock."""

    @property
    def idle(self) -> bool:
        """Whether no request is here. Under the lock."""

    def close(self) -> None:
        """No request will come any more."""


class Worker:
    """Runs `load`, which makes the desks, and then what waits there, until `stop`, and then what was accepted before.

    To be run by the process's main thread: others get no more than two thirds of the speed on two cores, since OpenMP's helpers of any but the first
    thread go to sleep after each operation.
    ready: whether the desks are there. failure: the exception that `load` ended with. changed: the lock, told of every change.
    """

    def __init__(self, load: Callable[[threading.Condition], Sequence[Desk]], done: Callable[[], None]) -> None:
        self.changed = threading.Condition()
        self.ready = False
        self.stopping = False
        self.failure: Exception | None = None
        self._load, self._done = load, done

    def stop(self) -> None:
        """Have `run` finish what was accepted, and return; from any thread."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()

    def run(self) -> None:
        """Work; returns after `stop`, or when `load` failed."""
        try:
            desks = list(self._load(self.changed))
        except Exception as error:  # told to whoever started the server
            self.failure = error
            self._done()
            return
        self.ready = True
        self._done()
        try:
            while (work := self._next(desks)) is not None:
                try:
                    work()
                except Exception:
                    console.error(f"a batch failed: {traceback.format_exc().strip().splitlines()[-1]}")
                    console.detail(traceback.format_exc())
                desks.append(desks.pop(0))
        finally:  # no thread of theirs may be computing when the process ends
            for desk in desks:
                desk.close()

    def _next(self, desks: Sequence[Desk]) -> Callable[[], None] | None:
        """The next batch of the desk whose turn it is; None when there will be none any more."""
        with self.changed:
            while True:
                for desk in desks:
                    if (work := desk.take()) is not None:
                        return work
                if self.stopping and all(desk.idle for desk in desks):
                    return None
                self.changed.wait(0.002 if any(desk.gathering for desk in desks) else None)


class Gathering:
    """Waits a moment from the first that comes, so that others can join it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.since: float | None = None

    def over(self, some: bool) -> bool:
        """Whether there is something, and has been for long enough."""
        if not some:
            self.since = None
            return False
        now = time.monotonic()
        self.since = now if self.since is None else self.since
        if now - self.since < self.seconds:
            return False
        self.since = None
        return True
