"""A JSONL file of texts to speak, and where the audio of each goes: always inside the output folder, never over an input.

{"text": "Good morning."}
{"text": "Good night.", "id": "night", "voice": "ann.wav", "voice_text": "what Ann says in it"}
{"text": "Good bye.", "audio": "partings/bye.flac"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcli.audio.io import WRITTEN
from melcli.data.folders import is_audio
from melcli.data.rows import read_lines
from melcli.errors import ManifestError, UsageError
from melcli.inputs import inside
from melcli.journal import Journal
from melcli.untrusted import check_names

MANIFEST = "manifest.jsonl"
"""Written into the output folder: what was spoken, for `melcli score` and `melcli transcribe`."""

LONGEST_NAME = 240
"""Bytes: what file systems take, 255, less what a temporary name adds."""

KEYS = ("id", "audio", "text", "duration", "odd")
"""Of a row of it."""


@dataclass(frozen=True, slots=True)
class Row:
    """where: file and line. audio: the output's path below the output folder; path: with the folder."""

    where: str
    id: str
    text: str
    audio: str
    path: Path
    voice: Path | None = None
    voice_text: str | None = None


def read_rows(source: Path, folder: Path) -> list[Row]:
    """The rows of a file, each with its place below `folder`: its `audio`, else its `id`, else its line's number.

    Raises ManifestError, with the line, for one that is no JSON object or has no text; UsageError where two would be written to the same file or
    one over an input.
    """
    written = list(read_lines(source))
    rows = [_row(source, folder, where, row) for where, row in written]
    if not rows:
        raise ManifestError(f"{source}: holds no rows")
    places: dict[Path, Row] = {}
    for row in rows:
        other = places.setdefault(row.path.resolve(), row)
        if other is not row:
            raise UsageError(f"{row.where}: would be written to {row.path}, as {other.where} is; give them ids of their own.")
    check_names([row.audio for row in rows], folder)
    recordings = [source.parent / row["audio"] for _, row in written if isinstance(row.get("audio"), str)]
    protect([row.path for row in rows] + [folder / MANIFEST], [source, *recordings, *(row.voice for row in rows if row.voice)])
    return rows


def protect(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raises UsageError where an output would take the place of an input that is there."""
    protected = {path.resolve() for path in inputs if path.exists()}
    for path in outputs:
        if path.resolve() in protected:
            raise UsageError(f"-o: {path} is one of the inputs and would be overwritten; give another name.")


def write_manifest(rows: Sequence[Row], journal: Journal) -> Path:
    """A row for each output that is there: id, audio, text, and what this run, else an earlier one, noted of it."""
    lines = [journal.rows.get(row.audio, {}) | {"id": row.id, "audio": row.audio, "text": row.text} for row in rows if row.path.is_file()]
    return journal.finish("".join(json.dumps({key: line[key] for key in KEYS if key in line}, ensure_ascii=False) + "\n" for line in lines))


def _row(source: Path, folder: Path, where: str, row: dict[str, Any]) -> Row:
    for key in ("id", "audio", "voice"):
        if "\0" in str(row.get(key)):
            raise ManifestError(f"{where}: '{key}' holds a null character, which no file name can")
    for key in ("text", "audio", "voice", "voice_text"):
        if not isinstance(row.get(key, ""), str) and row[key] is not None:
            raise ManifestError(f"{where}: '{key}' is {json.dumps(row[key])[:60]}, expected a string")
    if row.get("text") is None:
        raise ManifestError(f"{where}: no 'text'; valid are text, id, audio, voice, voice_text")
    number = where.rpartition(":")[2].zfill(4)
    name = inside(str(row["id"])) if row.get("id") is not None else number
    audio = _with_suffix(inside(row["audio"]) if row.get("audio") else name)
    if any(len(part.encode()) > LONGEST_NAME for part in audio.split("/")):
        raise ManifestError(f"{where}: '{audio[:40]}…' is longer than the {LONGEST_NAME} bytes that a file's name may have")
    voice = source.parent / row["voice"] if row.get("voice") else None
    return Row(where, name if row.get("id") is None else str(row["id"]), row["text"], audio, folder / audio, voice, row.get("voice_text"))


def _with_suffix(name: str) -> str:
    """A suffix that can be written stays, that of other audio becomes .wav, and what has none gets it."""
    if name.lower().endswith(tuple("." + suffix for suffix in WRITTEN)):
        return name
    return f"{name.rpartition('.')[0] if is_audio(name) else name}.wav"
