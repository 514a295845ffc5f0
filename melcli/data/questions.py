"""Questions with their answers: manifests whose rows need no audio, and every source of utterances.

    {"audio": "1.wav", "question": "What is the capital of France?", "answer": "Paris"}
    {"question": "what does jamaican people speak?", "answers": ["Jamaican Creole English Language", "Jamaican English"]}

The question may be called `text` as well; one without audio is written, until somebody speaks it.
"""

from __future__ import annotations

import json
from pathlib import Path

from melcli.data.durations import fill_durations
from melcli.data.manifest import read_source
from melcli.data.rows import from_row, read_lines
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError


def read_questions(source: str, *, root: Path | None = None, offline: bool = False) -> list[Utterance]:
    """The questions of a source, their answers in `extra` as the source has them. Raises ManifestError with file and line."""
    path = Path(source).expanduser()
    if path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz")):
        return fill_durations(read_rows(path))
    return read_source(source, root=root, offline=offline)


def read_rows(path: Path) -> list[Utterance]:
    """The rows of a JSONL file; those without audio are called by their id, or by their line's number. Raises ManifestError with file and line."""
    folder = str(path.resolve().parent)
    found = []
    for number, (where, row) in enumerate(read_lines(path), start=1):
        if "audio" in row or "audio_filepath" in row:
            found.append(from_row(row, folder, where))
            continue
        text = row.get("text") if row.get("text") is not None else row.get("question")
        if not isinstance(text, str) or not text.strip():
            raise ManifestError(f"{where}: neither audio nor a written 'question', but {json.dumps(row)[:60]}")
        rest = {key: value for key, value in row.items() if key not in ("id", "text", "speaker")}
        found.append(Utterance(str(row.get("id", f"{number:04d}")), (), text.strip(), extra=rest))
    if not found:
        raise ManifestError(f"{path}: holds no questions")
    return found
