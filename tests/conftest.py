"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

import melcli  # noqa: F401  before any test imports transformers: torchaudio may need the guard

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
