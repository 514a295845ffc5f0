"""Stretches of speech in a recording of any length: found by the VAD, their ends set where the sound begins and ends.

Shapes: S samples, N windows of 32 ms, F frames of 10 ms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from melcli.audio.segment import SEARCH_SHARE, SILENCE_DBFS, Piece, frame_levels, is_tone, quietest
from melcli.audio.vad import WINDOW_SECONDS, Listener, Network

BEGINS, GOES_ON = 0.5, 0.35  # probabilities from which a window is speech: after none, and after speech
PAUSE_SECONDS = 0.6  # silence that ends a stretch; shorter ones stay inside
CERTAIN = 0.7  # and what a stretch must reach somewhere: chords and keys of a telephone come to 0.64
SHORTEST_SECONDS = 0.09  # of speech in a stretch: three windows; a click makes fewer
AROUND_SECONDS = 0.2  # of what is not speech given to the model at either end
KEPT_SECONDS = 1.0  # held of what is not speech, to look for the beginning in
EDGE_SECONDS = 0.01
REACH_SECONDS = 0.5  # how far from the VAD's first and last window speech may begin and end
DIP_SECONDS = 0.12  # a closure before a plosive is quiet, and shorter than this
RISE = 0.15  # of the way from the background to the loudest around an end, in decibel: from there it is sound that belongs to speech
LEAST_RISE = 8.0  # decibel


class Speech:
    """The stretches of speech in one recording, each a piece no longer than max_seconds: cut at a pause, or else where it is quietest."""

    def __init__(self, rate: int, max_seconds: float, network: Network) -> None:
        self.rate = rate
        self.max_seconds = max_seconds
        self.listener = Listener(network, rate)
        self.longest = math.floor((max_seconds - 2 * AROUND_SECONDS - WINDOW_SECONDS) / WINDOW_SECONDS)  # windows
        self.wave_S = torch.empty(0)  # what is held of the recording, from sample `first`
        self.first = 0
        self.windows = 0  # judged so far
        self.begun: int | None = None  # the window with which the stretch begins
        self.ended = 0  # the window after its last one that is speech
        self.heard = 0  # windows of speech in it
        self.surest = 0.0  # the highest probability in it
        self.pauses: list[tuple[int, int]] = []  # inside it
        self.start: float | None = None  # seconds, where it goes on after a cut
        self.free = 0.0  # seconds from which on no piece has any samples

    @property
    def seconds(self) -> float:
        return (self.first + len(self.wave_S)) / self.rate

    def push(self, wave_S: Tensor) -> Iterator[Piece]:
        self.wave_S = torch.cat([self.wave_S, wave_S])
        yield from self._judge(self.listener.push(wave_S))

    def finish(self) -> Iterator[Piece]:
        yield from self._judge(self.listener.finish())
        if self.begun is not None:
            yield from self._close()

    def _judge(self, probabilities_N: Tensor) -> Iterator[Piece]:
        silent = round(PAUSE_SECONDS / WINDOW_SECONDS)
        for probability in probabilities_N.tolist():
            window, self.windows = self.windows, self.windows + 1
            follows = self.begun is not None and self.ended == window
            if probability >= (GOES_ON if follows else BEGINS) and self._level(window) >= SILENCE_DBFS:
                if self.begun is None:
                    self.begun, self.heard, self.surest, self.pauses = window, 0, 0.0, []
                elif not follows:
                    self.pauses.append((self.ended, window))
                self.ended = window + 1
                self.heard += 1
                self.surest = max(self.surest, probability)
                while self.ended - self.begun > self.longest:
                    yield self._cut()
            elif self.begun is not None and self.windows - self.ended >= silent:
                yield from self._close()
        self._forget()

    def _level(self, window: int) -> float:
        """The window's loudest 10 ms in dBFS."""
        return float(frame_levels(self._wave(window * WINDOW_SECONDS, (window + 1) * WINDOW_SECONDS), self.rate, EDGE_SECONDS).max())

    def _wave(self, start: float, end: float) -> Tensor:
        """The samples between two times, as far as they are held."""
        first, last = (max(0, round(at * self.rate) - self.first) for at in (start, end))
        return self.wave_S[first:last]

    def _forget(self) -> None:
        """Let go of the samples that no piece will want."""
        at = self.windows if self.begun is None else self.begun
        spare = math.floor((at * WINDOW_SECONDS - KEPT_SECONDS) * self.rate) - self.first
        if spare > self.rate:  # not for every little block
            self.wave_S = self.wave_S[spare:].clone()
            self.first += spare

    def _close(self) -> Iterator[Piece]:
        """The stretch ends with the last window that is speech."""
        start = self._beginning() if self.start is None else self.start
        if self.start is not None or (self.surest >= CERTAIN and self.heard * WINDOW_SECONDS > SHORTEST_SECONDS):
            judged = min(self.windows * WINDOW_SECONDS, self.seconds)
            end = max(self._end(self.ended, judged), start + EDGE_SECONDS)
            piece = self._piece(start, end, min(end + AROUND_SECONDS, judged))
            if not is_tone(piece.wave_S, self.rate):
                yield piece
        self.begun = self.start = None

    def _cut(self) -> Piece:
        """The beginning of a stretch that is too long, up to the longest pause in its later half, or else to the quietest place there."""
        start = self._beginning() if self.start is None else self.start
        last = self.begun + self.longest
        inside = [(a, b) for a, b in self.pauses if a >= self.begun + SEARCH_SHARE * self.longest and b <= last]
        if inside:
            after, following = max(inside, key=lambda pause: pause[1] - pause[0])
            until = (after + following) / 2 * WINDOW_SECONDS
            piece = self._piece(start, self._end(after, until), until)
            self.begun, self.start = following, None
        else:
            here = self.begun * WINDOW_SECONDS
            sought_S = self._wave(here, self.ended * WINDOW_SECONDS)
            until = here + quietest(sought_S, self.rate, round(self.longest * WINDOW_SECONDS * self.rate)) / self.rate
            piece = self._piece(start, until, until)
            self.begun, self.start = math.floor(until / WINDOW_SECONDS), until
        self.heard = self.ended - self.begun
        self.pauses = [pause for pause in self.pauses if pause[0] > self.begun]
        return piece

    def _piece(self, start: float, end: float, until: float) -> Piece:
        """A piece with the samples up to `until`. Where it would be too long, it has no more around the VAD's own ends than a piece must have."""
        since = max(start - AROUND_SECONDS, self.free)
        if until - since > self.max_seconds:
            since = max(since, self.begun * WINDOW_SECONDS - AROUND_SECONDS)
            until = min(until, self.ended * WINDOW_SECONDS + AROUND_SECONDS)
            start, end = max(start, since), min(end, until)
        self.free = until
        return Piece(start, end, self._wave(since, until), start - since)

    def _beginning(self) -> float:
        """Seconds at which the stretch begins: back from the VAD's first window as long as there is sound."""
        at = self.begun * WINDOW_SECONDS
        low = max(self.free, at - REACH_SECONDS, self.first / self.rate)
        if at - low < EDGE_SECONDS:  # no background to tell it from
            return max(at, low)
        threshold = self._threshold(self._levels(max(self.free, at - KEPT_SECONDS), at), self._levels(at, at + REACH_SECONDS))
        sound = [frame for frame, level in enumerate(self._levels(low, at + REACH_SECONDS).tolist()) if level >= threshold]
        edge = next((frame for frame in sound if frame >= round((at - low) / EDGE_SECONDS)), None)
        if edge is None:
            return at
        for frame in reversed(sound):
            if frame < edge and edge - frame <= DIP_SECONDS / EDGE_SECONDS + 1:
                edge = frame
        return low + edge * EDGE_SECONDS

    def _end(self, window: int, limit: float) -> float:
        """Seconds at which speech ends, `limit` at the latest: after the last sound near `window`, the first that the VAD takes for no speech."""
        at = window * WINDOW_SECONDS
        low, high = max(self.free, at - REACH_SECONDS, self.begun * WINDOW_SECONDS), min(at + REACH_SECONDS, limit)
        if high - at < EDGE_SECONDS:
            return min(at, limit)
        threshold = self._threshold(self._levels(at, high), self._levels(at - REACH_SECONDS, at))
        sound = [frame for frame, level in enumerate(self._levels(low, high).tolist()) if level >= threshold]
        edge = max((frame for frame in sound if frame <= round((at - low) / EDGE_SECONDS)), default=None)
        if edge is None:
            return at
        for frame in sound:
            if frame > edge and frame - edge <= DIP_SECONDS / EDGE_SECONDS + 1:
                edge = frame
        return min(low + (edge + 1) * EDGE_SECONDS, limit)

    def _levels(self, start: float, end: float) -> Tensor:
        """Levels of each 10 ms between two times [F]."""
        return frame_levels(self._wave(start, end), self.rate, EDGE_SECONDS)

    @staticmethod
    def _threshold(outside_F: Tensor, inside_F: Tensor) -> float:
        """The level from which there is sound: above the background outside, the further the louder the speech inside is."""
        background = max(float(outside_F.quantile(0.2)), SILENCE_DBFS)
        return background + max(LEAST_RISE, RISE * (float(inside_F.quantile(0.9)) - background))
