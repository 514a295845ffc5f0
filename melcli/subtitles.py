"""Transcripts as subtitles (SubRip, WebVTT) and as tables of times.

A segment becomes one cue, or several where its text does not fit on one. Where words have times, so have the cues; else a segment's time is shared
out by the number of characters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melcli.transcripts import Segment

PAUSE_SECONDS = 0.5  # between two words that had better not stand in one cue
FULL_SHARE = 0.5  # of a cue's characters: from here on a pause, or the end of a sentence, ends it
FRAME_SECONDS = 0.04  # of a video: a cue shorter than that is never seen, and one of no length is an error to some players
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")


@dataclass(frozen=True, slots=True)
class Layout:
    """width: characters in a line of a subtitle; lines: of a cue. times: of segments, of words as well, or none. stamped: txt has them too."""

    width: int = 42
    lines: int = 2
    times: str = "segment"
    stamped: bool = False


@dataclass(frozen=True, slots=True)
class Cue:
    """What is shown from one time to another, in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(segments: Iterable[Segment], layout: Layout) -> Iterator[Cue]:
    """The cues of a recording. None is longer than the layout allows, none overlaps another, none lasts no time, and together they hold every
    word: where an aligner gave words no room, cues behind them begin a little later."""
    free = 0.0
    for segment in segments:
        timed = _timed(segment, layout.width)
        for group in _groups(timed, layout):
            start = max(group[0][1], free)
            free = max(group[-1][2], start + FRAME_SECONDS)
            yield Cue(start, free, tuple(_balanced([word for word, _, _ in group], layout)))


def _timed(segment: Segment, width: int) -> list[tuple[str, float, float]]:
    """Words with their times: their own, or shares of the segment's. Words longer than a line are cut."""
    if segment.words:
        timed = [(w.word, w.start, w.end) for w in segment.words]
    else:
        words = segment.text.split()
        letters = sum(len(word) + 1 for word in words)
        timed, at = [], segment.start
        for word in words:
            until = at + (segment.end - segment.start) * (len(word) + 1) / letters
            timed.append((word, at, until))
            at = until
    parts = []
    for word, start, end in timed:
        pieces = [word[i : i + width] for i in range(0, len(word), width)]
        step = (end - start) / max(len(pieces), 1)
        parts += [(piece, start + i * step, start + (i + 1) * step) for i, piece in enumerate(pieces)]
    return parts


def _groups(timed: Sequence[tuple[str, float, float]], layout: Layout) -> Iterator[list[tuple[str, float, float]]]:
    """Words of each cue: as many as fit, ended earlier by a pause or a full stop where it is half full."""
    group: list[tuple[str, float, float]] = []
    room = layout.width * layout.lines
    for word in timed:
        if group:
            held = sum(len(text) + 1 for text, _, _ in group)
            rests = word[1] - group[-1][2] >= PAUSE_SECONDS or group[-1][0].endswith(SENTENCE_ENDS)
            if len(_wrapped([*(text for text, _, _ in group), word[0]], layout.width)) > layout.lines or (rests and held >= FULL_SHARE * room):
                yield group
                group = []
        group.append(word)
    if group:
        yield group


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    return textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False)


def _balanced(words: Sequence[str], layout: Layout) -> list[str]:
    """The words in as few lines as they need, of about the same length."""
    needed = _wrapped(words, layout.width)
    for width in range(-(-sum(map(len, needed)) // len(needed)), layout.width):
        tried = _wrapped(words, width)
        if len(tried) == len(needed) and max(map(len, tried)) <= layout.width:
            return tried
    return needed


def clock(seconds: float, mark: str = ".") -> str:
    """01:02:03.456, rounded to a millisecond."""
    milliseconds = max(0, round(seconds * 1000))
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def srt(segments: Iterable[Segment], layout: Layout) -> str:
    """SubRip: numbered cues."""
    shown = []
    for number, cue in enumerate(cues(segments, layout), 1):
        text = "\n".join(cue.lines).replace("-->", "->")  # no player shall take it for a line of times
        shown.append(f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{text}\n")
    return "\n".join(shown)


def vtt(segments: Iterable[Segment], layout: Layout) -> str:
    """WebVTT, with the characters escaped that mean something there."""
    shown = []
    for cue in cues(segments, layout):
        text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        shown.append(f"\n{clock(cue.start)} --> {clock(cue.end)}\n{text}\n")
    return "WEBVTT\n" + "".join(shown)


def tsv(segments: Iterable[Segment], layout: Layout) -> str:
    """A line a segment, or a word where words have times: start and end in milliseconds, and the text, between tabs."""
    rows = ["start\tend\ttext"]
    for start, end, text in spans(segments, layout):
        rows.append(f"{round(start * 1000)}\t{round(end * 1000)}\t{text}")
    return "\n".join(rows) + "\n"


def stamped(segments: Iterable[Segment], layout: Layout) -> str:
    """Lines to read: [00:00:01.200 --> 00:00:03.400] text."""
    return "".join(f"[{clock(start)} --> {clock(end)}] {text}\n" for start, end, text in spans(segments, layout))


def spans(segments: Iterable[Segment], layout: Layout) -> Iterator[tuple[float, float, str]]:
    """What was said from when to when: segments that hold text, or their words."""
    for segment in segments:
        if layout.times == "word" and segment.words:
            yield from ((word.start, word.end, " ".join(word.word.split())) for word in segment.words)
        elif segment.text:
            yield segment.start, segment.end, " ".join(segment.text.split())
