"""JSONL manifests: a line an utterance, in our own spelling, NeMo's, or the result rows of the Open ASR leaderboard.

    {"audio": "a.wav", "text": "hello there", "duration": 1.4, "speaker": "x", "start": 0.0, "end": 1.4}
    {"audio_filepath": "a.wav", "text": "hello there", "duration": 1.4, "offset": 0.0}

Paths are relative to the manifest. `audio` may be a list, joined with `gap` seconds between the parts. The text of a row without `text` is its
`question`, which is what question-and-answer sets call the spoken words; `answer` is the text of its answer, `answer_audio` a recording of that.
Everything else a row holds is kept in `Utterance.extra`.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from melcli.data.utterance import Utterance
from melcli.errors import ManifestError
from melcli.untrusted import parse_json

_OWN = frozenset({"id", "audio", "audio_filepath", "text", "duration", "speaker", "start", "end", "offset", "gap"})
LONGEST_LINE = 16_000_000  # characters: hours of transcript with the time of every word
MOST_SECONDS = 1e9  # thirty years
LONGEST_GAP = 60.0  # seconds of silence between the parts of an utterance
FREELY, SQUEEZED = 64_000_000, 300  # characters a manifest may have in any case; beyond, so many times its bytes on disk: JSON packs to a tenth
ADDRESSES = ("synth:", "hf:", "parquet:")  # audio that is no path: spoken or taken out of a data set when it is loaded


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """('file:LINE', row) of each line of a JSONL file, plain or gzipped. ManifestError names the line that is no JSON object."""
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else open(path, encoding="utf-8-sig") as lines:
            number, read = 0, 0
            while line := lines.readline(LONGEST_LINE + 1):
                number, read = number + 1, read + len(line)
                where = f"{path}:{number}"
                if len(line) > LONGEST_LINE:
                    raise ManifestError(f"{where}: a line of more than {LONGEST_LINE:,} characters, which no row of a manifest has")
                if path.suffix == ".gz" and read > FREELY and read > SQUEEZED * (size := path.stat().st_size):
                    why = f"{size:,} bytes that unpack to more than {read:,} characters"
                    raise ManifestError(f"{where}: {why}, as no manifest does; unpack it first if it is one")
                if not line.strip():
                    continue
                try:
                    row = parse_json(line)
                    if "\\ud" in line.lower():
                        json.dumps(row, ensure_ascii=False).encode()  # half a character could not be written again
                except json.JSONDecodeError as error:
                    raise ManifestError(f"{where}: not JSON, {error.msg} at column {error.colno}; every line must be one JSON object") from None
                except ValueError as error:  # a number of thousands of digits, brackets in brackets in brackets
                    raise ManifestError(f"{where}: not to be read as JSON, {error}") from None
                if not isinstance(row, dict):
                    raise ManifestError(f"{where}: a JSON {type(row).__name__} where an object belongs; a manifest has one a line")
                yield where, row
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); a manifest is a text file of JSON lines") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ManifestError(f"{path}: cannot be read, {getattr(error, 'strerror', None) or error}") from None


def seconds_in(row: Mapping[str, Any], key: str, where: str) -> float | None:
    """Seconds, None where the row has none. Raises ManifestError."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_SECONDS:
        raise ManifestError(f"{where}: '{key}' is {json.dumps(value)[:60]}, expected seconds as a number of at least 0")
    return float(value)


def string_in(row: Mapping[str, Any], key: str, where: str) -> str | None:
    """Text, or a name that may have been written as a number; None where the row has none. Raises ManifestError."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and key != "text":
        return str(value)  # ids and speakers are often written as numbers
    raise ManifestError(f"{where}: '{key}' is {json.dumps(value)[:60]}, expected a string")


def _audio(row: Mapping[str, Any], where: str) -> list[str]:
    key = "audio" if "audio" in row else "audio_filepath"
    value = row.get(key)
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) and part and "\0" not in part for part in parts):
        what = "no 'audio' (or 'audio_filepath')" if key not in row else f"'{key}' is {json.dumps(value)[:60]}, expected a path or a list of paths"
        raise ManifestError(f"{where}: {what}")
    return parts


def resolve(audio: str, folder: str) -> str:
    """An address as it is, a path made absolute from the folder of its manifest."""
    return audio if audio.startswith(ADDRESSES) else os.path.normpath(os.path.join(folder, audio))


def from_row(row: Mapping[str, Any], folder: str, where: str) -> Utterance:
    """The utterance of one manifest row; `folder` is the absolute folder that its paths are relative to. ManifestError starts with `where`."""
    parts = _audio(row, where)
    start = seconds_in(row, "start" if "start" in row else "offset", where)
    end, duration = seconds_in(row, "end", where), seconds_in(row, "duration", where)
    if end is None and duration is not None and "offset" in row:
        end = (start or 0.0) + duration  # NeMo: `duration` seconds from `offset` on
    if end is not None and end <= (start or 0.0):
        raise ManifestError(f"{where}: 'end' {end:g} is not after 'start' {start or 0.0:g}")
    if len(parts) > 1 and (start is not None or end is not None):
        raise ManifestError(f"{where}: 'start' and 'end' go with one audio file, here are {len(parts)}")
    if (gap := seconds_in(row, "gap", where) or 0.0) > LONGEST_GAP:
        raise ManifestError(f"{where}: 'gap' is {gap:g}, expected a pause of at most {LONGEST_GAP:g} seconds")
    if duration is None and end is not None:
        duration = end - (start or 0.0)
    name = string_in(row, "id", where)
    if name is None:
        name = parts[0] if parts[0].startswith(ADDRESSES) else os.path.splitext(parts[0])[0]
        name = name if start is None else f"{name}-{start:.2f}"
    text = string_in(row, "text", where)
    extra = {key: value for key, value in row.items() if key not in _OWN}
    if (spoken := string_in(row, "answer_audio", where)) is not None:
        extra["answer_audio"] = resolve(spoken, folder)
    return Utterance(
        id=name,
        audio=tuple(resolve(part, folder) for part in parts),
        text=text if text is not None else string_in(row, "question", where),
        duration=duration,
        speaker=string_in(row, "speaker", where),
        start=start,
        end=end,
        gap=gap,
        extra=extra,
    )


def to_row(utterance: Utterance, folder: str | None = None) -> dict[str, Any]:
    """The manifest row of an utterance, without what is empty. Paths below `folder` become relative to it, others stay absolute."""

    def shorten(audio: str) -> str:
        if folder is None or audio.startswith(ADDRESSES) or not audio.startswith(folder + os.sep):
            return audio
        return os.path.relpath(audio, folder)

    parts = [shorten(audio) for audio in utterance.audio]
    row: dict[str, Any] = {"id": utterance.id, "audio": parts[0] if len(parts) == 1 else parts}
    for key in ("text", "duration", "speaker", "start", "end"):
        if (value := getattr(utterance, key)) is not None:
            row[key] = round(value, 4) if isinstance(value, float) else value
    if utterance.gap:
        row["gap"] = utterance.gap
    if spoken := utterance.extra.get("answer_audio"):
        row["answer_audio"] = shorten(spoken)
    return row | {key: value for key, value in utterance.extra.items() if key not in row}


def read_jsonl(path: Path) -> list[Utterance]:
    """The utterances of a JSONL manifest: ours, NeMo's, the leaderboard's, or lhotse cuts, told apart by their keys."""
    from melcli.data import lhotse_cuts

    folder = str(path.resolve().parent)
    utterances = [
        lhotse_cuts.from_cut(row, folder, where) if lhotse_cuts.is_cut(row) else from_row(row, folder, where) for where, row in read_lines(path)
    ]
    if not utterances:
        raise ManifestError(f"{path}: an empty manifest")
    return utterances
