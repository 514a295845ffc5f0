"""Writing files so that one which is there is whole: under a temporary name beside it, then renamed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from melcli.errors import DiskFull, MelcliError, UsageError, WriteError, first_line

TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)-[0-9a-f]{8}\.tmp")
LONGEST = 200  # bytes of a file's name that its temporary name repeats; file systems take 255
FULL = re.compile(r"no space left|disk quota|failed writing file|inline_container|iostream error", re.IGNORECASE)
"""What libraries say that have no OSError for a disk that took not all: safetensors by its own error, torch by RuntimeErrors."""
ROOM = 1 << 20  # bytes; a disk with less has just been filled


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an error because the disk is full or the place cannot be written to is a WriteError about `path`, whichever library raises it.

    DiskFull where there is no room.
    """
    try:
        yield
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else WriteError
        raise kind(f"{path}: cannot be written: {error.strerror or error}") from None
    except Exception as error:
        if isinstance(error, MelcliError) or not FULL.search(str(error)):
            raise
        raise failure(path, error) from None


def failure(path: Path, error: Exception) -> WriteError:
    """The error of a file that a library could not write and does not say why: the disk is full where there is next to no room on it."""
    there = next(folder for folder in path.absolute().parents if folder.is_dir())
    if shutil.disk_usage(there).free < ROOM:
        return DiskFull(f"{path}: cannot be written: {os.strerror(errno.ENOSPC)}")
    return WriteError(f"{path}: cannot be written: {first_line(error).rstrip('.')}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes `path` at the end of the `with` and is removed where anything in it fails.

    Makes the folder, and removes from it what processes that were killed left there under such names.
    Raises WriteError where the disk is full or the place cannot be written to.
    """
    short = path.name.encode()[:LONGEST].decode(errors="ignore")
    temporary = path.with_name(f".{short}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path.parent.absolute())
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@cache
def _sweep(folder: Path) -> None:
    """Remove the temporary files of processes that are gone; once for each folder that this process writes to."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (found := TEMPORARY.fullmatch(entry.name)) and not _is_running(int(found["pid"])):
                with suppress(OSError):
                    os.unlink(entry.path)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's process
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole text file. Raises WriteError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def put_in_place(partial: Path, folder: Path) -> None:
    """Have a folder that was written under another name take its own, and what was there before go.

    Whoever may list the folder may read what safetensors wrote for its owner alone.
    Killed in between, neither is there under its own name, never a mixture. Raises OSError.
    """
    for path in partial.rglob("*.safetensors"):
        path.chmod(partial.stat().st_mode & 0o666)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(folder: Path, who: str) -> Iterator[None]:
    """Hold a folder, which is made where it is not there, against a second run into it; the hold ends with this process, whatever ends it.

    who: what is running, for the message. Raises UsageError where another process holds it, or there is a file; WriteError.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder}: is a file, and -o takes a folder")
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(folder, who):
            yield
    finally:
        if made:
            with suppress(OSError):  # there is something in it
                folder.rmdir()


@contextmanager
def _held(folder: Path, who: str) -> Iterator[None]:
    try:
        held = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows; a folder that may be written but not listed
        yield
        return
    with locked(held, f"-o {folder}: another {who} is writing there; wait for it, or give another folder"):
        yield


_locks: set[int] = set()


def _let_go() -> None:
    """A lock is of the process that took it: through a worker that was forked from it, it would outlive that process."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(descriptor: int, otherwise: str) -> Iterator[None]:
    """Inside, no other process can lock that open file or folder; it is closed afterwards. Raises UsageError(otherwise) where one holds it."""
    _locks.add(descriptor)
    try:
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(otherwise) from None
        except (ImportError, OSError):  # Windows; a file system without locks
            pass
        yield
    finally:
        if descriptor in _locks:  # no longer in a process that was forked meanwhile
            _locks.remove(descriptor)
            os.close(descriptor)
