"""Fixtures for all tests."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import melcli  # noqa: F401  before any test imports transformers: torchaudio may need the guard
from tests.forked import Server

# The same examples every time, none remembered, and no limit a shared machine would break.
settings.register_profile("melcli", derandomize=True, database=None, deadline=None)
settings.load_profile("melcli")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings beside the checkout (../shared/data); tests that need them skip where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the recordings in {folder}")
    return folder


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs a command line, `apart("transcribe", clip, cwd=folder)`, in a process of its own, forked from one that has imported everything."""
    with Server(tmp_path_factory.mktemp("apart")) as server:

        def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
            ended = server.run(*arguments, folder=cwd)
            return subprocess.CompletedProcess(arguments, ended.code, ended.out, ended.err)

        yield run
