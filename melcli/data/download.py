"""Downloads: resumed where they broke off, checked against a published checksum, unpacked without leaving their folder.

A download goes to `NAME.part` and is renamed when it is complete and checked. Where no checksum is published, the SHA-256 of the first download is
written beside it (`NAME.sha256`) and a later download of the same file must match it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from melcli.errors import ManifestError

BLOCK = 1 << 20
RETRIES = 4
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all or None


@contextmanager
def _bar(name: str) -> Any:
    """A progress bar on stderr as a Progress callback."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(file=sys.stderr), transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def digest(path: Path, algorithm: str) -> str:
    """The hex digest of a file, read in blocks."""
    state = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            state.update(block)
    return state.hexdigest()


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append what is missing of `url` to `part`. A server that ignores Range starts the file again."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "melcli", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to fetch; the checksum says whether the file is right
            return
        raise
    with answer:
        resumed = have > 0 and answer.status == 206
        length = answer.headers.get("Content-Length")
        done = have if resumed else 0
        total = done + int(length) if length is not None else None
        with open(part, "ab" if resumed else "wb") as file:
            progress(done, total)
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                progress(done, total)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _verify(path: Path, name: str, checksum: str | None, record: Path) -> None:
    algorithm, _, expected = (checksum or "sha256:").partition(":")
    if not expected and record.exists():
        expected = record.read_text(encoding="utf-8").split()[0]
    found = digest(path, algorithm)
    if expected and found != expected:
        path.unlink()
        raise ManifestError(f"{name}: the download is broken, its {algorithm} is {found}, expected {expected}; it was removed, try again")
    if not checksum and not expected:
        record.write_text(f"{found}  {name}\n", encoding="utf-8")


def download(url: str, path: Path, checksum: str | None = None, progress: Progress | None = None, wait: float = 1.0) -> Path:
    """Fetch `url` into `path`, continuing a `path.part` left by an earlier attempt. A file that is already there is kept as it is.

    checksum: 'md5:HEX' or 'sha256:HEX'; None where none is published (see the top of this file).
    wait: seconds before the first retry of a broken connection, doubled each time.
    Raises ManifestError where the server cannot be reached or the checksum does not match; the wrong file is removed.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if progress is None:
        with _bar(path.name) as bar:
            return download(url, path, checksum, bar, wait)
    for attempt in range(RETRIES):
        try:
            _fetch(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == RETRIES - 1:
                raise ManifestError(f"{url}: the server answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException) as error:
            if attempt == RETRIES - 1:
                reason = getattr(error, "reason", None) or error
                raise ManifestError(f"{url}: cannot be fetched, {reason}; run again to continue where it broke off") from None
        time.sleep(wait * 2**attempt)
    _verify(part, path.name, checksum, path.with_name(path.name + ".sha256"))
    os.replace(part, path)
    return path


def _safe_zip(archive: zipfile.ZipFile, into: Path) -> None:
    root = into.resolve()
    for member in archive.infolist():
        target = (root / member.filename).resolve()
        if not target.is_relative_to(root) or member.filename.startswith(("/", "\\")) or (member.external_attr >> 28) == 0xA:
            raise ManifestError(f"{archive.filename}: holds '{member.filename}', which would be written outside its folder; not unpacked")
    archive.extractall(root)


def extract(archive: Path, inside: str, to: Path) -> None:
    """Unpack an archive (.zip, or .tar with any compression) and move the folder `inside` of it to `to` in one rename.

    Nothing is left at `to` where it fails. Members that would be written elsewhere (absolute paths, `..`, links out of the folder, devices) are a
    ManifestError.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=to.parent) as scratch:
        into = Path(scratch)
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as opened:
                    _safe_zip(opened, into)
            else:
                with tarfile.open(archive) as opened:
                    opened.extractall(into, filter="data")
        except tarfile.FilterError as error:
            raise ManifestError(f"{archive}: {error}; not unpacked") from None
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise ManifestError(f"{archive}: cannot be unpacked, {error}") from None
        source = into / inside
        if not source.is_dir():
            raise ManifestError(f"{archive}: holds no folder '{inside}'")
        if to.exists():
            raise ManifestError(f"{to}: is there already, nothing was unpacked over it")
        shutil.move(source, to)
