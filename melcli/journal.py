"""The rows of a manifest that is written at the end of a run, kept meanwhile, so that a run which is killed loses none of them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from melcli.data.rows import read_lines
from melcli.errors import ManifestError
from melcli.files import write_text, writing


class Journal:
    """What is known of each output, by its path below the folder (`audio`): of earlier runs, killed ones too, and what this one adds.

    It stands beside the manifest under a name of its own, gets a whole line for each output and goes when the manifest is written.
    """

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self.path = manifest.with_name(f".{manifest.name}.begun")
        self.rows: dict[str, dict[str, Any]] = {}
        for path in (self.manifest, self.path):
            self.rows |= _read(path)
        self._file: int | None = None
        self._whole = 0  # bytes of whole lines

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row. Raises WriteError."""
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        with writing(self.path):
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
                self._whole = _cut(self._file)
            if os.write(self._file, line) != len(line):
                os.ftruncate(self._file, self._whole)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._whole += len(line)
        self.rows[row["audio"]] = dict(row)

    def finish(self, lines: str) -> Path:
        """Write the manifest, whose lines are these, and forget the journal. Raises WriteError."""
        write_text(self.manifest, lines)
        self.path.unlink(missing_ok=True)
        return self.manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _cut(file: int) -> int:
    """Cut off a last line that was torn when its writer was killed; returns the bytes that stay."""
    size = os.fstat(file).st_size
    whole = os.pread(file, size, 0).rfind(b"\n") + 1
    os.ftruncate(file, whole)
    return whole


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by their audio; of a file that was torn those before the tear, and none of one that cannot be read."""
    found: dict[str, dict[str, Any]] = {}
    try:
        for _, row in read_lines(path):
            if isinstance(row.get("audio"), str):
                found[row["audio"]] = row
    except (ManifestError, OSError):
        pass
    return found
