"""The whole of featurize, decode + mel + write, against lhotse's compute_and_store_features on the same files.

    python benchmarks/featurize_store.py --root ../shared/data --hours 1 --jobs 2 --json benchmarks/results/featurize_store.json

The files are read once beforehand, so that all find them in the page cache, and the candidates take turns; each is given its best of --repeat runs.
lhotse is timed without making its recordings manifest, with its default storage and with uncompressed NumPy files; its Fbank has 80 bins at 100
frames a second, as the preset phi4mm. Both start what processes they need inside the time that is measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from melcli import __version__
from melcli.data.manifest import read_source
from melcli.data.utterance import Utterance
from melcli.featurize import featurize


def an_hour(source: str, root: Path, hours: float) -> list[Utterance]:
    """The first utterances of a source that make up so many hours."""
    chosen, seconds = [], 0.0
    for utterance in read_source(source, root=root, offline=True):
        if seconds >= hours * 3600:
            break
        chosen.append(utterance)
        seconds += utterance.duration or 0.0
    return chosen


def ours(utterances: list[Utterance], mel: str, jobs: int) -> Callable[[Path], int]:
    """A run of melcli into an empty folder; returns the bytes written."""

    def run(folder: Path) -> int:
        done = featurize(utterances, folder, mel, jobs=jobs)
        if done.failures:
            raise SystemExit(f"{done.failures[0].error}")
        return done.size

    return run


def theirs(cuts: Any, storage: str, jobs: int) -> Callable[[Path], int]:
    """A run of lhotse into an empty folder; returns the bytes written."""
    import lhotse

    writer = getattr(lhotse, storage)

    def run(folder: Path) -> int:
        cuts.compute_and_store_features(lhotse.Fbank(), folder / "features", num_jobs=jobs, storage_type=writer)
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    return run


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
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # for lhotse's jobs, which else fight over the cores; melcli sees to it itself

    utterances = an_hour(arguments.source, arguments.root, arguments.hours)
    seconds = sum(utterance.duration or 0.0 for utterance in utterances)
    paths = [part for utterance in utterances for part in utterance.audio]
    for path in paths:
        Path(path).read_bytes()

    candidates: dict[str, Callable[[Path], int]] = {f"melcli, {jobs} jobs": ours(utterances, arguments.mel, jobs) for jobs in arguments.jobs}
    try:
        import lhotse
    except ImportError as error:
        print(f"lhotse is left out: {error}")
    else:
        cuts = lhotse.CutSet.from_cuts(lhotse.Recording.from_file(path, recording_id=str(i)).to_cut() for i, path in enumerate(paths))
        for jobs in arguments.jobs:
            candidates[f"lhotse, {jobs} jobs"] = theirs(cuts, "LilcomChunkyWriter", jobs)
            candidates[f"lhotse, {jobs} jobs, NumPy files"] = theirs(cuts, "NumpyFilesWriter", jobs)

    best: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for _ in range(arguments.repeat):
        for name, run in candidates.items():
            folder = Path(tempfile.mkdtemp(prefix="melcli-bench-"))
            try:
                started = time.perf_counter()
                sizes[name] = run(folder)
                best[name] = min(best.get(name, float("inf")), time.perf_counter() - started)
            finally:
                shutil.rmtree(folder)

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
    if arguments.json:
        versions = {"melcli": __version__, "torch": torch.__version__, "python": platform.python_version()}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        what = {"source": arguments.source, "hours": round(seconds / 3600, 3), "files": len(paths), "mel": arguments.mel}
        arguments.json.write_text(json.dumps({**what, "versions": versions, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
