"""Several processes for one training or scoring, one a device: started here for `--devices N`, or by torchrun, whose variables are the ones used."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from types import FrameType
from typing import Any

from melcli.errors import UsageError

GRACE_SECONDS = 60.0  # for the others to end once one has failed; they may be saving


def is_worker() -> bool:
    """Whether this process is one of several that torchrun or `launch` started."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this process is the one of a training that speaks for all: the first of several, or the only one."""
    return os.environ.get("RANK", "0") == "0" if is_worker() else True


def place() -> tuple[int, int]:
    """Which of how many processes this one is; (0, 1) for the only one."""
    return (int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])) if is_worker() else (0, 1)


def gather(values: list[Any]) -> list[Any]:
    """The values of all processes, in the order of the processes; waits for all. To be called by each of them, after `join`."""
    if not is_worker():
        return values
    from torch import distributed

    shares: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(shares, values)
    return [value for share in shares for value in share]


def join(patience: timedelta | None = None) -> None:
    """Meet the other processes. To be called in a worker before anything asks for its rank.

    patience: how long one may wait for another later on; torch's own limit of minutes by default.
    """
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), **({} if patience is None else {"timeout": patience}))


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run `melcli ARGUMENTS` in `devices` processes and return 0, or the first failure's exit code.

    The first process says what it does, the others only what goes wrong. SIGTERM is passed on, so that all save and end. When one fails the others
    are ended. Raises UsageError where the machine has GPUs, but fewer.
    """
    import torch

    if 0 < torch.cuda.device_count() < devices:
        raise UsageError(f"--devices {devices}: this machine has {torch.cuda.device_count()}.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(devices), "LOCAL_WORLD_SIZE": str(devices), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // devices))
    workers: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        for rank in range(devices):
            quiet = ["--quiet"] if rank and "--quiet" not in arguments else []
            command = [sys.executable, "-m", "melcli", *(a for a in arguments if not (rank and a == "--verbose")), *quiet]
            workers.append(subprocess.Popen(command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}))
        return _wait(workers)
    finally:
        pass_on(signal.SIGTERM, None)
        for worker in workers:
            worker.wait()
        signal.signal(signal.SIGTERM, before)


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """The first exit code that is not 0; the others get GRACE_SECONDS after it and are then killed."""
    failed, deadline = 0, float("inf")
    while True:
        codes = [worker.poll() for worker in workers]
        failed = failed or next((code for code in codes if code), 0)
        if None not in codes:
            return failed
        if failed and deadline == float("inf"):
            deadline = time.monotonic() + GRACE_SECONDS
            for worker in workers:
                if worker.poll() is None:
                    worker.terminate()
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
