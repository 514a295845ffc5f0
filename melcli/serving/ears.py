"""Requests to hear: recordings are read and cut by one thread, and all their pieces that are ready are heard as one batch by another.

While the model works on a batch the next one grows. Recordings are read by turns, a block of each, and one of hours gets a share of each batch, so
that short ones do not wait for its end.
Shapes: S samples.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO

from torch import Tensor

from melcli import console
from melcli.audio import io as audio_io
from melcli.audio.segment import Cutter, Piece
from melcli.data.utterance import Utterance
from melcli.errors import AudioError
from melcli.inputs import AudioInput
from melcli.listening import Hearing, Window, steps
from melcli.models.hardware import alone_in_thread
from melcli.models.hints import Hints
from melcli.serving.limits import Limits
from melcli.serving.metrics import Metrics
from melcli.serving.worker import Gathering, Job
from melcli.transcribe import Transcriber

MOST_SECONDS = 480.0  # of audio that wait to be heard together
SHARE_SECONDS = 120.0  # of one recording among them
BLOCK_SECONDS = 30.0
HINTS_KEPT = 16  # transcribers told something, kept for the next request that says the same


class TooLong(AudioError):
    """A recording of more seconds than the server takes."""


class HearJob(Job):
    """A recording that is to be heard. Its events are each Segment, then the Transcript. file: closed when it has been read.

    Only the reading thread uses `steps`, `count` and `cut`; `waiting`: seconds of it that wait to be heard.
    """

    def __init__(self, file: BinaryIO, name: str, hints: Hints, most_seconds: float, transcriber: Transcriber) -> None:
        super().__init__()
        self.file, self.hints, self.most_seconds, self.transcriber = file, hints, most_seconds, transcriber
        self.hearing = Hearing(AudioInput(name, Utterance(name, (name,)), self._blocks))
        self.count = 0
        self.waiting = 0.0
        self.cut: Cutter | None = None
        self.steps: Iterator[list[Piece]] = iter(())

    def _blocks(self, rate: int) -> Iterator[Tensor]:
        samples = 0
        for wave_S in audio_io.stream(self.file, rate, BLOCK_SECONDS):
            samples += len(wave_S)
            if samples > self.most_seconds * rate:
                raise TooLong(f"the recording is longer than {self.most_seconds:g} s, the most that this server takes")
            yield wave_S


class Ears:
    """The desk of one recogniser. changed: the lock of the worker."""

    def __init__(self, transcriber: Transcriber, changed: threading.Condition, limits: Limits, metrics: Metrics) -> None:
        self.transcriber = transcriber
        self.changed = changed
        self.limits = limits
        self.metrics = metrics
        self._told: dict[Hints, Transcriber] = {Hints(): transcriber}
        self._unread: deque[HearJob] = deque()
        self._jobs: dict[Hearing, HearJob] = {}
        self._windows: dict[Hints, Window] = {}
        self._gathering = Gathering(limits.gather)
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="melcli-reading", daemon=True)
        self._thread.start()

    def told(self, hints: Hints) -> Transcriber:
        """The transcriber that follows these hints. Raises UsageError where there can be none."""
        found = self._told.get(hints)
        if found is None:
            found = self.transcriber.hinted(hints)
            with self.changed:
                if len(self._told) > HINTS_KEPT:
                    self._told = {Hints(): self.transcriber}
                self._told[hints] = found
        return found

    def submit(self, file: BinaryIO, name: str, hints: Hints, transcriber: Transcriber) -> HearJob:
        """Take a recording in, to be heard by the transcriber that was `told` the hints. The file is ours from now on."""
        job = HearJob(file, name, hints, self.limits.audio, transcriber)
        with self.changed:
            self._jobs[job.hearing] = job
            self._unread.append(job)
            self.changed.notify_all()
        return job

    def discard(self, job: HearJob) -> None:
        """Nobody waits for this one any more, or it is done. What is left of it is not heard."""
        with self.changed:
            self._jobs.pop(job.hearing, None)
            self.changed.notify_all()

    # what the worker asks

    def take(self) -> Callable[[], None] | None:
        if not self._gathering.over(bool(self._windows)):
            return None
        hints = next(iter(self._windows))
        window = self._windows.pop(hints)
        window.pieces = [part for part in window.pieces if part[0] in self._jobs]
        window.ends = [end for end in window.ends if end[0] in self._jobs]
        for hearing, _, _ in window.pieces:
            self._jobs[hearing].waiting = 0.0
        self.changed.notify_all()  # there is room for the reading thread
        waiting = [self._jobs[hearing] for hearing, *_ in (*window.pieces, *window.ends)]
        return partial(self._hear, waiting[0].transcriber if waiting else self.transcriber, window)

    @property
    def gathering(self) -> bool:
        return bool(self._windows)

    @property
    def idle(self) -> bool:
        return not self._jobs

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        self._thread.join()

    def _hear(self, transcriber: Transcriber, window: Window) -> None:
        began = time.perf_counter()
        heard = [piece for _, _, piece in window.pieces if piece.wave_S is not None]
        try:
            for hearing in transcriber.hear(window):
                job = self._jobs.get(hearing)
                if job is None:
                    continue
                for segment in hearing.ready():
                    job.send(segment)
                if hearing.done:
                    self._finish(job, hearing.transcript())
        except Exception as error:
            for hearing in {hearing for hearing, *_ in (*window.pieces, *window.ends)}:
                if (job := self._jobs.get(hearing)) is not None:
                    self._finish(job, error)
            raise
        if heard:
            self.metrics.observe("melcli_batch_pieces", len(heard), model="transcribe")
            self.metrics.add("melcli_audio_seconds_total", sum(piece.end - piece.start for piece in heard), model="transcribe")
        self.metrics.add("melcli_busy_seconds_total", time.perf_counter() - began, model="transcribe")

    def _finish(self, job: HearJob, event: object) -> None:
        job.send(event)
        self.discard(job)

    # the reading thread

    def _read(self) -> None:
        alone_in_thread()
        while (job := self._next_to_read()) is not None:
            found, error = None, None
            try:
                if job.cut is None:
                    job.cut = self.transcriber.cutter()
                    job.steps = steps(job.hearing.item, self.transcriber.recogniser.rate, job.cut)
                found = next(job.steps, None)
            except AudioError as failure:
                error = failure
            except Exception as failure:  # no request may end the thread for the others
                console.error(f"a recording could not be read: {traceback.format_exc().strip().splitlines()[-1]}")
                error = failure
            if found is None:
                job.file.close()
            with self.changed:
                self._read_on(job, found, error)
                self.changed.notify_all()

    def _next_to_read(self) -> HearJob | None:
        """The next recording of which there is room for a piece; None at the end. Those that nobody waits for are closed on the way."""
        with self.changed:
            while not self._closed:
                full = sum(window.seconds for window in self._windows.values()) >= MOST_SECONDS
                for _ in range(len(self._unread)):
                    job = self._unread.popleft()
                    if job.hearing not in self._jobs:
                        job.file.close()
                    elif full or job.waiting >= SHARE_SECONDS:
                        self._unread.append(job)
                    else:
                        return job
                self.changed.wait()
        return None

    def _read_on(self, job: HearJob, found: list[Piece] | None, error: Exception | None) -> None:
        if job.hearing not in self._jobs:
            job.file.close()
            return
        if error is not None:  # what was heard so far is not what was asked for
            del self._jobs[job.hearing]
            job.send(error)
            return
        if found is None:
            assert job.cut is not None
            self._windows.setdefault(job.hints, Window()).ends.append((job.hearing, job.count, job.cut.seconds, None))
            return
        for piece in found:
            window = self._windows.setdefault(job.hints, Window())
            window.pieces.append((job.hearing, job.count, piece))
            job.count += 1
            if piece.wave_S is not None:
                job.waiting += piece.end - piece.start
                window.seconds += piece.end - piece.start
        self._unread.append(job)
