"""Texts to be spoken: manifests whose rows need no audio, plain text files, and every source of utterances.

    {"text": "Where are my keys?"}
    {"id": "keys", "text": "Where are my keys?", "audio": "keys.wav", "speaker": "anna"}

The text of a row without `text` is its `question`. Where a row names audio, that is a recording of the text by somebody else: what synthetic speech
is compared with.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from melcli.data import selection
from melcli.data.durations import fill_durations
from melcli.data.manifest import read_source
from melcli.data.rows import from_row, read_lines
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError

UNSEEN = Path(__file__).parent.parent / "assets" / "sentences" / "unseen-en.jsonl"
"""Fifty plain English sentences that no model here was trained on."""


def read_texts(source: str, *, root: Path | None = None, offline: bool = False, durations: bool = True) -> list[Utterance]:
    """The texts of a source as utterances, without audio where there is none; ids are unique and without folders.

    source: a .jsonl or .txt file (a text a line), or any source of utterances. durations: False opens no audio file, not even for its header.
    Raises ManifestError with file and line.
    """
    base, _, chosen = source.rpartition("?") if "?" in source and not os.path.exists(source) else (source, "", "")
    path = Path(os.path.expanduser(base))
    if os.path.isfile(path) and path.name.endswith((".jsonl", ".jsonl.gz")):
        found = _read_rows(path, durations)
    elif os.path.isfile(path) and path.suffix == ".txt":
        found = [Utterance(f"{number:04d}", (), line.strip()) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    else:
        return read_source(source, root=root, offline=offline, durations=durations)
    found = selection.select(found, selection.parse(chosen, source), source)
    if not found:
        raise ManifestError(f"{source}: holds no texts")
    return found


def by_name(utterances: list[Utterance]) -> dict[str, Utterance]:
    """Utterances by the last part of their ids; those that share it are numbered."""
    seen: Counter[str] = Counter()
    found: dict[str, Utterance] = {}
    for utterance in utterances:
        name = Path(utterance.id).name or utterance.id
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = utterance
    return found


def _read_rows(path: Path, durations: bool) -> list[Utterance]:
    folder = str(path.resolve().parent)
    found = []
    for number, (where, row) in enumerate(read_lines(path), start=1):
        if "audio" in row or "audio_filepath" in row:
            found.append(from_row(row, folder, where))
            continue
        text, name, speaker = row.get("text", row.get("question")), row.get("id", f"{number:04d}"), row.get("speaker")
        if not isinstance(text, str):
            raise ManifestError(f"{where}: 'text' is {json.dumps(text)[:60]}, expected what is to be spoken")
        rest = {key: value for key, value in row.items() if key not in ("id", "text", "speaker")}
        found.append(Utterance(str(name), (), text, speaker=None if speaker is None else str(speaker), extra=rest))
    if not durations:
        return found
    filled = iter(fill_durations([one for one in found if one.audio]))
    return [next(filled) if one.audio else one for one in found]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
