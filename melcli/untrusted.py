"""What other people's files hold: JSON of any depth, and names that are to become names of files below an output folder."""

from __future__ import annotations

import json
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from melcli.errors import UsageError

LONGEST_NAME = 240
"""Bytes: what file systems take, 255, less what a temporary name adds."""

LONGEST_PATH = 2000
"""Bytes, of what systems take, 4096, less the folder's own."""


def parse_json(text: str) -> Any:
    """JSON whoever wrote it. Raises ValueError alone, for brackets too deep to follow as well."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets within brackets, too deep to be read") from None


def check_names(names: Iterable[str], folder: Path) -> None:
    """Raises UsageError where paths, different and inside the folder, cannot be written there, or two of them would be the same file."""
    folded: dict[str, str] = {}
    apart: bool | None = None
    for name in names:
        shown = f"'{name[:40]}…'" if len(name) > 40 else f"'{name}'"
        if "\0" in name:
            raise UsageError(f"-o {folder}: {shown} holds a null character, which no file name can; give it another id.")
        parts = [part.encode(errors="replace") for part in name.split("/")]
        if max(map(len, parts)) > LONGEST_NAME or sum(map(len, parts)) + len(parts) > LONGEST_PATH:
            raise UsageError(f"-o {folder}: {shown} is longer than the {LONGEST_NAME} bytes that a file's name may have; give it a shorter id.")
        other = folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            apart = _told_apart(folder) if apart is None else apart
            if not apart:
                raise UsageError(f"-o {folder}: '{other}' and '{name}' would be the same file there, where case or accents do not count.")


def _told_apart(folder: Path) -> bool:
    """Whether the file system of a folder, which may still be to be made, keeps names apart that differ in case, or in how accents are written."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".melcli-", dir=place) as tried:
            (Path(tried) / "\u00c9").touch()
            return not any((Path(tried) / name).exists() for name in ("\u00e9", "E\u0301"))
    except OSError:  # whoever writes there will say so
        return True
