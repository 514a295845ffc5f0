"""Requests to speak: the next passages of all of them are spoken as one batch, and each request gets its audio passage by passage.

The first batch of a request has one passage of it, so that its sound begins soon; the next have two, four and so on. A client that reads slowly
is not spoken to faster than it reads.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from functools import partial

from melcli.serving.limits import Limits
from melcli.serving.metrics import Metrics
from melcli.serving.worker import Gathering, Job
from melcli.synthesize import WINDOW, Item, Request, Synthesizer

AHEAD = 64  # chunks that a client has not fetched


class SayJob(Job):
    """A text that is to be spoken. Its events are each Chunk; that which is `last` or has an error ends it. share: passages in the next batch."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request
        self.share = 1
        self.items = iter(())


class Mouth:
    """The desk of one voice. changed: the lock of the worker."""

    def __init__(self, synthesizer: Synthesizer, changed: threading.Condition, limits: Limits, metrics: Metrics) -> None:
        self.synthesizer = synthesizer
        self.changed = changed
        self.metrics = metrics
        self._jobs: list[SayJob] = []  # the one whose turn it is first
        self._gathering = Gathering(limits.gather)

    def submit(self, request: Request) -> SayJob:
        """Take a text in, to be spoken."""
        job = SayJob(request)
        job.items = self.synthesizer.items(request)
        with self.changed:
            self._jobs.append(job)
            self.changed.notify_all()
        return job

    def discard(self, job: SayJob) -> None:
        """Nobody waits for this one any more, or it is done."""
        with self.changed:
            if job in self._jobs:
                self._jobs.remove(job)
            self.changed.notify_all()

    def fetched(self) -> None:
        """A client took something: it may have room for more."""
        with self.changed:
            self.changed.notify_all()

    def take(self) -> Callable[[], None] | None:
        if not self._gathering.over(self.gathering):
            return None
        turn = [job for job in self._jobs if job.events.qsize() < AHEAD][:WINDOW]
        self._jobs.sort(key=lambda job: job in turn)  # who was left out is first the next time
        return partial(self._say, turn)

    @property
    def gathering(self) -> bool:
        return any(job.events.qsize() < AHEAD for job in self._jobs)

    @property
    def idle(self) -> bool:
        return not self._jobs

    def close(self) -> None:
        """Nothing is held."""

    def _say(self, turn: list[SayJob]) -> None:
        began = time.perf_counter()
        owners: dict[int, SayJob] = {}
        window: list[Item] = []
        fair = max(1, WINDOW // len(turn))
        samples = 0
        try:
            for job in turn:
                for item in itertools.islice(job.items, min(job.share, fair)):
                    window.append(item)
                    owners[id(item)] = job
                job.share *= 2
            for item, chunk in zip(window, self.synthesizer.say(window), strict=True):
                job = owners[id(item)]
                if job in self._jobs:
                    samples += len(chunk.wave_S)
                    job.send(chunk)
                    if chunk.last:
                        self.discard(job)
        except Exception as error:
            for job in turn:
                job.send(error)
                self.discard(job)
            raise
        if passages := sum(item.piece is not None for item in window):
            self.metrics.observe("melcli_batch_pieces", passages, model="synthesize")
            self.metrics.add("melcli_audio_seconds_total", samples / self.synthesizer.rate, model="synthesize")
        self.metrics.add("melcli_busy_seconds_total", time.perf_counter() - began, model="synthesize")
