"""A fuzz test runs in a process of its own with limits on memory and time, so that a crash, a hang or a bomb is a failed test and no dead machine.

Sizes are set by FUZZ_EXAMPLES, examples a target; unset, it is what fits into every run of the tests:

    FUZZ_EXAMPLES=2000 python -m pytest tests/fuzz -s        other examples each time; what fails says how to repeat it
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub.constants
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from melcli import console
from melcli.errors import MelcliError

FEW = 15
"""Examples a target in every run of the tests."""

ASKED = int(os.environ.get("FUZZ_EXAMPLES", "0"))
MEMORY = 1 << 30
"""Bytes of address space that a reader may take on top of what the process has: what it is given is a few kilobytes."""

LONGEST = 10.0
"""Seconds of computing for one example; a reader needs milliseconds. A slow machine has as many of them as a fast one."""

ASLEEP = 300.0
"""Seconds on the clock for one example, however busy the machine."""

LINE = 1000
"""Characters of a message."""


@dataclass
class Tally:
    """How many examples ended how: 'read', or the name of the project's error."""

    ends: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.ends.total()} examples: " + ", ".join(f"{count} {end}" for end, count in self.ends.most_common())


def contract(read: Callable[[], Any]) -> str:
    """Run a reader: it gives data, or raises an error of ours with one line. Anything else is raised on."""
    try:
        read()
    except MelcliError as error:
        said = console.one_line(str(error))
        assert said and said.isprintable() and len(said) < LINE, f"no one-line message: {said[:2000]!r}"
        return type(error).__name__
    return "read"


def fuzz(strategy: SearchStrategy[Any], read: Callable[[Path, Any], Any], examples: int = FEW) -> Tally:
    """Hand examples to `read(folder, example)`, which writes what it needs into the empty folder and calls a reader. AssertionError for what breaks
    the contract, kills the process, takes too long or too much memory."""
    with tempfile.TemporaryDirectory(prefix="melcli-fuzz-") as place:
        told = Path(place) / "told"
        child = os.fork()
        if child == 0:
            _child(strategy, read, ASKED or examples, Path(place), told)
        status = _wait(child, Path(place) / "example")
        lines = [line[:300] for line in told.read_text(errors="replace").splitlines()] if told.exists() else []
        if status != 0 or not lines or lines[0] != "ok":
            last = Path(place) / "example"
            example = last.read_text(errors="replace")[:1500] if last.exists() else "none"
            said = "\n".join([f"the process ended with {status}; the last example was {example}", *lines[-60:]])
            if ASKED:
                print(f"\n{said}", file=sys.__stderr__, flush=True)
            raise AssertionError(said)
        tally = Tally(Counter({end: int(count) for count, end in (line.split(" ", 1) for line in lines[1:])}))
    if ASKED:
        print(f"\n{os.environ.get('PYTEST_CURRENT_TEST', 'fuzz').split(' ')[0]}: {tally}", file=sys.__stderr__, flush=True)
    return tally


def _wait(child: int, example: Path) -> int:
    """The child's exit status; it is killed where one example takes longer than LONGEST or ASLEEP."""
    seen, began, computed = 0.0, time.monotonic(), 0.0
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        changed = example.stat().st_mtime if example.exists() else 0.0
        if changed != seen:
            seen, began, computed = changed, time.monotonic(), _computed(child)
        if _computed(child) - computed > LONGEST or time.monotonic() - began > ASLEEP:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -signal.SIGALRM
        time.sleep(0.02)


def _computed(process: int) -> float:
    """Seconds of a processor that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(strategy: SearchStrategy[Any], read: Callable[[Path, Any], Any], examples: int, place: Path, told: Path) -> None:
    """Everything after the fork: never returns."""
    code = 1
    try:
        os.chdir(place)  # "." must not be this repository
        os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        huggingface_hub.constants.HF_HUB_OFFLINE = True  # a row that names a data set of the hub must not wait for it
        resource.setrlimit(resource.RLIMIT_AS, (_taken() + MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        tally = Tally()
        last, folder = place / "example", place / "folder"

        @settings(
            max_examples=examples,
            derandomize=not ASKED,
            database=None,
            deadline=None,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def every(example: Any) -> None:
            last.write_text(repr(example)[:100_000], errors="replace")
            _empty(folder)
            tally.ends[contract(lambda: read(folder, example))] += 1

        every()
        told.write_text("ok\n" + "".join(f"{count} {end}\n" for end, count in tally.ends.most_common()))
        code = 0
    except BaseException:
        told.write_text(traceback.format_exc(), errors="replace")
    finally:
        os._exit(code)


def _empty(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _taken() -> int:
    """Bytes of address space this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
