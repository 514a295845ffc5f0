"""Fixtures for the tests of the server. Nothing is imported here that may be missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def served() -> Iterator[Any]:
    """A server with both models in the box, for all tests that do not harm it."""
    from tests.serving.maker import running

    with running() as found:
        yield found


@pytest.fixture
def client(served: Any) -> Any:
    """The openai package's client to it."""
    return served.client()
