"""`--push` against a small server of the hub's HTTP API."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from melcli.errors import WriteError
from melcli.exporting.push import push

LARGE = ".safetensors"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each its files; what was asked to create them with. refuses: a status to answer every request with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.created: list[dict] = []
        self.blobs: dict[str, bytes] = {}
        self.refuses: int | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"


class Requests(BaseHTTPRequestHandler):
    """The calls that huggingface_hub makes to look for a repository, make one and upload a folder, large files by the LFS protocol."""

    server: Hub

    def answer(self, body: object = None, status: int = 200) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub, path = self.server, self.path.partition("?")[0]
        if hub.refuses:
            return self.answer({"error": "not you"}, hub.refuses)
        if path.startswith("/blobs/"):
            hub.blobs[path.rpartition("/")[2]] = data
            return self.answer()
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        assert self.headers["Authorization"] == "Bearer hf_secret", path
        if path == "/api/repos/create":
            asked = json.loads(data)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.created.append(asked)
            hub.repositories[name] = {}
            return self.answer({"url": f"{hub.url}/{name}"})
        if path.endswith("/info/lfs/objects/batch"):
            found = [{**one, "actions": {"upload": {"href": f"{hub.url}/blobs/{one['oid']}"}}} for one in json.loads(data)["objects"]]
            return self.answer({"transfer": "basic", "objects": found})
        name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if name not in hub.repositories:
            return self.answer({"error": "Repository not found"}, 404)
        files = hub.repositories[name]
        if "/preupload/" in path:
            modes = [(one["path"], "lfs" if one["path"].endswith(LARGE) else "regular") for one in json.loads(data)["files"]]
            return self.answer({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes]})
        if "/commit/" in path:
            for line in map(json.loads, data.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
            return self.answer({"commitUrl": f"{hub.url}/{name}/commit/abc", "commitOid": "abc", "pullRequestUrl": None})
        return self.answer({"id": name, "modelId": name, "sha": "abc", "siblings": [], "tags": [], "private": True, "downloads": 0, "likes": 0})

    do_GET = do_POST = do_PUT = do_HEAD = handle_one

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield running
        running.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(hashlib.sha256(b"a").digest() * 50)
    (tmp_path / "README.md").write_text("# a model")
    return tmp_path


def test_a_new_repository_is_private(hub: Hub, folder: Path) -> None:
    assert push(folder, "me/model") == f"{hub.url}/me/model/commit/abc"
    assert hub.repositories == {"me/model": {path.name: path.read_bytes() for path in folder.iterdir()}}
    assert [asked.get("private", asked.get("visibility")) in (True, "private") for asked in hub.created] == [True], hub.created


def test_one_that_is_there_stays_as_it_is(hub: Hub, folder: Path) -> None:
    hub.repositories["them/model"] = {"notes.md": b"theirs"}
    push(folder, "them/model")
    assert hub.created == [] and set(hub.repositories["them/model"]) == {"notes.md", "README.md", "model.safetensors"}


@pytest.mark.parametrize("status", [401, 403, 500])
def test_refusals_are_one_line(hub: Hub, folder: Path, status: int) -> None:
    hub.refuses = status
    with pytest.raises(WriteError, match=r"^--push me/model: .*is written") as found:
        push(folder, "me/model")
    assert "\n" not in str(found.value) and "hf_secret" not in str(found.value)


def test_a_hub_that_is_not_there(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WriteError, match="not uploaded"):
        push(folder, "me/model")
