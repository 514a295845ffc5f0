"""Commands in processes that are forked from a warm one, so that a run costs no start of an interpreter and can be ended at any of its moments.

The process that forks must not have computed anything: threads of torch or of a tokenizer would not be there in its children.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
"""What Python tells audit hooks before it changes a folder; and `open` where it is for writing."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, minus the signal where one killed it; what it said; how long it took; changes it made to its folder."""

    code: int
    out: str
    err: str
    seconds: float
    changes: int


def warm() -> None:
    """Import all that commands need, and compute nothing."""
    import importlib

    import torch

    torch.set_num_threads(1)
    for name in ("cli", "featurize", "train", "transcribe", "score", "synthesize", "export", "exporting.hf", "training.trainer", "models.speaker"):
        importlib.import_module(f"melcli.{name}")


def melcli(*arguments: object) -> Callable[[], int]:
    """What runs a command line and returns its exit code."""

    def run() -> int:
        from melcli import cli

        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            return int(stopped.code or 0)
        return 0

    return run


class Forked:
    """A child that runs `work` in `folder`. at_change: the number, from 1, of the change to that folder before which it gets the signal `number`.

    Its output goes to files in `log`. kill() sends a signal, wait() returns how it ended.
    """

    def __init__(self, work: Callable[[], int], folder: Path, log: Path, at_change: int | None = None, number: int = signal.SIGKILL) -> None:
        log.mkdir(parents=True, exist_ok=True)
        self.log, self._began = log, time.perf_counter()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                for stream, name in ((1, "out"), (2, "err")):
                    os.dup2(os.open(log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
                counted = _watch(folder, log / "changes", at_change, number)
                os.chdir(folder)
                code = work()
                (log / "changes").write_text(str(counted[0]))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def kill(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def running(self) -> bool:
        """Whether it has not ended; without waiting."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Ended:
        """How it ended."""
        _, status = os.waitpid(self.pid, 0)
        seconds = time.perf_counter() - self._began
        told = self.log / "changes"
        changes = int(told.read_text() or 0) if told.exists() else 0
        out, err = ((self.log / name).read_text(errors="replace") if (self.log / name).exists() else "" for name in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, changes)


def _watch(folder: Path, told: Path, at_change: int | None, number: int) -> list[int]:
    """Count changes to a folder, and send this process a signal before one of them. The count is the only item."""
    told.unlink(missing_ok=True)
    counted, inside = [0], f"{folder}/"

    def hook(event: str, values: tuple[object, ...]) -> None:
        if event == "open":
            changes = isinstance(values[2], int) and bool(values[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            changes = event in CHANGES
        if not changes or not isinstance(values[0], str | os.PathLike):
            return
        below = isinstance(values[-1], int) and values[-1] > 2 and event in ("os.remove", "os.rmdir")  # by a descriptor: a tree that is removed
        if below or os.path.abspath(os.fspath(values[0])).startswith(inside):
            counted[0] += 1
            if counted[0] == at_change:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    return counted
