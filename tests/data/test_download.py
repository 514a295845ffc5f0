"""Downloads from a local server: resuming, checksums, broken connections, and archives that would escape."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from melcli.data import corpora
from melcli.data.download import digest, download, extract
from melcli.data.manifest import read_source
from melcli.errors import ManifestError

CONTENT = bytes(range(256)) * 9000  # 2.3 MB, more than two blocks


@dataclass
class Server:
    """What the server has and how it behaves."""

    files: dict[str, bytes]
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)  # bytes after which a connection breaks, one entry an answer
    refuses_ranges: bool = False
    errors: list[int] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server({"/a.bin": CONTENT})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.ranges.append(wanted)
            if state.errors:
                return self.send_error(state.errors.pop(0))
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not state.refuses_ranges else 0
            if first >= len(content):
                return self.send_error(416)
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.end_headers()
            body = content[first:]
            self.wfile.write(body[: state.cut_after.pop(0)] if state.cut_after else body)

        def log_message(self, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield state
    http.shutdown()
    http.server_close()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = download(f"{server.url}/a.bin", tmp_path / "sub/a.bin", sha256(CONTENT), lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 2
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
    server.files.clear()
    assert download(f"{server.url}/a.bin", path) == path  # what is there is not fetched again
    assert digest(path, "md5") == hashlib.md5(CONTENT).hexdigest()


def test_resumes_a_partial_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
    download(f"{server.url}/a.bin", tmp_path / "a.bin", sha256(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT and server.ranges == ["bytes=1000-"]


def test_resumes_a_complete_but_unrenamed_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    download(f"{server.url}/a.bin", tmp_path / "a.bin", sha256(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_starts_again_where_ranges_are_refused(server: Server, tmp_path: Path) -> None:
    server.refuses_ranges = True
    (tmp_path / "a.bin.part").write_bytes(b"rubbish")
    download(f"{server.url}/a.bin", tmp_path / "a.bin", sha256(CONTENT))
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_broken_connections_are_retried_from_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cut_after = [500_000, 700_000]
    server.errors = [503]
    download(f"{server.url}/a.bin", tmp_path / "a.bin", sha256(CONTENT), wait=0.01)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert server.ranges == [None, None, "bytes=500000-", "bytes=1200000-"]


def test_wrong_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"the download is broken, its md5 is .* expected 0000"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin", "md5:" + "0" * 32)
    assert not any(tmp_path.iterdir())


def test_unpublished_checksum_is_kept_and_compared(server: Server, tmp_path: Path) -> None:
    path = download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert (tmp_path / "a.bin.sha256").read_text() == f"{hashlib.sha256(CONTENT).hexdigest()}  a.bin\n"
    path.unlink()
    server.files["/a.bin"] = b"something else"
    with pytest.raises(ManifestError, match="the download is broken"):
        download(f"{server.url}/a.bin", path)


def test_unreachable(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"/b\.bin: the server answers 404"):
        download(f"{server.url}/b.bin", tmp_path / "b.bin", wait=0.01)
    with pytest.raises(ManifestError, match=r"cannot be fetched, .*run again"):
        download("http://127.0.0.1:9/x", tmp_path / "x", wait=0.01)


def tar(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


def zipped(members: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo("top/link")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, link)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [tar, zipped])
def test_extract(tmp_path: Path, make: object) -> None:
    (tmp_path / "a").write_bytes(make({"top/inner/x.txt": b"x", "top/other.txt": b"y"}))
    extract(tmp_path / "a", "top/inner", tmp_path / "root/here")
    assert [p.relative_to(tmp_path).as_posix() for p in (tmp_path / "root").rglob("*")] == ["root/here", "root/here/x.txt"]
    with pytest.raises(ManifestError, match="is there already"):
        extract(tmp_path / "a", "top/inner", tmp_path / "root/here")
    with pytest.raises(ManifestError, match="holds no folder 'nothing'"):
        extract(tmp_path / "a", "nothing", tmp_path / "root/there")


@pytest.mark.parametrize(
    "content",
    [
        tar({"top/x": b"1", "../evil": b"2"}),
        tar({"top/x": b"1", "/tmp/melcli-evil": b"2"}),
        tar({"top/x": b"1"}, {"top/link": "/etc/passwd"}),
        tar({"top/x": b"1"}, {"top/link": "../../evil"}),
        zipped({"top/x": b"1", "../evil": b"2"}),
        zipped({"top/x": b"1", "/tmp/melcli-evil": b"2"}),
        zipped({"top/x": b"1"}, "/etc/passwd"),
    ],
)
def test_archives_do_not_escape(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    try:
        extract(tmp_path / "a", "top", tmp_path / "root/top")
    except ManifestError as error:
        assert "not unpacked" in str(error)
        assert not list((tmp_path / "root").iterdir())
    assert not (tmp_path / "evil").exists() and not (tmp_path / "root/evil").exists() and not Path("/tmp/melcli-evil").exists()
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_broken_archive(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(tar({"top/x": b"1" * 5000})[:60])
    with pytest.raises(ManifestError, match="cannot be unpacked"):
        extract(tmp_path / "a", "top", tmp_path / "root/top")
    assert not list((tmp_path / "root").iterdir())


def test_a_corpus_is_fetched_unpacked_and_read(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import soundfile

    flac = io.BytesIO()
    soundfile.write(flac, np.full(800, 0.1, dtype="float32"), 16000, format="FLAC")
    archive = tar({"LibriSpeech/dev-clean/84/1/84-1.trans.txt": b"84-1-0000 HELLO\n", "LibriSpeech/dev-clean/84/1/84-1-0000.flac": flac.getvalue()})
    server.files["/dev-clean.tar.gz"] = archive
    offered = corpora.Archive(f"{server.url}/dev-clean.tar.gz", sha256(archive), "LibriSpeech/dev-clean", "LibriSpeech/dev-clean")
    monkeypatch.setitem(corpora.LIBRISPEECH.archives, "dev-clean", offered)
    (one,) = read_source("librispeech:dev-clean", root=tmp_path)
    assert (one.text, one.duration) == ("hello", 0.05)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LibriSpeech", "downloads"] and not list((tmp_path / "downloads").iterdir())
    server.files.clear()
    assert read_source("librispeech:dev-clean", root=tmp_path) == [one]
    monkeypatch.setitem(corpora.LIBRISPEECH.archives, "dev-other", corpora.Archive(f"{server.url}/no", None, "x", "LibriSpeech/dev-other"))
    with pytest.raises(ManifestError, match=r"librispeech:dev-other: not found under .*404.*place it in .*dev-other"):
        read_source("librispeech:dev-other", root=tmp_path)
