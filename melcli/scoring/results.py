"""Result files: one JSON object a line for each scored utterance, in the fields of the OpenASR leaderboard, with raw text on both sides.

They are called `MODEL_<id>_DATASET_<path>_<name>_<split>.jsonl`. Lines are appended whole, so that a run that is killed goes on where it was; what
the transcripts depend on is kept beside them in `....settings.json`. Of several processes each writes a share, and the shares are put together.
"""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from melcli.data.rows import MOST_SECONDS, read_lines
from melcli.errors import ManifestError, UsageError, WriteError
from melcli.files import locked, write_text
from melcli.untrusted import parse_json

HYPOTHESIS_KEYS = ("pred_text", "hyp")


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What a model heard in one utterance.

    audio_filepath: what the utterance is called, unique in its file; `row N` where the file does not say. duration, time: seconds of audio, and
    seconds it took. text, pred_text: the reference and the hypothesis, both as they came. speaker, parent_id, chunk_index: where known; a call cut
    into chunks shares its parent_id. finish_reason: why decoding stopped (eos, length, repetition, silence), where known. speech: what was measured
    of synthetic speech (scoring/tts/measures.py); `time` is then what speaking took. reply: what a model that replies wrote, with what that is judged
    by (scoring/answers.py, scoring/continuation.py).
    """

    audio_filepath: str
    duration: float | None
    time: float | None
    text: str
    pred_text: str
    speaker: str | None = None
    parent_id: str | None = None
    chunk_index: int | None = None
    finish_reason: str | None = None
    speech: Mapping[str, Any] | None = None
    reply: Mapping[str, Any] | None = None


def file_name(model: str, label: str) -> str:
    """The name of a result file. model: its name, folder or hub id."""
    return f"MODEL_{model.strip('./').replace('/', '-')}_DATASET_{label}.jsonl"


def parse_name(path: Path) -> tuple[str | None, str]:
    """The model's id, '/' written as '-' in it, and the label of the set, out of a file name; no model where it is named otherwise."""
    name = path.name.removesuffix(".jsonl")
    model, found, label = name.removeprefix("MODEL_").partition("_DATASET_")
    return (model, label) if found and name.startswith("MODEL_") else (None, name)


def model_of(path: Path) -> str | None:
    """The model of a result file: as its settings beside it call it, or else as its name does; None where neither says."""
    with suppress(OSError, ValueError, AttributeError):
        if isinstance(model := parse_json(settings_path(path).read_text(encoding="utf-8")).get("model"), str):
            return model
    return parse_name(path)[0]


def read(path: Path) -> list[ResultRow]:
    """The rows of a result file, ours or anyone's. Raises ManifestError with file and line, or with the utterances that are in it twice."""
    rows = [_row(row, where, number) for number, (where, row) in enumerate(read_lines(path), start=1)]
    twice = [name for name, count in Counter(row.audio_filepath for row in rows).items() if count > 1]
    if twice:
        listed = ", ".join(twice[:10]) + (f" and {len(twice) - 10} more" if len(twice) > 10 else "")
        raise ManifestError(f"{path}: {len(twice)} utterances are in it more than once: {listed}.")
    return rows


def _row(row: Mapping[str, Any], where: str, number: int) -> ResultRow:
    key = next((key for key in HYPOTHESIS_KEYS if key in row), None)
    if key is None or "text" not in row:
        raise ManifestError(f"{where}: no '{'text' if key else 'pred_text'}'; a row holds 'text' and one of: {', '.join(HYPOTHESIS_KEYS)}.")
    if not isinstance(row["text"], str) or not isinstance(row[key], str):
        raise ManifestError(f"{where}: 'text' and '{key}' must both be strings.")
    index, parent, speaker, reason = row.get("chunk_index"), row.get("parent_id"), row.get("speaker"), row.get("finish_reason")
    if (parent is None) != (index is None) or (index is not None and (isinstance(index, bool) or not isinstance(index, int))):
        raise ManifestError(f"{where}: 'parent_id' and 'chunk_index' (a whole number) go together.")
    return ResultRow(
        audio_filepath=str(row.get("audio_filepath") or f"row {number}"),
        duration=_seconds(row.get("duration"), "duration", where),
        time=_seconds(row.get("time"), "time", where),
        text=row["text"],
        pred_text=row[key],
        speaker=None if speaker is None else str(speaker),
        parent_id=None if parent is None else str(parent),
        chunk_index=index,
        finish_reason=None if reason is None else str(reason),
        speech=row["speech"] if isinstance(row.get("speech"), dict) else None,
        reply=row["reply"] if isinstance(row.get("reply"), dict) else None,
    )


def _seconds(value: object, key: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_SECONDS:
        raise ManifestError(f"{where}: '{key}' is {json.dumps(value)[:60]}, expected seconds as a number of at least 0.")
    return float(value)


def finish_reason(pieces: Sequence[str | None]) -> str | None:
    """Why decoding of the whole stopped: what went wrong in a piece, else `eos`; `silence` where all are silent, None where one does not say."""
    if not pieces or None in pieces:
        return None
    return next((reason for reason in pieces if reason not in ("eos", "silence")), "eos" if "eos" in pieces else "silence")


def to_line(row: ResultRow) -> str:
    """One line of a result file. The leaderboard's fields are always there, further ones where known."""
    fields = asdict(row)
    for key in ("speaker", "parent_id", "chunk_index", "finish_reason", "speech", "reply"):
        if fields[key] is None:
            del fields[key]
    return json.dumps(fields, ensure_ascii=False) + "\n"


class Appender:
    """A file that gets whole lines: each is one write, so that whatever kills the process leaves at most the last one torn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from None

    def write(self, row: ResultRow) -> None:
        """Append a row. Raises WriteError where it could not be written; the part that was is cut off the next time."""
        try:
            line = to_line(row).encode()
            if self._file.write(line) != len(line):
                raise OSError("the disk is full")
        except OSError as error:
            raise WriteError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def repair(path: Path) -> bool:
    """Cut off a last line that was torn when its writer was killed. Returns whether there was one."""
    if not path.exists():
        return False
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole == len(data):
        return False
    with suppress(ValueError):  # others' files may end without a line break
        json.loads(data[whole:])
        with path.open("ab") as file:
            file.write(b"\n")
        return False
    os.truncate(path, whole)
    return True


@contextmanager
def claim(path: Path) -> Iterator[None]:
    """Keep other runs off a result file; the claim ends with this process, whatever ends it. Raises UsageError where another run has it."""
    beside = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(beside, os.O_WRONLY | os.O_CREAT, 0o644)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from None
    with locked(lock, f"{path}: another run is writing to it; wait until it ends, or give another -o."):
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)


def settings_path(path: Path) -> Path:
    """Where the settings of a result file are."""
    return path.with_suffix(".settings.json")


def begin(path: Path, settings: Mapping[str, str], overwrite: bool = False) -> None:
    """Make ready to go on with a result file, or to begin it. overwrite: throw away what is there.

    settings: all that transcripts depend on. Raises UsageError where what is there was made with others.
    """
    beside = settings_path(path)
    if overwrite:
        for old in (path, beside, *shares(path)):
            old.unlink(missing_ok=True)
    there = any(file.exists() for file in (path, *shares(path)))
    if there and not beside.exists():
        raise UsageError(f"{path}: is there already, and not known what made it; give another -o, or --overwrite to begin it anew.")
    if there:
        try:
            theirs = dict(parse_json(beside.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            theirs = {}
        for key in [*settings, *theirs]:
            if settings.get(key) != theirs.get(key):
                what = f"{key[:80]} was {repr(theirs.get(key))[:200]}, now it is {repr(settings.get(key))[:200]}"
                raise UsageError(f"{path}: was made otherwise: {what}; give another -o, or --overwrite to begin it anew.")
    else:
        write_text(beside, json.dumps(dict(settings), indent=1, ensure_ascii=False) + "\n")
    for file in (path, *shares(path)):
        repair(file)


def share_path(path: Path, rank: int, world: int) -> Path:
    """The file that one of several processes writes."""
    return path if world == 1 else path.with_name(f"{path.name}.{rank}-of-{world}")


def shares(path: Path) -> list[Path]:
    """The files of processes that have not been put together yet."""
    return sorted(path.parent.glob(f"{glob.escape(path.name)}.*-of-*"))


def settle(path: Path, order: Sequence[str]) -> None:
    """Put the shares into the result file, in the order of the set; rows of utterances that the order does not have come last."""
    parts = [*([path] if path.exists() else []), *shares(path)]
    if not parts:
        return
    rows = {row.audio_filepath: row for part in parts for row in read(part)}
    names = list(dict.fromkeys([*(name for name in order if name in rows), *rows]))
    if len(parts) > 1 or parts != [path] or list(rows) != names:
        write_text(path, "".join(to_line(rows[name]) for name in names))
    for part in shares(path):
        part.unlink()


def held(path: Path, texts: Mapping[str, str], whole: Collection[str] = ()) -> set[str]:
    """The utterances that a file has already.

    texts: name to reference. whole: the names of all utterances of the set. Raises UsageError where the file has another reference for one, or
    utterances of another set only: two sets may go by one name.
    """
    if not path.exists():
        return set()
    rows = read(path)
    known = set(whole) or set(texts)
    if rows and all(row.audio_filepath not in known for row in rows):
        raise UsageError(f"{path}: holds another set of this name ({rows[0].audio_filepath}); give another -o, or --overwrite to begin it anew.")
    for row in rows:
        if texts.get(row.audio_filepath, row.text) != row.text:
            raise UsageError(f"{path}: has another text for {row.audio_filepath} than the set; give another -o, or --overwrite to begin it anew.")
    return {row.audio_filepath for row in rows}
