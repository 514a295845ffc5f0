"""Kaldi data folders: `wav.scp`, and where they exist `text`, `utt2spk`, `segments`, `utt2dur`.

Paths in `wav.scp` are taken relative to the folder, the folder above it (as speechocean762 has it) or the working folder, whichever holds the file. A
`wav.scp` line that is a command ending in a pipe is refused: a data file must not start programs.
"""

from __future__ import annotations

import os
from pathlib import Path

from melcli.data.rows import MOST_SECONDS
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError


def _table(path: Path) -> dict[str, tuple[str, str]]:
    """key -> ('file:LINE', the rest of the line)."""
    table: dict[str, tuple[str, str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read, {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        if key in table:
            raise ManifestError(f"{path}:{number}: '{key}' is listed twice")
        table[key] = (f"{path}:{number}", rest.strip())
    return table


def _optional(path: Path) -> dict[str, tuple[str, str]]:
    return _table(path) if path.exists() else {}


def _audio(where: str, entry: str, folder: Path) -> str:
    if entry.endswith("|"):
        raise ManifestError(f"{where}: a command with a pipe; run it, save the audio as a file and list that path instead")
    if not entry or "\0" in entry:
        raise ManifestError(f"{where}: no path after the id")
    for base in (folder, folder.parent, Path.cwd()):
        if os.path.isfile(base / entry):
            return os.path.normpath(base.resolve() / entry)
    return os.path.normpath(folder.resolve() / entry)


def _segments(path: Path, recordings: dict[str, str]) -> dict[str, tuple[str, float, float]]:
    cut: dict[str, tuple[str, float, float]] = {}
    for key, (where, rest) in _table(path).items():
        fields = rest.split()
        try:
            recording, start, end = fields[0], float(fields[1]), float(fields[2])
        except (IndexError, ValueError):
            raise ManifestError(f"{where}: '{rest}', expected RECORDING START END with seconds") from None
        if recording not in recordings:
            raise ManifestError(f"{where}: recording '{recording}' is not in wav.scp")
        if not 0 <= start < end <= MOST_SECONDS:
            raise ManifestError(f"{where}: segment from {start:g} to {end:g} s")
        cut[key] = (recording, start, end)
    return cut


def read_kaldi(folder: Path) -> list[Utterance]:
    """The utterances of a Kaldi data folder, sorted by id. A `text` line for an utterance that does not exist is a ManifestError."""
    recordings = {key: _audio(where, entry, folder) for key, (where, entry) in _table(folder / "wav.scp").items()}
    if not recordings:
        raise ManifestError(f"{folder / 'wav.scp'}: empty")
    texts, speakers, lengths = (_optional(folder / name) for name in ("text", "utt2spk", "utt2dur"))
    segments = _segments(folder / "segments", recordings) if (folder / "segments").exists() else None
    ids = sorted(segments if segments is not None else recordings)
    known = set(ids)
    for key, (where, _) in texts.items():
        if key not in known:
            raise ManifestError(f"{where}: utterance '{key}' is not in {'segments' if segments is not None else 'wav.scp'}")

    def duration(key: str) -> float | None:
        if key not in lengths:
            return None
        where, value = lengths[key]
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= MOST_SECONDS:
            raise ManifestError(f"{where}: '{value}' is not a number of seconds")
        return seconds

    if not ids:
        raise ManifestError(f"{folder / 'segments'}: empty")
    utterances = []
    for key in ids:
        recording, start, end = segments[key] if segments is not None else (key, None, None)
        utterances.append(
            Utterance(
                id=key,
                audio=(recordings[recording],),
                text=texts[key][1] if key in texts else None,
                duration=end - start if start is not None and end is not None else duration(key),
                speaker=speakers[key][1] if key in speakers else None,
                start=start,
                end=end,
            )
        )
    return utterances
