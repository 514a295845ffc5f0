"""Files behind addresses (`s3://`, `gs://`, `https://`, all that fsspec knows), copied to a folder of this machine when they are first wanted.

The folder is shared by all processes of the machine and all runs. Its size is bounded: what was not wanted for longest goes first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melcli.errors import ShardError, WriteError, first_line
from melcli.files import replacing

DEFAULT_CACHE = Path("~/.cache/melcli/shards")
DEFAULT_GIGABYTES = 50.0
FETCHING = 8  # small files fetched at once
TRIES = 3  # for a file whose fetching breaks off


def is_remote(source: str) -> bool:
    """Whether a source is an address rather than a path of this machine."""
    return "://" in source


@dataclass
class RemoteFolder:
    """A folder behind an address, of which copies are kept in `cache`.

    gigabytes: what all copies in `cache` may take together; files of which there are none yet come on top while they are fetched.
    """

    address: str
    cache: Path = DEFAULT_CACHE
    gigabytes: float = DEFAULT_GIGABYTES
    _wanted: queue.Queue[str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.address = self.address.rstrip("/")
        self.cache = self.cache.expanduser().absolute()

    @property
    def folder(self) -> Path:
        """Where copies of this folder's files are."""
        return self.cache / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_wanted": None}  # a thread cannot be sent to another process

    def fetch(self, name: str) -> Path:
        """The copy of one file, made now where there is none. ShardError where it cannot be had."""
        path = self.folder / name
        if _touch(path):
            return path
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}.lock"):  # of several processes that want it one fetches it
            if not _touch(path):
                self._copy(name, path)
                self._evict(path)
        return path

    def refresh(self, name: str) -> Path:
        """The copy of one file, made anew: what it says of the others may have changed, and then their copies are of no use."""
        from filelock import FileLock

        path = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f".{name}.lock"):
            before = path.read_bytes() if path.exists() else None
            self._copy(name, path)
            if before is not None and path.read_bytes() != before:
                for other in self.folder.glob("shard-*"):
                    other.unlink(missing_ok=True)
        return path

    def fetch_all(self, names: Iterable[str]) -> None:
        """Copies of many small files."""
        with ThreadPoolExecutor(FETCHING) as pool:
            list(pool.map(self.fetch, names))

    def ahead(self, names: Iterable[str]) -> None:
        """Have copies made of files that will soon be wanted, by a thread of this process, in this order."""
        if self._wanted is None:
            self._wanted = queue.Queue()
            threading.Thread(target=self._fetch_ahead, args=(self._wanted,), daemon=True).start()
        for name in names:
            self._wanted.put(name)

    def _fetch_ahead(self, wanted: queue.Queue[str]) -> None:
        while True:
            with suppress(ShardError, WriteError, OSError):  # who wants the file itself will say what is wrong
                self.fetch(wanted.get())

    def _copy(self, name: str, path: Path) -> None:
        with replacing(path) as temporary:
            _download(f"{self.address}/{name}", temporary)

    def _evict(self, newest: Path) -> None:
        """Remove the shards wanted longest ago until the rest fits. Whoever still reads one keeps it until it is closed."""
        found = []
        for path in self.cache.glob("*/*.safetensors"):
            with suppress(OSError):
                seen = path.stat()
                found.append((seen.st_mtime_ns, seen.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.gigabytes * 1e9:
                return
            if path != newest:
                with suppress(OSError):
                    path.unlink()
                total -= size


def _touch(path: Path) -> bool:
    """Note that a file is wanted now; False where it is not there."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _download(address: str, to: Path) -> None:
    """One file from its address. ShardError where it cannot be had; OSError where this machine has no room for it."""
    for left in reversed(range(TRIES)):
        try:
            from fsspec.core import url_to_fs

            files, place = url_to_fs(address)
            files.get_file(place, str(to))
            return
        except FileNotFoundError:
            raise ShardError(f"{address}: no such file") from None
        except ImportError as error:
            raise ShardError(f"{address}: {first_line(error)}; `pip install melcli[remote]` brings what addresses need") from None
        except Exception as error:  # each store has kinds of its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not left or isinstance(error, ValueError):
                raise ShardError(f"{address}: cannot be fetched ({first_line(error)})") from None
