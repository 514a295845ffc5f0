"""Transcripts as text on stdout or as files in a folder: what `melcli transcribe` gives back.

Files are written under a temporary name and renamed, keep the tree that the inputs have, and never take the place of an input.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from melcli import subtitles
from melcli.errors import UsageError, nearest
from melcli.files import write_text, writing
from melcli.inputs import AudioInput, Inputs
from melcli.subtitles import Layout
from melcli.untrusted import check_names

if TYPE_CHECKING:
    from melcli.models.recogniser import Word


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording: seconds from its beginning, text, and why decoding stopped: eos, length, repetition or silence.

    words: with their own times, where those were asked for.
    """

    start: float
    end: float
    text: str
    finish_reason: str
    words: tuple[Word, ...] | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was heard in one input. duration: seconds of audio; seconds: of computing, None where nobody measured it; error: why there is no text, in
    one line; speech: what was measured of synthetic speech; reply: what a model wrote in reply;
    reference: what `text` is to be compared with, where that was made as well.
    """

    name: str
    audio: str
    duration: float
    text: str
    segments: list[Segment] = field(default_factory=list)
    error: str | None = None
    seconds: float | None = 0.0
    speech: Mapping[str, Any] | None = None
    reply: Mapping[str, Any] | None = None
    reference: str | None = None


def as_dict(transcript: Transcript, shown: str, layout: Layout = Layout()) -> dict[str, object]:
    """The JSON object of one transcript; a duration nobody knows is null."""
    duration = round(transcript.duration, 3) if math.isfinite(transcript.duration) else None
    segments = {} if layout.times == "none" else {"segments": [segment_dict(segment) for segment in transcript.segments]}
    return {"audio": shown, "duration": duration, "text": transcript.text, **segments}


def segment_dict(segment: Segment) -> dict[str, object]:
    """The JSON object of a segment, with its words where these have times."""
    fields = {"start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text, "finish_reason": segment.finish_reason}
    if segment.words is None:
        return fields
    return fields | {"words": [{"word": w.word, "start": round(w.start, 3), "end": round(w.end, 3)} for w in segment.words]}


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


WRITERS: dict[str, Callable[[Transcript, str, Layout], str]] = {
    "txt": lambda transcript, shown, layout: subtitles.stamped(transcript.segments, layout) if layout.stamped else transcript.text + "\n",
    "json": lambda transcript, shown, layout: _json(as_dict(transcript, shown, layout), indent=2) + "\n",
    "jsonl": lambda transcript, shown, layout: _json(as_dict(transcript, shown, layout)) + "\n",
    "srt": lambda transcript, shown, layout: subtitles.srt(transcript.segments, layout),
    "vtt": lambda transcript, shown, layout: subtitles.vtt(transcript.segments, layout),
    "tsv": lambda transcript, shown, layout: subtitles.tsv(transcript.segments, layout),
}
"""The whole file that a format makes of one transcript, by the format's name, which is also its suffix."""

TABLES = ("srt", "vtt", "tsv")  # of one recording: on stdout only where there is one
FORMATS = (*WRITERS, "all")


class Output:
    """Where transcripts go. `todo`: the inputs that are still to be done; `write` in any order; close it with `with`."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.todo = inputs.items

    def write(self, transcript: Transcript) -> None:
        """Take one transcript."""
        raise NotImplementedError

    def write_segment(self, item: AudioInput, segment: Segment) -> None:
        """Take one segment of an input, those before it having come before; the transcript follows."""

    def close(self) -> None:
        """Write what was held back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()


class Stdout(Output):
    """Results on stdout. jsonl: as they come; txt: in the order of the inputs, as soon as that allows, each line begun with the input's name where
    there are several; json: one object, or a list where there are several inputs; subtitles: of one input."""

    def __init__(self, inputs: Inputs, format: str, stream: TextIO | None = None, layout: Layout = Layout()) -> None:
        super().__init__(inputs)
        self._format, self._stream, self._layout = format, stream or sys.stdout, layout
        self._several = inputs.total > 1
        self._held: dict[str, Transcript] = {}
        self._next = 0

    def write(self, transcript: Transcript) -> None:
        if self._format == "jsonl":
            if transcript.error is None:
                self._print(WRITERS["jsonl"](transcript, self.inputs.places[transcript.name].shown, self._layout))
            return
        self._held[transcript.name] = transcript
        if self._format == "txt":
            while self._next < len(self.todo) and self.todo[self._next].name in self._held:
                self._line(self._held.pop(self.todo[self._next].name))
                self._next += 1

    def close(self) -> None:
        ordered = [self._held[item.name] for item in self.todo if item.name in self._held]
        if self._format == "txt":
            for transcript in ordered:
                self._line(transcript)
        if self._format == "json":
            objects = [as_dict(t, self.inputs.places[t.name].shown, self._layout) for t in ordered if t.error is None]
            if self._several or objects:
                self._print(_json(objects if self._several else objects[0], indent=2) + "\n")
        if self._format in TABLES:
            for transcript in ordered:
                if transcript.error is None:
                    self._print(WRITERS[self._format](transcript, transcript.name, self._layout))

    def _line(self, transcript: Transcript) -> None:
        if transcript.error is None:
            text = WRITERS["txt"](transcript, transcript.name, self._layout)
            self._print("".join(f"{transcript.name}: {line}" for line in text.splitlines(keepends=True)) if self._several else text)

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Folder(Output):
    """A file an input and format below a folder, in the tree that the inputs have."""

    def __init__(self, inputs: Inputs, formats: Sequence[str], folder: Path, skip_existing: bool, layout: Layout = Layout()) -> None:
        super().__init__(inputs)
        self._layout = layout
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"-o {folder}: is a file, and -o takes a folder.")
        stems = distinct_stems(inputs)
        check_names(stems.values(), folder)
        self._files = {name: {f: folder / f"{stem}.{f}" for f in formats} for name, stem in stems.items()}
        protected = {Path(os.path.realpath(path)) for path in inputs.sources}
        for path in (path for files in self._files.values() for path in files.values()):
            if path.resolve() in protected:
                raise UsageError(f"-o {folder}: {path} is one of the inputs and would be overwritten; give another folder.")
        if skip_existing:
            self.todo = [item for item in inputs.items if not all(path.is_file() for path in self._files[item.name].values())]
        if self.todo:
            with writing(folder):  # known before hours of audio were heard for it
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()

    def write(self, transcript: Transcript) -> None:
        if transcript.error is not None:
            return
        for format, path in self._files[transcript.name].items():
            write_text(path, WRITERS[format](transcript, self.inputs.places[transcript.name].shown, self._layout))


class Stream(Output):
    """Segments on stdout as they come, in the order of the inputs and of time: txt lines, or jsonl objects that name the recording."""

    def __init__(self, inputs: Inputs, format: str, stream: TextIO | None = None, layout: Layout = Layout()) -> None:
        super().__init__(inputs)
        self._format, self._stream, self._layout = format, stream or sys.stdout, layout
        self._several = inputs.total > 1
        self._held: dict[str, list[Segment]] = {}
        self._ended: set[str] = set()
        self._next = 0

    def write_segment(self, item: AudioInput, segment: Segment) -> None:
        self._held.setdefault(item.name, []).append(segment)
        self._flush()

    def write(self, transcript: Transcript) -> None:
        self._ended.add(transcript.name)
        self._flush()

    def _flush(self) -> None:
        """Print what is held of the first input that has not ended, and of those behind it that this lets through."""
        while self._next < len(self.todo):
            name = self.todo[self._next].name
            for segment in self._held.pop(name, []):
                self._print(name, segment)
            if name not in self._ended:
                return
            self._next += 1

    def _print(self, name: str, segment: Segment) -> None:
        if self._format == "jsonl":
            self._stream.write(_json({"audio": self.inputs.places[name].shown, **segment_dict(segment)}) + "\n")
        elif segment.text:
            text = subtitles.stamped([segment], self._layout) if self._layout.stamped else segment.text + "\n"
            self._stream.write("".join(f"{name}: {line}" for line in text.splitlines(keepends=True)) if self._several else text)
        self._stream.flush()


def open_output(
    inputs: Inputs, format: str = "txt", folder: Path | None = None, skip_existing: bool = False, layout: Layout = Layout(), stream: bool = False
) -> Output:
    """Where the transcripts of these inputs go; `stream`: segment by segment. Raises UsageError for a format that does not exist and for flags that
    need `-o`."""
    if format not in FORMATS:
        raise UsageError(f"-f {format}: there is no such format.{nearest(format, FORMATS)} There is: {', '.join(FORMATS)}.")
    if folder is not None:
        return Folder(inputs, list(WRITERS) if format == "all" else [format], folder, skip_existing, layout)
    if format == "all":
        raise UsageError("-f all writes several files an input: say where with -o DIR.")
    if skip_existing:
        raise UsageError("--skip-existing looks for files in an output folder: say which with -o DIR.")
    if format in TABLES and inputs.total > 1:
        raise UsageError(f"-f {format} is a file an input: say where with -o DIR.")
    return Stream(inputs, format, None, layout) if stream else Stdout(inputs, format, None, layout)


def write_all(transcripts: Iterable[Transcript], output: Output, done: Callable[[Transcript], None] = lambda _: None) -> list[tuple[str, str]]:
    """Write transcripts as they come; returns (name, reason) of every input that failed, those that could not be opened first."""
    failed = list(output.inputs.failures)
    for transcript in transcripts:
        output.write(transcript)
        if transcript.error is not None:
            failed.append((transcript.name, output.inputs.reason(transcript.name, transcript.error)))
        done(transcript)
    return failed


def distinct_stems(inputs: Inputs) -> dict[str, str]:
    """For each input the nicest output stem that no other input has. Raises UsageError where two have none of their own."""
    level = dict.fromkeys(inputs.places, 0)
    while True:
        stems = {name: place.stems[level[name]] for name, place in inputs.places.items()}
        counts = Counter(stems.values())
        clashing = [name for name, stem in stems.items() if counts[stem] > 1]
        if not clashing:
            return stems
        movable = [name for name in clashing if level[name] + 1 < len(inputs.places[name].stems)]
        if not movable:
            raise UsageError(
                f"'{clashing[0]}' and '{clashing[1]}' would be written to the same file below -o: give them other ids, or do them in separate runs."
            )
        for name in movable:
            level[name] += 1
