"""Shards behind addresses: fetched once, kept within bounds, the same as those on disk."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
import time
from pathlib import Path

import fsspec
import pytest
import torch

from melcli.data.remote import RemoteFolder
from melcli.data.shards import FeatureShards, shard_path
from melcli.errors import ShardError
from tests.data.test_shards import SPEC, made


@pytest.fixture
def local(tmp_path: Path) -> Path:
    made(tmp_path / "features")
    return tmp_path / "features"


@pytest.fixture
def address(local: Path) -> str:
    """The same folder in fsspec's store in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    for path in local.iterdir():
        files.pipe_file(f"/store/features/{path.name}", path.read_bytes())
    return "memory://store/features"


def equal(one: FeatureShards, other: FeatureShards) -> bool:
    return one.frames == other.frames and all(torch.equal(one.mel(i), other.mel(i)) for i in range(len(one)))


def names(remote: RemoteFolder) -> set[str]:
    return {path.name for path in remote.folder.iterdir() if not path.name.startswith(".")}


def test_the_same_as_on_disk_and_a_shard_is_fetched_when_it_is_wanted(local, address, tmp_path):
    remote = RemoteFolder(address, tmp_path / "cache")
    shards = FeatureShards.open(remote, SPEC)
    rows = {"features.json", "shard-00000.jsonl", "shard-00001.jsonl"}
    assert names(remote) == rows
    here = FeatureShards.open(local, SPEC)
    assert torch.equal(shards.mel(3), here.mel(3))
    assert names(remote) == rows | {"shard-00001.safetensors"}
    assert equal(pickle.loads(pickle.dumps(shards)), here)
    fsspec.filesystem("memory").store.clear()
    assert equal(shards, here)  # from the copies


def test_what_will_be_wanted_is_fetched_meanwhile(address, tmp_path):
    shards = FeatureShards.open(RemoteFolder(address, tmp_path / "cache"), SPEC)
    shards.ahead([4])
    path = shards.remote.folder / "shard-00001.safetensors"
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not (shards.remote.folder / "shard-00000.safetensors").exists()


def test_shards_wanted_longest_ago_make_room(local, address, tmp_path):
    size = shard_path(local, 0).stat().st_size
    remote = RemoteFolder(address, tmp_path / "cache", gigabytes=1.5 * size / 1e9)
    shards, here = FeatureShards.open(remote, SPEC), FeatureShards.open(local, SPEC)
    first = shards.mel(0)
    shards.mel(3)
    assert not (remote.folder / "shard-00000.safetensors").exists()
    assert torch.equal(first, here.mel(0))  # still mapped
    again = FeatureShards.open(remote, SPEC)
    assert equal(again, here)


def test_a_folder_that_was_made_anew_is_fetched_anew(local, address, tmp_path):
    remote = RemoteFolder(address, tmp_path / "cache")
    before = FeatureShards.open(remote, SPEC).mel(0).clone()
    summary = local / "features.json"
    fsspec.filesystem("memory").pipe_file("/store/features/features.json", summary.read_bytes() + b" ")
    other = FeatureShards.open(remote, SPEC)
    assert not list(remote.folder.glob("*.safetensors"))
    assert torch.equal(other.mel(0), before)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ShardError, match=r"memory://nowhere/features\.json: no such file"):
        FeatureShards.open(RemoteFolder("memory://nowhere", tmp_path), SPEC)
    with pytest.raises(ShardError, match=r"sthree://x/features\.json: .*sthree"):
        FeatureShards.open(RemoteFolder("sthree://x", tmp_path), SPEC)


def test_over_http(local, tmp_path):
    pytest.importorskip("aiohttp")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(local)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        shards = FeatureShards.open(RemoteFolder(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache"), SPEC)
        assert equal(shards, FeatureShards.open(local, SPEC))
        os.remove(shard_path(local, 0))
        fresh = RemoteFolder(f"http://127.0.0.1:{server.server_port}/", tmp_path / "other")
        with pytest.raises(ShardError, match=r"shard-00000\.safetensors: no such file"):
            FeatureShards.open(fresh, SPEC).mel(0)
    finally:
        server.shutdown()
