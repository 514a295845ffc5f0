"""Commands killed at random moments; see chaos.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")


def chaos(repository: Path, kills: int, *more: str) -> str:
    command = [sys.executable, "-m", "tests.chaos", "--kills", str(kills), *more]
    ran = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=3000, check=False)
    assert ran.returncode == 0 and f"{kills} kills in" in ran.stdout, ran.stdout + ran.stderr
    return ran.stdout


def test_killed_at_random_and_run_again(repository: Path) -> None:
    chaos(repository, 7, "--seed", "7")


@pytest.mark.slow
def test_killed_at_random_many_times(repository: Path) -> None:
    print(chaos(repository, 70))
