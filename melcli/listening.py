"""Inputs of any length to windows of pieces: what `transcribe` gives a model, read ahead while it works, and what became of it.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from itertools import chain
from threading import Thread

from melcli.audio.segment import Cutter, Piece
from melcli.data.load import stream_utterance
from melcli.errors import AudioError
from melcli.inputs import AudioInput
from melcli.models.hardware import alone_in_thread
from melcli.models.recogniser import Recognised, Word
from melcli.transcripts import Segment, Transcript

WINDOW_PIECES = 256
LEAVE_SECONDS = 2.0
NEAR_SECONDS = 0.2  # from an end of a segment, which is exact, to that of a word, which is not


@dataclass(slots=True, eq=False)
class Hearing:
    """An input under way. expected: how many pieces it has, None until its end is reached."""

    item: AudioInput
    expected: int | None = None
    duration: float = 0.0
    error: str | None = None
    seconds: float = 0.0
    segments: dict[int, Segment] = field(default_factory=dict)
    told: int = 0

    @property
    def done(self) -> bool:
        return self.expected == len(self.segments)

    def take(self, number: int, piece: Piece, found: Recognised) -> None:
        """What was heard in a piece. Times of words are moved to those of the recording, and kept inside the piece."""
        words = None if found.words is None else tuple(_moved(found.words, piece))
        self.segments[number] = Segment(piece.start, piece.end, found.text, found.finish_reason, words)

    def ready(self) -> Iterator[Segment]:
        """Segments that were not given before, as far as all before them are there."""
        while self.told in self.segments:
            self.told += 1
            yield self.segments[self.told - 1]

    def transcript(self) -> Transcript:
        """All that was heard."""
        segments = [self.segments[number] for number in sorted(self.segments)]
        if not segments and self.error is None:
            segments = [Segment(0.0, self.duration, "", "silence")]
        text = " ".join(segment.text for segment in segments if segment.text)
        audio = self.item.utterance.audio[0]
        if self.error is not None:
            return Transcript(self.item.name, audio, 0.0, "", [], self.error, self.seconds)
        return Transcript(self.item.name, audio, self.duration, text, segments, None, self.seconds)


def _moved(words: Sequence[Word], piece: Piece) -> Iterator[Word]:
    """Words with their times in the recording, inside the piece; the first and the last begin and end with it where they nearly do."""
    for i, word in enumerate(words):
        start, end = (min(max(at + piece.start - piece.before, piece.start), piece.end) for at in (word.start, word.end))
        if i == 0 and start - piece.start < NEAR_SECONDS:
            start = piece.start
        if i == len(words) - 1 and piece.end - end < NEAR_SECONDS:
            end = piece.end
        yield Word(word.word, start, end)


@dataclass(slots=True)
class Window:
    """Pieces to be heard together, and the inputs that end in this window, with how many pieces each has, its duration and its error."""

    pieces: list[tuple[Hearing, int, Piece]] = field(default_factory=list)
    ends: list[tuple[Hearing, int, float, str | None]] = field(default_factory=list)
    seconds: float = 0.0

    def settle(self) -> Iterator[Hearing]:
        """Note which inputs ended; gives them."""
        for hearing, expected, duration, error in self.ends:
            hearing.expected, hearing.duration, hearing.error = expected, duration, error
            yield hearing


def windows(items: Iterable[AudioInput], rate: int, cutter: Callable[[], Cutter], most_seconds: float) -> Iterator[Window]:
    """Windows of about `most_seconds` of audio. An input that cannot be read to its end is one with an error."""
    window = Window()
    for item in items:
        hearing, cut, count = Hearing(item), cutter(), 0
        error = None
        try:
            for piece in chain.from_iterable(steps(item, rate, cut)):
                window.pieces.append((hearing, count, piece))
                window.seconds += piece.end - piece.start if piece.wave_S is not None else 0.0
                count += 1
                if window.seconds >= most_seconds:
                    yield window
                    window = Window()
        except AudioError as failure:
            error = str(failure)
        window.ends.append((hearing, count, cut.seconds, error))
        if len(window.pieces) + len(window.ends) >= WINDOW_PIECES:
            yield window
            window = Window()
    if window.pieces or window.ends:
        yield window


def ahead(made: Iterator[Window]) -> Iterator[Window]:
    """What an iterator gives, the next made by a thread while one is used.

    At the end, or when a signal ends it, the thread gets LEAVE_SECONDS and is left behind then: it may stand in a read of a pipe that never ends.
    """
    coming = _coming(made)
    try:
        while (window := coming.result()) is not None:
            coming = _coming(made)
            yield window
    finally:
        wait([coming], LEAVE_SECONDS)


def _coming(made: Iterator[Window]) -> Future[Window | None]:
    found: Future[Window | None] = Future()

    def make() -> None:
        alone_in_thread()
        try:
            found.set_result(next(made, None))
        except BaseException as error:  # for whoever waits
            found.set_exception(error)

    Thread(target=make, name="melcli-reading", daemon=True).start()
    return found


def steps(item: AudioInput, rate: int, cut: Cutter) -> Iterator[list[Piece]]:
    """The pieces of an input, in order, while it is read: those that each block of it completes, which may be none. Raises AudioError where it cannot
    be read to its end."""
    for wave_S in item.blocks(rate) if item.blocks else stream_utterance(item.utterance, rate):
        yield [_owned(piece) for piece in cut.push(wave_S)]
    yield [_owned(piece) for piece in cut.finish()]


def _owned(piece: Piece) -> Piece:
    """The piece with samples of its own: a view would hold on to the block that it is part of."""
    return piece if piece.wave_S is None else replace(piece, wave_S=piece.wave_S.clone())
