"""What is behind scores: reports to read and listen to, the worst utterances in the terminal, and two files of transcripts compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from melcli import console
from melcli.errors import ManifestError, UsageError, WriteError
from melcli.scoring import breakdown, diff, results
from melcli.scoring import report as reporting
from melcli.scoring.chunks import join_chunks
from melcli.scoring.compare import Comparison, compare, same_utterances
from melcli.scoring.protocol import Protocol
from melcli.scoring.run import Run, score_rows
from melcli.scoring.tally import Report

COMPARED = ("a", "b", "WER % a", "WER % b", "b - a", "95 %", "p", "b better in %", "utterances")
SAME = "the same utterances"  # the set of result files that hold the same, and do not say of which set they are


def runs_of(reports: Sequence[Report]) -> list[Run]:
    """The runs behind reports. Files of nobody knows which model that hold the same utterances are taken for several systems, called as the files."""
    found: list[Run] = []
    for report in reports:
        runs = list(report.sets.values())
        alike = report.model is None and len(runs) > 1 and all(same_utterances(runs[0], run, report.protocol) for run in runs[1:])
        found += [replace(run, system=run.set_name, set_name=SAME) for run in runs] if alike else runs
    return found


def compare_files(a: Path, b: Path, protocol: Protocol) -> tuple[Comparison, list[Run]]:
    """Two result files of the same utterances against each other, and the runs they hold.

    Raises UsageError where their utterances are not the same, ManifestError where a file is no whole result file.
    """
    runs = [_run(path, name, protocol) for path, name in zip((a, b), _systems(a, b), strict=True)]
    return compare(*runs, protocol), runs


def _run(path: Path, system: str, protocol: Protocol) -> Run:
    rows, incomplete = join_chunks(results.read(path), str(path))
    if not rows:
        raise ManifestError(f"{path}: holds no rows.")
    if incomplete:
        raise ManifestError(f"{path}: pieces of {len(incomplete)} recordings are missing ({', '.join(incomplete[:3])}); only whole ones compare.")
    return score_rows(protocol, system, SAME, rows, folder=path.parent)


def _systems(a: Path, b: Path) -> tuple[str, str]:
    """Names for two files: their models, or else what they are called, or else their whole paths."""
    models = tuple(results.model_of(path) for path in (a, b))
    labels = tuple(results.parse_name(path)[1] for path in (a, b))
    for one, other in (models, labels):
        if one and other and one != other:
            return one, other
    return str(a), str(b)


def check_folder(folder: Path) -> None:
    """Make the folder of a report before any decoding, to know that it can be. Raises UsageError where there is a file, WriteError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--report {folder}: is a file, and --report takes a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"--report {folder}: cannot be written: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK):
        raise WriteError(f"--report {folder}: cannot be written: no permission")


def explain(runs: Sequence[Run], protocol: Protocol, folder: Path | None, worst: int, stdout: bool) -> None:
    """Write a report of runs into a folder, and show their worst utterances word by word: on stdout, or on stderr where stdout is for JSON."""
    for run in runs if worst else ():
        for one in breakdown.worst(run, protocol, worst):
            c = one.counts
            console.spans(
                f"\n{run.system}, {run.set_name}, {one.row.audio_filepath}: {c.sub} replaced, {c.del_} missed, {c.ins} invented of {c.words} words",
                diff.lines(diff.pieces(one.pairs), console.width(stdout)),
                stdout=stdout,
            )
    if folder is not None:
        *_, page = reporting.write(folder, runs, protocol)
        console.note(f"report: {page}")
