"""Several processes for one command."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from melcli import launch


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the interpreter that `launch` starts: it runs the Python file that the first argument after `-m melcli` names."""
    runner = tmp_path / "python"
    runner.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} "$@"\n')
    runner.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(runner))
    return tmp_path


def script(folder: Path, text: str) -> str:
    path = folder / "work.py"
    path.write_text("import os, sys, time\nrank = int(os.environ['RANK'])\n" + textwrap.dedent(text))
    return str(path)


def test_every_process_knows_its_place(command: Path) -> None:
    work = script(
        command,
        f"""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
        open(f"{command}/{{rank}}.txt", "w").write(" ".join([os.environ[n] for n in names] + sys.argv[1:]))
    """,
    )
    assert launch.launch(2, [work, "--verbose"]) == 0
    assert (command / "0.txt").read_text() == "0 0 2 127.0.0.1 --verbose"
    assert (command / "1.txt").read_text() == "1 1 2 127.0.0.1 --quiet"


def test_a_failure_ends_the_others(command: Path) -> None:
    began = time.monotonic()
    assert launch.launch(2, [script(command, "sys.exit(7) if rank == 1 else time.sleep(100)")]) == 7
    assert time.monotonic() - began < 30


def test_workers_meet() -> None:
    code = """
        from melcli import launch
        launch.join()
        import torch
        value = torch.tensor([torch.distributed.get_rank() + 1.0])
        torch.distributed.all_reduce(value)
        assert launch.is_worker() and value.item() == 3.0, value
        torch.distributed.destroy_process_group()
    """
    with pytest.MonkeyPatch.context() as patch:
        real = subprocess.Popen
        patch.setattr(launch.subprocess, "Popen", lambda command, env: real([sys.executable, "-c", textwrap.dedent(code)], env=env))
        assert launch.launch(2, []) == 0
    assert not launch.is_worker()
