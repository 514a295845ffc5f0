"""Commands in processes that are forked from a warm one, so that a run costs no start of an interpreter and can be ended at any of its moments.

The process that forks must not have computed anything: threads of torch or of a tokenizer would not be there in its children. So tests have a
`Server` of their own fork for them (`python -m tests.forked`), which has mounts of its own as well where it may: a small disk and a closed one.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

LONGEST = 300
"""Seconds after which a run is ended that hangs."""

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
                signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
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


def vanishing(opened: str, victim: str) -> None:
    """From now on a recording goes when another one is opened."""
    import soundfile

    begin = soundfile.SoundFile.__init__

    def beginning(self: Any, file: Any, *arguments: Any, **options: Any) -> None:
        if str(file) == opened and os.path.lexists(victim):
            os.unlink(victim)
        begin(self, file, *arguments, **options)

    soundfile.SoundFile.__init__ = beginning


def limited(megabytes: int) -> None:
    """From now on this process gets so much memory more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def mounted(place: Path) -> bool:
    """Give this process a disk of 4 MB in place/small and one that nothing can be written to in place/closed. False where it may not."""
    libc = ctypes.CDLL(None, use_errno=True)
    new_namespace, read_only, private = 0x20000, 1, 1 << 18 | 1 << 14
    if libc.unshare(new_namespace) or libc.mount(None, b"/", None, private, None):
        return False
    for name, flags in (("small", 0), ("closed", read_only)):
        (place / name).mkdir()
        if libc.mount(b"none", str(place / name).encode(), b"tmpfs", flags, b"size=4m"):
            return False
    return True


class Server:
    """A process that forks. mounts: whether it has disks of its own; `inside` is how their files are seen from here."""

    def __init__(self, place: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-m", "tests.forked", str(place)]
        self.place = place
        root = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
        self.mounts: bool = self._answer()

    def run(self, *arguments: object, folder: Path | None = None, call: str | None = None, **setting: Any) -> Ended:
        """Run a command line in a folder, or `call`, 'module:function', with the arguments. setting: `vanish` (opened, victim) or `memory` in MB."""
        asked = {"arguments": [str(one) for one in arguments], "folder": str(folder or self.place), "call": call, **setting}
        self._process.stdin.write(json.dumps(asked, default=str) + "\n")
        self._process.stdin.flush()
        return Ended(**self._answer())

    def inside(self, path: Path) -> Path:
        """A path on the server's own disks."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that forks has ended")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def _serve(place: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")

    def answer(what: Any) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    warm()
    answer(mounted(place))
    for line in sys.stdin:
        asked = json.loads(line)

        def work(asked: dict[str, Any] = asked) -> int:
            signal.alarm(LONGEST)
            if "vanish" in asked:
                vanishing(*asked["vanish"])
            if "memory" in asked:
                limited(asked["memory"])
            if asked["call"] is None:
                return melcli(*asked["arguments"])()
            import importlib

            module, _, name = asked["call"].partition(":")
            return getattr(importlib.import_module(module), name)(*asked["arguments"]) or 0

        answer(asdict(Forked(work, Path(asked["folder"]), place / "log").wait()))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
