"""Work shared out over a Ray cluster (extra `ray`): feature shards as its tasks, models in Ray Data actors that transcribe.

What is done and what is written is the same as without Ray: tasks and actors run the functions that a single process runs, and transcripts are
written by the process that was started, as they arrive. Nodes must see the audio, the models and the output folders under the same paths.

Ray is imported inside the functions, since it is an extra and slow to import.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from melcli import console
from melcli.errors import ClusterError, MelcliError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from melcli.inputs import AudioInput
    from melcli.transcripts import Transcript

CORES = 4  # of an actor: more speed up a small model little
PART = 1024  # utterances given to an actor at a time: several windows of Transcriber, which decodes the next while the model hears one
PARTS = 4  # for each actor at least, where there are few utterances, so that all end at about the same time
RETRIES = 2  # of a shard or a part whose worker died; what kills three is at fault itself
PATIENCE_SECONDS = 20.0  # until the user is told what is being waited for
REACH_SECONDS = 5.0
HANDED_ON = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_HUB_CACHE")  # of the environment; workers elsewhere have their own


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """A Ray cluster for the time of the `with`; none where `address` is None. `sys.stdout` is not for results inside: keep it beforehand.

    address: 'local' starts Ray on this machine and ends it afterwards, 'auto' is the cluster that this machine belongs to, HOST:PORT any.
    Raises UsageError where Ray is not installed or the cluster cannot be reached.
    """
    if address is None:
        yield
        return
    _check(address)
    local = address == "local"
    if local:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray otherwise warns of
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError(f"--ray needs Ray: pip install 'melcli[ray]' ({error}).") from None
    told = console.level() >= console.VERBOSE
    noise = logging.INFO if told else logging.CRITICAL
    logging.getLogger("ray.data").setLevel(noise)
    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = settings.print_on_execution_start = told
    settings.target_max_block_size = 1  # byte: a transcript leaves its actor as soon as it is made
    settings.max_errored_blocks = -1  # a part that is lost does not end the others
    with redirect_stdout(sys.stderr) if told else _muted():  # Ray prints what workers die of on stdout, which is for results
        try:
            ray.init(address=address, log_to_driver=told, logging_level=noise, **({"include_dashboard": False} if local else {}))
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UsageError(f"--ray {address}: {' '.join(str(error).split())}") from None
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _muted() -> Iterator[None]:
    """What Ray says goes nowhere: `sys.stdout`, and file descriptor 2, to which parts of it write by themselves. `sys.stderr` goes where it went."""
    try:
        ours = sys.stderr.fileno() == 2
    except (OSError, ValueError):  # a stand-in of a test, which is no file
        ours = False
    before, kept = sys.stderr, os.dup(2)
    before.flush()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        os.dup2(nowhere.fileno(), 2)
        if ours:
            sys.stderr = open(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False)
        try:
            yield
        finally:
            sys.stderr.flush()
            sys.stderr = before
            os.dup2(kept, 2)
            os.close(kept)


def _check(address: str) -> None:
    """Ray itself waits for long, or kills the process, where nobody answers."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise UsageError(f"--ray {address}: Ray Data is not supported through a Ray client; run on a node of the cluster with --ray auto.")
    if not host or not port.isdecimal():
        raise UsageError(f"--ray {address}: valid are local, auto and HOST:PORT.")
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {address}: cannot be reached: {error}.") from None


@dataclass(frozen=True)
class _Desk:
    """What a worker takes over from the process that was started: the folder it was started in, and environment."""

    folder: str = field(default_factory=os.getcwd)
    environment: Mapping[str, str] = field(default_factory=lambda: {name: os.environ[name] for name in HANDED_ON if name in os.environ})
    threads: int = 1

    def sit_down(self) -> None:
        """To be called first in a worker: the Hugging Face libraries read their environment when they are imported."""
        os.environ |= self.environment
        with suppress(OSError):
            os.chdir(self.folder)
        import torch

        torch.set_num_threads(self.threads)


def _call(desk: _Desk, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    desk.sit_down()
    return function(*arguments)


def _plain(error: BaseException) -> BaseException:
    """An exception of a worker as it would be here; ClusterError where the worker is what failed."""
    from ray.exceptions import RayError, RayTaskError

    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, MelcliError | OSError) else error
    return (
        ClusterError(f"Ray: {_reason(error)} What is done is kept, and the same command goes on with it.") if isinstance(error, RayError) else error
    )


def _reason(error: BaseException) -> str:
    """The first line of what Ray says, which is long."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Tasks(Executor):
    """Runs functions as tasks of the cluster, each on a core of its own, with one thread."""

    def __init__(self) -> None:
        import ray

        self._call = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)
        self._desk = ray.put(_Desk())
        self._begun: list[Any] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """A future of what a worker returns or raises; ClusterError where workers died of it."""
        reference = self._call.remote(self._desk, function, arguments)
        self._begun.append(reference)
        future: Future[Any] = Future()

        def pass_on(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                future.set_exception(_plain(error))
            else:
                future.set_result(done.result())

        reference.future().add_done_callback(pass_on)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End what is not done yet."""
        import ray

        for reference in self._begun:
            ray.cancel(reference, force=True)


@dataclass(frozen=True)
class _Workers:
    """Actors that a cluster has room for, and what each is given."""

    count: int
    cores: int
    gpus: int

    @property
    def resources(self) -> dict[str, int]:
        return {"num_cpus": self.cores, **({"num_gpus": self.gpus} if self.gpus else {})}

    def __str__(self) -> str:
        share = [f"{self.gpus} GPU"] if self.gpus else []
        share += [f"{self.cores} core{'s' if self.cores > 1 else ''}"]
        return f"{self.count} actor{'s' if self.count > 1 else ''}, {', '.join(share)} each"


def _workers(device: str) -> _Workers:
    """One a GPU, or where there is none one for every few cores. Raises UsageError for --device cuda without GPUs."""
    import ray

    nodes = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))) for node in ray.nodes() if node["Alive"]]
    with_gpus = [(cpus, gpus) for cpus, gpus in nodes if gpus]
    if with_gpus and device in ("auto", "cuda"):
        return _Workers(sum(gpus for _, gpus in with_gpus), max(1, min(CORES, *(cpus // gpus for cpus, gpus in with_gpus))), 1)
    if device == "cuda":
        raise UsageError("--device cuda: the Ray cluster has no GPU.")
    cores = max(1, min(CORES, max(cpus for cpus, _ in nodes)))
    return _Workers(max(1, sum(cpus // cores for cpus, _ in nodes)), cores, 0)


def _decisions(model: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What is decided where the model runs, found by loading it there once."""
    from melcli.transcribe import Transcriber

    return Transcriber.load(model, **options).decisions


@dataclass(frozen=True)
class _Part:
    """What an actor is given at a time."""

    number: int
    items: list[AudioInput]


class _Tally:
    """An actor that counts how often each part was begun: Ray Data gives the part of an actor that died to another for ever."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        self.begun[number] += 1
        return self.begun[number]


class _Actor:
    """A Transcriber in an actor. Gets a row, a part; gives rows of one Transcript, or of the exception that ended it, or none where it gave up.

    The model is loaded for the first part, and what happens then happens to that part.
    """

    def __init__(self, desk: _Desk, tally: Any, tries: int, model: str, options: Mapping[str, Any]) -> None:
        desk.sit_down()
        self.tally, self.tries = tally, tries
        self.model, self.options = model, options
        self.transcriber: Any = None

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        import ray

        (part,) = batch["part"]
        if ray.get(self.tally.begin.remote(part.number)) > self.tries:
            return
        try:
            if self.transcriber is None:
                from melcli.transcribe import Transcriber

                self.transcriber = Transcriber.load(self.model, **self.options)
            for transcript in self.transcriber.transcribe(part.items):
                yield {"result": [transcript]}
        except Exception as error:  # raised again where the command was given; Ray Data would leave out the part without a word
            error.add_note("in a Ray actor: " + traceback.format_exc())
            yield {"result": [error]}


class RayTranscriber:
    """A model in actors of the cluster that is joined: what `melcli.transcribe.Transcriber` is elsewhere, with the same decisions and transcripts."""

    def __init__(self, model: str, folder: Path, options: Mapping[str, Any], workers: _Workers, decisions: dict[str, str]) -> None:
        self.model = model
        self.folder = folder
        self.options = options
        self.workers = workers
        self.decisions = decisions

    @classmethod
    def load(cls, model: str, *, device: str = "auto", **options: Any) -> RayTranscriber:
        """options: those of Transcriber.load. Raises what that raises, and ClusterError."""
        import ray

        from melcli.models import checkpoint

        workers = _workers(device)
        options = {"device": device, **options}
        once = ray.remote(max_retries=RETRIES, max_calls=1, **workers.resources)(_call)
        reference = once.remote(_Desk(threads=workers.cores), _decisions, (model, options))
        if not ray.wait([reference], timeout=PATIENCE_SECONDS)[0]:
            console.note("waiting for the cluster to load the model")
        try:
            decisions = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise _plain(error) from None
        console.decided([("ray", str(workers))])
        return cls(model, checkpoint.resolve(model, offline=options.get("offline", False)), options, workers, decisions)

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        """Transcripts as they arrive. An input whose workers died has that as its error."""
        import ray
        import ray.data

        waiting = {item.name: item for item in items}
        if not waiting:
            return
        items = list(waiting.values())
        size = min(PART, max(1, len(items) // (PARTS * self.workers.count)))
        parts = [_Part(first, items[first : first + size]) for first in range(0, len(items), size)]
        tally = ray.remote(num_cpus=0)(_Tally).remote()
        actors = min(self.workers.count, len(parts))
        heard = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
            _Actor,
            fn_constructor_args=(_Desk(threads=self.workers.cores), tally, RETRIES + 1, self.model, self.options),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
            **self.workers.resources,
        )
        reason = "a Ray worker died of it, or of what it was given with it, again and again"
        try:
            for result in (result for batch in heard.iter_batches(batch_size=None, prefetch_batches=0) for result in batch["result"]):
                if isinstance(result, Exception):
                    raise result
                if waiting.pop(result.name, None) is not None:  # not again by a worker that took over from one that died
                    yield result
        except ray.exceptions.RayError as error:
            reason = f"Ray: {_reason(error)}"
        from melcli.transcripts import Transcript

        for item in waiting.values():
            yield Transcript(item.name, item.utterance.audio[0], 0.0, "", error=reason)
