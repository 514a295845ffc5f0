"""The whole of featurize, decode + mel + write, against lhotse's compute_and_store_features on the same files.

    python benchmarks/featurize_store.py --root ../shared/data --hours 1 --jobs 2 --json benchmarks/results/featurize_store.json

The files are read once beforehand, so that all find them in the page cache, and the candidates take turns; each is given its best of --repeat runs.
Decoding alone is timed too: its ratio is what no program that decodes with libsndfile can exceed. Each run has a process of its own and is timed
from when its imports are done, with one OpenMP thread a job. lhotse is timed without making its recordings manifest, with its default storage and
with uncompressed NumPy files; its Fbank has 80 bins at 100 frames a second, as the preset phi4mm.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from figures import write

from melcli.data.manifest import read_source
from melcli.data.utterance import Utterance


def an_hour(source: str, root: Path, hours: float) -> list[Utterance]:
    """The first utterances of a source that make up so many hours."""
    chosen, seconds = [], 0.0
    for utterance in read_source(source, root=root, offline=True):
        if seconds >= hours * 3600:
            break
        chosen.append(utterance)
        seconds += utterance.duration or 0.0
    return chosen


def ours(utterances: list[Utterance], folder: Path, mel: str, jobs: int) -> float:
    """Seconds of a run of melcli into an empty folder."""
    from melcli.featurize import featurize

    started = time.perf_counter()
    done = featurize(utterances, folder, mel, jobs=jobs)
    taken = time.perf_counter() - started
    if done.failures:
        raise SystemExit(done.failures[0].error)
    return taken


def decoding(utterances: list[Utterance], folder: Path, jobs: int) -> float:
    """Seconds that libsndfile alone takes for the samples, which nobody here can do without."""
    import soundfile

    paths = [part for utterance in utterances for part in utterance.audio]
    started = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(lambda path: soundfile.read(path, dtype="float32")[1], paths):
            pass
    return time.perf_counter() - started


def theirs(utterances: list[Utterance], folder: Path, storage: str, jobs: int) -> float:
    """Seconds of a run of lhotse into an empty folder."""
    import lhotse

    warnings.simplefilter("ignore")
    recordings = (lhotse.Recording.from_file(utterance.audio[0], recording_id=str(i)) for i, utterance in enumerate(utterances))
    cuts = lhotse.CutSet.from_cuts(recording.to_cut() for recording in recordings)
    extractor, writer = lhotse.Fbank(), getattr(lhotse, storage)
    started = time.perf_counter()
    cuts.compute_and_store_features(extractor, folder / "features", num_jobs=jobs, storage_type=writer)
    return time.perf_counter() - started


def alone(run: Callable[..., float], *arguments: Any) -> tuple[float, int]:
    """Seconds and bytes of a run in a fresh process, so that no candidate inherits another's threads.

    The process and those it started are killed once they have told: a pool of lhotse's now and then never ends by itself.
    """
    folder = Path(tempfile.mkdtemp(prefix="melcli-bench-"))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_tell, args=(theirs, run, arguments[0], folder, *arguments[1:]))
    try:
        process.start()
        theirs.close()
        taken = ours.recv()
        return taken, sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except EOFError:
        raise SystemExit(f"{run.__name__} failed; see above") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        shutil.rmtree(folder)


def _tell(pipe: Connection, run: Callable[..., float], *arguments: Any) -> None:
    os.setsid()
    pipe.send(run(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="speechocean762:train", help="what to featurize")
    parser.add_argument("--root", type=Path, default=Path("../shared/data"), help="where corpora are")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--mel", default="phi4mm")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"  # lhotse's jobs else fight over the cores; melcli sees to that itself

    utterances = an_hour(arguments.source, arguments.root, arguments.hours)
    seconds = sum(utterance.duration or 0.0 for utterance in utterances)
    paths = [part for utterance in utterances for part in utterance.audio]
    for path in paths:
        Path(path).read_bytes()

    candidates: dict[str, tuple[Any, ...]] = {f"melcli, {jobs} jobs": (ours, utterances, arguments.mel, jobs) for jobs in arguments.jobs}
    candidates |= {f"decoding alone, {jobs} jobs": (decoding, utterances, jobs) for jobs in arguments.jobs}
    if importlib.util.find_spec("lhotse") is None:
        print("lhotse is not installed: only melcli is timed")
    else:
        for jobs in arguments.jobs:
            candidates[f"lhotse, {jobs} jobs"] = (theirs, utterances, "LilcomChunkyWriter", jobs)
            candidates[f"lhotse, {jobs} jobs, NumPy files"] = (theirs, utterances, "NumpyFilesWriter", jobs)

    best: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for _ in range(arguments.repeat):
        for name, candidate in candidates.items():
            taken, sizes[name] = alone(*candidate)
            best[name] = min(best.get(name, float("inf")), taken)

    peer = min((taken for name, taken in best.items() if name.startswith("lhotse")), default=None)
    rows = [
        {
            "name": name,
            "seconds": round(taken, 2),
            "times_real_time": round(seconds / taken),
            "megabytes": round(sizes[name] / 1e6, 1),
            "ratio_to_best_lhotse": None if peer is None else round(peer / taken, 2),
        }
        for name, taken in best.items()
    ]
    print(f"{len(utterances)} files of {arguments.source}, {seconds / 3600:.2f} h, {arguments.mel}; best of {arguments.repeat}\n")
    print(f"{'':34}{'s':>8}{'x real time':>14}{'MB':>8}{'x best lhotse':>16}")
    for row in rows:
        print(f"{row['name']:34}{row['seconds']:8.2f}{row['times_real_time']:14d}{row['megabytes']:8.1f}{row['ratio_to_best_lhotse'] or '-':>16}")
    what = {"source": arguments.source, "hours": round(seconds / 3600, 3), "files": len(paths), "mel": arguments.mel}
    write(arguments.json, {**what, "rows": rows})


if __name__ == "__main__":
    main()
