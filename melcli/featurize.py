"""Waveforms to feature shards on disk: the work of `melcli featurize`.

The utterances are cut into shards by a rule that depends on nothing but them, and a shard depends on nothing but its utterances and the options
(data/shard_maker.py). So a run that was killed goes on where it was, and the files are the same to the byte as those of one that was not killed,
whatever the number of jobs.

Shapes: M mel bins.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from melcli.audio.mel_spec import MelSpec, preset
from melcli.data.durations import fill_durations
from melcli.data.manifest import fingerprint, read_source
from melcli.data.origin import origin
from melcli.data.rows import read_lines
from melcli.data.shard_maker import TYPICAL_SECONDS, Failure, Options, ShardDone, cut, make_shard
from melcli.data.shards import DTYPES, FORMAT, SUMMARY, ShardHead, is_foreign, read_head, shard_path
from melcli.data.utterance import Utterance
from melcli.errors import ClusterError, ShardError, UsageError
from melcli.files import alone, write_text
from melcli.models.hardware import keep_freed_memory, pick_device

if TYPE_CHECKING:
    from melcli.audio.augment import Augment

PROCESS_JOBS = 5  # from so many jobs on, processes: Python's own lock then costs more than starting them does
FAILED = "failed.jsonl"
DIED = (
    "a process that makes shards was ended from outside, perhaps for want of memory; the same command goes on with what is done, or give fewer --jobs"
)
HISTOGRAM_EDGES = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 16.0, 20.0, 25.0, 30.0, 60.0, math.inf)


@dataclass(frozen=True)
class Estimate:
    """What a run will be: utterances with their copies, hours and bytes (from the known durations, or a sample of the unknown), shards."""

    utterances: int
    hours: float
    size: int
    shards: int


@dataclass(frozen=True)
class Summary:
    """What a run was. size in bytes; seconds of wall clock; histogram: utterances in each [HISTOGRAM_EDGES[i], HISTOGRAM_EDGES[i + 1])."""

    folder: Path
    utterances: int
    hours: float
    frames: int
    size: int
    shards: int
    skipped_shards: int
    seconds: float
    failures: tuple[Failure, ...]
    histogram: tuple[int, ...]

    @property
    def exit_code(self) -> int:
        """0 where every utterance was used, 1 where some failed."""
        return 1 if self.failures else 0


def estimate(utterances: Sequence[Utterance], options: Options) -> Estimate:
    """Hours and bytes before anything is computed. Unknown durations are taken as the mean of a sample of them."""
    unknown = [utterance for utterance in utterances if utterance.duration is None]
    sample = fill_durations(unknown[:: max(1, len(unknown) // 64)])
    probed = [utterance.duration for utterance in sample if utterance.duration is not None]
    typical = sum(probed) / len(probed) if probed else TYPICAL_SECONDS
    known = sum(utterance.duration for utterance in utterances if utterance.duration is not None)
    seconds = (known + typical * len(unknown)) * options.copies
    width = options.spec.n_mels * DTYPES[options.dtype].itemsize
    return Estimate(
        len(utterances) * options.copies, seconds / 3600, int(seconds * options.spec.frame_rate * width), len(cut(utterances, options.copies))
    )


def _watch_parent() -> None:
    """In a worker process: one intra-op thread, and an end when the parent is killed, so that no orphan goes on writing."""
    import multiprocessing
    import threading

    torch.set_num_threads(1)
    keep_freed_memory()
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _executor(jobs: int) -> Iterator[Executor]:
    """Threads for a few jobs (decoding and the mel leave Python's lock, and nothing has to start), processes for many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the jobs are the parallelism, and one thread sums in one order
    keep_freed_memory()
    if jobs >= PROCESS_JOBS:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        pool: Executor = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_watch_parent)
    else:
        pool = ThreadPoolExecutor(jobs, "featurize", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started here never see Ctrl-C and SIGTERM, which are sent to all: the parent ends them, and only it has something to say."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_source(source: str, folder: Path) -> None:
    """Raises UsageError where the source is a file that the shards would replace."""
    path = Path(source if Path(source).exists() else source.rpartition("?")[0])
    if path.is_file() and path.resolve().parent == folder.resolve() and (path.match("shard-*.jsonl") or path.name in (SUMMARY, FAILED)):
        raise UsageError(f"-o {folder}: {path} is what is read and would be overwritten; give another folder")


def _differences(have: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which part of the stamps differs, in words."""
    try:
        if (mel := MelSpec.model_validate(have["mel"]).difference(MelSpec.model_validate(wanted["mel"]))) is not None:
            return f"another mel ({mel})"
    except (KeyError, ValueError):
        return "another version of melcli"
    for key in ("dtype", "augment", "copies", "seed"):
        if have.get(key) != wanted[key]:
            return f"another {key} ({json.dumps(have.get(key))[:80]}, not {json.dumps(wanted[key])[:80]})"
    return "other utterances"


def _existing(folder: Path, shards: int, stamp: dict[str, Any], overwrite: bool) -> dict[int, ShardHead]:
    """The heads of the shards that are finished already. Removes what is broken or half-written, and with `overwrite` everything."""
    for name in ("shard-*", SUMMARY, FAILED):
        for leftover in folder.glob(f".{name}.*.tmp"):
            leftover.unlink()
    files = sorted(folder.glob("shard-*.safetensors"))
    for path in files:
        if is_foreign(path):
            raise ShardError(f"{folder} holds {path.name}, which is no feature shard and would be replaced; choose another -o")
    if overwrite:
        for path in (*files, *folder.glob("shard-*.jsonl"), folder / SUMMARY, folder / FAILED):
            path.unlink(missing_ok=True)
        return {}
    found: dict[int, ShardHead] = {}
    for path in files:
        try:
            head = read_head(path)
        except ShardError:
            path.unlink()  # broken on disk: made again
            continue
        if {key: head.metadata.get(key) for key in stamp} != stamp:
            why = _differences(head.metadata, stamp)
            raise ShardError(f"{folder} holds features of {why}; choose another -o, or --overwrite to replace them")
        index = int(path.stem.removeprefix("shard-"))
        if index < shards and not head.metadata["failed"]:  # failed files get another chance
            found[index] = head
    return found


def _skipped(folder: Path, index: int, head: ShardHead, options: Options) -> ShardDone:
    path = shard_path(folder, index)
    size = path.stat().st_size + path.with_suffix(".jsonl").stat().st_size
    return ShardDone(index, head.utterances, head.frames / options.spec.frame_rate, size, (), skipped=True)


def _histogram(folder: Path, shards: int) -> tuple[tuple[int, ...], float]:
    counts, seconds = [0] * (len(HISTOGRAM_EDGES) - 1), 0.0
    for index in range(shards):
        for _, row in read_lines(shard_path(folder, index).with_suffix(".jsonl")):
            seconds += row["duration"]
            counts[next(i for i, edge in enumerate(HISTOGRAM_EDGES[1:]) if row["duration"] < edge)] += 1
    return tuple(counts), seconds


def _finish(
    folder: Path, source: str | None, shards: int, options: Options, stamp: dict[str, Any], failures: Sequence[Failure]
) -> tuple[dict[str, Any], float]:
    """Write features.json and failed.jsonl; returns what is in features.json, and the seconds of audio. Reads heads and rows, not frames.

    source: what was featurized, where it has a name; model cards tell it.
    """
    heads = [read_head(shard_path(folder, index)) for index in range(shards)]
    frames = sum(head.frames for head in heads)
    total_2M = sum((head.sums_2M for head in heads), torch.zeros(2, options.spec.n_mels, dtype=torch.float64)) / max(1, frames)
    std_M = (total_2M[1] - total_2M[0].square()).clamp_min(0).sqrt()
    counts, seconds = _histogram(folder, shards)
    summary = {
        "format": FORMAT,
        **stamp,
        "source": source,
        "utterances": sum(head.utterances for head in heads),
        "failed": len(failures),
        "hours": round(seconds / 3600, 4),
        "frames": frames,
        "mean": [round(value, 6) for value in total_2M[0].tolist()],
        "std": [round(value, 6) for value in std_M.tolist()],
        "duration_histogram": {"edges_seconds": list(HISTOGRAM_EDGES[:-1]), "utterances": list(counts)},
        "shards": [
            {"file": shard_path(folder, i).name, "utterances": head.utterances, "frames": head.frames, "rows": head.rows}
            for i, head in enumerate(heads)
        ],
    }
    lines = [json.dumps({"id": one.id, "audio": one.audio, "error": one.error}, ensure_ascii=False) + "\n" for one in failures]
    if lines:
        write_text(folder / FAILED, "".join(lines))
    else:
        (folder / FAILED).unlink(missing_ok=True)
    write_text(folder / SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary, seconds


def featurize(
    source: str | Sequence[Utterance],
    out: str | os.PathLike[str],
    mel: str | MelSpec = "phi4mm",
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    dtype: str = "float16",
    augment: Augment | None = None,
    copies: int = 1,
    seed: int = 0,
    device: str = "auto",
    root: Path | None = None,
    offline: bool = False,
    overwrite: bool = False,
    announce: Callable[[Estimate], None] | None = None,
    progress: Callable[[ShardDone], None] | None = None,
) -> Summary:
    """Write the log-mel features of a source into the folder `out`, as data/shards.py lays them out.

    source: what data/manifest.read_source takes (root and offline are its), or utterances.
    jobs: shards made at a time; the number of cores where None. device: 'auto' is the CPU, since decoding takes most of the time.
    executor: makes the shards, each with one thread of torch, instead of threads or processes here, and is shut down.
    augment, copies, seed: each utterance is stored `copies` times, each augmented anew; the numbers drawn depend on its id, the copy and the seed.
    overwrite: replace features of other utterances or options in `out`, which otherwise are a ShardError.
    announce is called once before the work, progress after each shard.
    Files that cannot be used are left out, listed in the Summary and in failed.jsonl, and tried again by the next run.
    """
    started = time.perf_counter()
    options = Options(
        preset(mel) if isinstance(mel, str) else mel, dtype, augment, copies, seed, "cpu" if device == "auto" else pick_device(device)[0]
    )
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} cannot be stored, valid: {', '.join(DTYPES)}")
    if copies < 1 or (copies > 1 and augment is None):
        raise UsageError(f"--copies {copies}: more than one copy is of use with --augment only, and at least one is needed")
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: at least 1")
    utterances = read_source(source, root=root, offline=offline, durations=False) if isinstance(source, str) else list(source)
    if not utterances:
        raise UsageError("nothing to featurize: the source holds no utterance")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file, expected a folder")
    if isinstance(source, str):
        _keep_source(source, folder)
    with alone(folder, "featurize"):
        name = source if isinstance(source, str) and origin(source) else None  # a corpus; paths stay here
        return _into(folder, name, utterances, options, executor or jobs, overwrite, announce, progress, started)


def _into(
    folder: Path,
    source: str | None,
    utterances: Sequence[Utterance],
    options: Options,
    executor: Executor | int,
    overwrite: bool,
    announce: Callable[[Estimate], None] | None,
    progress: Callable[[ShardDone], None] | None,
    started: float,
) -> Summary:
    """The work of `featurize` once all is checked and the folder is ours. executor: what makes the shards, or a number of jobs."""
    stamp = {"format": FORMAT, **options.describe(), "manifest": fingerprint(utterances)}
    plan = cut(utterances, options.copies)
    if announce is not None:
        announce(estimate(utterances, options))
    finished = _existing(folder, len(plan), stamp, overwrite)
    done = [_skipped(folder, index, head, options) for index, head in finished.items()]
    if len(finished) < len(plan):
        (folder / SUMMARY).unlink(missing_ok=True)  # it says that the set is whole
    if progress is not None:
        for one in done:
            progress(one)
    with _executor(min(executor, len(plan))) if isinstance(executor, int) else executor as pool:
        with _uninterrupted():
            waiting: list[Future[ShardDone]] = [
                pool.submit(make_shard, folder, index, [(utterances[which], copy) for which, copy in items], options, stamp)
                for index, items in enumerate(plan)
                if index not in finished
            ]
        for future in as_completed(waiting):
            try:
                done.append(future.result())
            except BrokenExecutor:
                raise ClusterError(DIED) from None
            if progress is not None:
                progress(done[-1])
    failures = tuple(failure for one in sorted(done, key=lambda one: one.index) for failure in one.failures)
    summary, seconds = _finish(folder, source, len(plan), options, stamp, failures)
    return Summary(
        folder=folder,
        utterances=summary["utterances"],
        hours=seconds / 3600,
        frames=summary["frames"],
        size=sum(one.size for one in done),
        shards=len(plan),
        skipped_shards=len(finished),
        seconds=time.perf_counter() - started,
        failures=failures,
        histogram=tuple(summary["duration_histogram"]["utterances"]),
    )
