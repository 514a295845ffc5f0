"""`melcli train` of a recipe with a sweep: each member trained by a process of its own in its own folder, and one table of what came out."""

from __future__ import annotations

import fnmatch
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TextIO

from melcli import config, console, interrupts
from melcli.errors import ConfigError, UsageError, nearest
from melcli.files import alone, write_text
from melcli.recipe import digest
from melcli.sweep import Member
from melcli.sweeping.table import Outcome, outcome, write_tables

LOG = "train.log"  # in a member's folder: what its training said
POLL_SECONDS = 0.2


@dataclass
class _Running:
    """A member that trains, and the thread that reads what it says."""

    member: Member
    process: subprocess.Popen[str]
    reader: threading.Thread
    said: list[str]


def select(members: Sequence[Member], patterns: Sequence[str]) -> list[Member]:
    """The members whose labels match any of the patterns (`*` stands for anything); all where there are none. Raises UsageError."""
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(member.label, pattern) for member in members):
            labels = [member.label for member in members]
            raise UsageError(f"--only {pattern}: no member is called so.{nearest(pattern, labels)} --dry-run lists all {len(members)}.")
    return [member for member in members if not patterns or any(fnmatch.fnmatchcase(member.label, pattern) for pattern in patterns)]


def outcomes(members: Sequence[Member], out: Path) -> list[Outcome]:
    """How far each member is. Raises ConfigError where a folder holds a training by another recipe."""
    found = [outcome(member, out / member.label) for member in members]
    if other := next((one for one in found if one.state == "other"), None):
        raise ConfigError(f"{out / other.member.label} holds a training by another recipe: give another folder with -o, or remove this one")
    return found


def run(members: Sequence[Member], out: Path, *, chosen: Sequence[Member] | None = None, jobs: int = 1, options: Sequence[str] = ()) -> list[Outcome]:
    """Train the chosen members that are not done, `jobs` at a time, and return how all of them stand.

    A member goes on from its last checkpoint. One that fails does not keep the others from going on. After each one the tables in `out` are written
    anew. options: of `melcli train`, handed on. SIGTERM is passed on, so that those under way save and end, and begins no further ones.
    Raises ConfigError, before anything is trained.
    """
    with alone(out, "sweep"):
        return _run(members, out, members if chosen is None else chosen, jobs, options)


def _run(members: Sequence[Member], out: Path, chosen: Sequence[Member], jobs: int, options: Sequence[str]) -> list[Outcome]:
    queue = [one.member for one in outcomes(members, out) if one.state != "done" and one.member in chosen]
    write_tables(members, out, {})
    failures: dict[str, str] = {}
    running: list[_Running] = []
    ended = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal ended
        ended = True
        interrupts.note(number)
        for one in running:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    total = len(chosen)
    try:
        while running or (queue and not ended):
            while queue and not ended and len(running) < jobs:
                member = queue.pop(0)
                console.note(f"{total - len(queue)} of {total}: {member.label}")
                running.append(_start(member, out / member.label, jobs, options))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                one.reader.join()
                if one.process.returncode and one.process.returncode not in interrupts.SAID:  # that one saved and stopped
                    failures[one.member.label] = _reason(one)
                write_tables(members, out, failures)
            time.sleep(POLL_SECONDS)
    finally:
        for one in running:  # an error or Ctrl-C on the way
            if one.process.poll() is None:
                one.process.terminate()
            one.process.wait()
        signal.signal(signal.SIGTERM, before)
    return write_tables(members, out, failures, draw=True)


def _start(member: Member, folder: Path, jobs: int, options: Sequence[str]) -> _Running:
    """Train a member as anyone may by hand: by the recipe that is saved in its folder."""
    recipe = folder / "recipe.yaml"
    write_text(recipe, config.dump_yaml(member.recipe))
    command = [sys.executable, "-m", "melcli", "train", str(recipe), "--out", str(folder), "--resume", "auto", *options]
    threads = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    process = subprocess.Popen(
        command, env=os.environ | threads, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    said: list[str] = []
    log = (folder / LOG).open("a", encoding="utf-8")
    prefix = f"[{member.label}] " if jobs > 1 else ""
    reader = threading.Thread(target=_read, args=(process.stderr, log, said, prefix), daemon=True)
    reader.start()
    return _Running(member, process, reader, said)


def _read(stream: TextIO, log: TextIO, said: list[str], prefix: str) -> None:
    """Show what a training says, keep it in its log, and remember the end of it."""
    with log:
        for line in stream:
            log.write(line)
            log.flush()
            said[:] = [*said[-20:], line.rstrip()]
            print(prefix + line, end="", file=sys.stderr, flush=True)


def _reason(one: _Running) -> str:
    """Why a training failed: its own words, or the last of them."""
    if one.process.returncode < 0:
        return f"ended by signal {-one.process.returncode}"
    lines = [line for line in one.said if line.strip()]
    error = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    return error or (lines[-1].strip() if lines else f"exit code {one.process.returncode}")


def plan_rows(found: Sequence[Outcome]) -> list[list[str]]:
    """What `--dry-run` lists: label, what is known of it, digest."""
    return [[one.member.label, one.status, digest(one.member.recipe)] for one in found]
