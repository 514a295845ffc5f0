"""The folder of an export: written under a temporary name, moved into place whole, and never over what is somebody else's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from melcli.errors import UsageError, WriteError
from melcli.files import put_in_place, writing
from melcli.untrusted import parse_json

FACTS = "export.json"
"""What the folder is, and its files: by this one is known to be ours."""


def check(out: Path) -> None:
    """Raises UsageError where something is in the way that an earlier export did not write."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"-o {out}: is no folder; give the name of one, which is made")
    there = _files(out) if out.is_dir() else set()
    if not there:
        return
    try:
        own = {FACTS, *map(str, parse_json((out / FACTS).read_text(encoding="utf-8"))["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"-o {out}: holds files already and no {FACTS}, so melcli did not export it; give another folder") from None
    if strange := sorted(there - own):
        raise UsageError(f"-o {out}: holds {strange[0]}, which melcli did not export; give another folder")


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `out` at the end of the `with` and is removed where anything in it fails.

    Raises UsageError as `check` does, and where another process exports to `out`; WriteError where the disk is full or the place is closed.
    """
    check(out)
    partial = out.with_name(f".{out.name}.partial")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
            partial.mkdir()
            try:
                yield partial
                put_in_place(partial, out)
            except WriteError as error:  # by whoever wrote below it
                raise type(error)(str(error).replace(str(partial), str(out))) from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keeps other processes from exporting to the same folder."""
    from filelock import FileLock, Timeout

    path = out.with_name(f".{out.name}.lock")
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        raise UsageError(f"-o {out}: another process is exporting to it") from None


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write export.json, the names and sizes of all other files included."""
    files = {name: (folder / name).stat().st_size for name in sorted(_files(folder))}
    (folder / FACTS).write_text(json.dumps({**facts, "files": files}, indent=2) + "\n", encoding="utf-8")


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}
