"""`melcli score`: what a model transcribes of sets, or what others transcribed already, against the reference texts.

Everything is scored from result files. They keep raw text on both sides, normalised only to be counted, so that they can be scored again under
another protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from melcli import console, launch
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, UsageError
from melcli.files import write_text
from melcli.score.run import named, result_folder, transcribe_set
from melcli.scoring import protocol as protocols
from melcli.scoring import results
from melcli.scoring.chunks import join_chunks
from melcli.scoring.leaderboard import to_csv
from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.sets import ScoreSet, by_label, default_protocol, in_order, of_label, open_sets
from melcli.scoring.tally import COLUMNS, Report

if TYPE_CHECKING:
    from melcli.transcribe import Transcriber

__all__ = ["COLUMNS", "DEFAULT_FOLDER", "Report", "score"]

DEFAULT_FOLDER = Path("results")
LISTED = 20  # missing utterances that are named one by one


@dataclass(frozen=True)
class _Loaded:
    """A set and its utterances by the names that result files give them. whole: the names of all there are, beyond a limit too."""

    entry: ScoreSet
    utterances: dict[str, Utterance]
    whole: frozenset[str]
    without_text: list[str]

    @property
    def pieces(self) -> list[tuple[str, int]] | None:
        """(recording, index) of every utterance, where they are pieces of recordings."""
        found = [(str(u.extra["parent_id"]), int(u.extra["chunk_index"])) for u in self.utterances.values() if "parent_id" in u.extra]
        return found or None


def score(
    *,
    sets: Sequence[str] = (),
    manifests: Sequence[str] = (),
    hypotheses: Sequence[Path] = (),
    models: Sequence[str] = ("tiny-en",),
    protocol: str | None = None,
    root: Path | None = None,
    limit: int | None = None,
    output: Path | None = None,
    table: Path | None = None,
    overwrite: bool = False,
    allow_missing: bool = False,
    offline: bool = False,
    load: Callable[[str], Transcriber] | None = None,
    expected: Callable[[int], None] = lambda count: None,
    heard: Callable[[str], None] = lambda name: None,
    done: Callable[[str, str], None] = lambda model, name: None,
) -> list[Report]:
    """One report a model: over all sets and manifests, or, with `hypotheses`, over the result files of each model that are there.

    sets: names (scoring/sets.py) or sources; with hypotheses, the sets these must cover. hypotheses: result files, or folders of them.
    protocol: by default that of the sets. root: where corpora and mirrors of the hub are found. limit: the first N utterances of each set, and of
    recordings in pieces the whole of those that the first N pieces are of.
    output: the folder of the result files, DEFAULT_FOLDER where sets are named; a file there is gone on with, unless `overwrite`. table: the
    leaderboard's CSV. allow_missing: score result files that lack utterances without complaint. load: loads a model by its name. expected: called
    with the number of utterances that this process will hear; heard, done: after each utterance and each set.
    Raises UsageError, ManifestError, RegistryError; an utterance that fails is listed in the report and not counted.
    """
    if (manifests and hypotheses) or not (sets or manifests or hypotheses):
        raise UsageError("score needs either --set NAME or --manifest SOURCE (and --model), or --hyp FILE.jsonl (and --set).")
    if hypotheses and (output is not None or overwrite):
        raise UsageError("-o and --overwrite are about what a model transcribes; with --hyp the transcripts are in files already.")
    if table is not None and table.is_dir():
        raise UsageError(f"--csv {table}: is a folder, and --csv takes a file.")
    if output is not None and (output.suffix == ".jsonl" or (output.exists() and not output.is_dir())):
        raise UsageError(f"-o {output}: takes a folder; result files in it are named after model and set.")
    entries, files = open_sets([*sets, *manifests]), _files(hypotheses)
    chosen, why = choose_protocol(protocol, entries or [of_label(results.parse_name(path)[1]) for path in files])
    loaded = {entry.name: _read(entry, root, limit, offline) for entry in entries}
    if hypotheses:
        reports = _score_files(files, loaded, chosen, limit, allow_missing)
        console.decided({"protocol": why})
    else:
        if launch.is_first():
            console.decided({"protocol": why})
        expected(sum(len(one.utterances) for one in loaded.values()) * len(models) // launch.place()[1])
        with result_folder(output or (DEFAULT_FOLDER if sets else None)) as folder:
            reports = [_score_model(model, loaded, chosen, folder, load or _load, overwrite, heard, done) for model in models]
    if table is not None and launch.is_first():
        write_text(table, to_csv(reports))
    return reports


def choose_protocol(asked: str | None, entries: Sequence[ScoreSet | None]) -> tuple[Protocol, str]:
    """The protocol that was asked for, or else that of the sets; and which it is and why, in words. Raises RegistryError and UsageError."""
    name, why = (asked, "as asked") if asked else default_protocol(entries)
    chosen = protocols.get(name)
    return chosen, f"{chosen.name} {chosen.version} ({chosen.digest}): {why}"


def _load(model: str) -> Transcriber:
    from melcli.transcribe import Transcriber

    return Transcriber.load(model)


def _read(entry: ScoreSet, root: Path | None, limit: int | None, offline: bool) -> _Loaded:
    every = named(entry.read(root, offline))
    utterances = _first(every, limit)
    without_text = [u.id for u in utterances.values() if u.text is None]
    if len(without_text) == len(utterances):
        raise ManifestError(f"{entry.source}: none of its {len(utterances)} utterances has a text to score against.")
    return _Loaded(entry, {name: u for name, u in utterances.items() if u.text is not None}, frozenset(every), without_text)


def _first(utterances: Mapping[str, Utterance], limit: int | None) -> dict[str, Utterance]:
    """The first N. Of a recording in pieces all are taken, since its text is that of the whole."""
    first = dict(islice(utterances.items(), limit))
    begun = {u.extra["parent_id"] for u in first.values() if "parent_id" in u.extra}
    return {name: u for name, u in utterances.items() if name in first or u.extra.get("parent_id") in begun}


def _score_model(
    model: str,
    loaded: Mapping[str, _Loaded],
    protocol: Protocol,
    folder: Path,
    load: Callable[[str], Transcriber],
    overwrite: bool,
    heard: Callable[[str], None],
    done: Callable[[str, str], None],
) -> Report:
    report = Report(protocol, model)
    transcriber = load(model)
    made_by = {key: value.partition(": ")[0] for key, value in transcriber.decisions.items() if key in ("device", "dtype")}
    made_by = {**transcriber.decisions, **made_by, "model": model, "weights": model_digest(transcriber.folder)}
    made_by.pop("batch", None)  # may be made smaller to go on with; where it changes texts, `decoding` says so
    for name, one in loaded.items():
        file = folder / results.file_name(model, one.entry.label)
        report.failures += [(utterance, "no text to score against") for utterance in one.without_text]
        report.failures += transcribe_set(transcriber, one.utterances, file, made_by, whole=one.whole, overwrite=overwrite, heard=heard)
        if launch.is_first():
            rows = {row.audio_filepath: row for row in results.read(file)} if file.exists() else {}
            kept = [rows[utterance] for utterance in one.utterances if utterance in rows]
            whole, incomplete = join_chunks(kept, str(file), one.pieces)
            report.failures += [(parent, "not scored, since pieces of it are missing") for parent in incomplete]
            scored = [row for row in whole if row.audio_filepath not in incomplete]
            report.add(name, scored, utterances=one.utterances, about=transcriber.decisions)
        done(model, name)
    return report


def model_digest(folder: Path) -> str:
    """A digest of a model's weights and dictionary, so that results of one training do not go on with those of another."""
    from melcli.models.decoding.dictionary import WORDS

    state = hashlib.sha256()
    for path in sorted([*folder.rglob("*.safetensors"), *folder.rglob(WORDS)]):
        with path.open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()[:16]


def _score_files(files: Sequence[Path], loaded: Mapping[str, _Loaded], protocol: Protocol, limit: int | None, allow_missing: bool) -> list[Report]:
    """A report for each model that result files are of."""
    found: dict[str | None, dict[str, Path]] = {}
    for path in files:
        model, label = results.model_of(path), results.parse_name(path)[1]
        name = next((one.entry.name for one in loaded.values() if one.entry.label == label), by_label(label))
        if loaded and name not in loaded:
            continue
        sets = found.setdefault(model, {})
        sets[str(path) if name in sets else name] = path
    if not found:
        raise ManifestError(f"--hyp: no result file of {', '.join(loaded)} among {', '.join(path.name for path in files[:5])}.")
    return [_score_model_files(model, of_model, loaded, protocol, limit, allow_missing) for model, of_model in found.items()]


def _score_model_files(
    model: str | None, files: Mapping[str, Path], loaded: Mapping[str, _Loaded], protocol: Protocol, limit: int | None, allow_missing: bool
) -> Report:
    report = Report(protocol, model)
    missing = [(name, "no result file") for name in loaded if name not in files]
    for name in in_order(files):
        path = files[name]
        rows = results.read(path)
        if not rows:
            raise ManifestError(f"{path}: holds no rows.")
        if (one := loaded.get(name)) is not None:
            rows, strange = _of_set(one, rows, path)
            report.failures += strange
            missing += [] if one.pieces else _missing(one, rows, path)
        whole, incomplete = join_chunks(rows, str(path), one.pieces if one else None)
        missing += [(parent, f"pieces of it are missing from {path}") for parent in incomplete]
        kept = whole if allow_missing else [row for row in whole if row.audio_filepath not in incomplete]
        report.add(name, kept[:limit], folder=path.parent, utterances=one.utterances if one else None)
    report.failures += [] if allow_missing else missing
    return report


def _of_set(one: _Loaded, rows: list[ResultRow], path: Path) -> tuple[list[ResultRow], list[tuple[str, str]]]:
    """The rows that are utterances of a set, and what is none. Files that number their utterances, as the leaderboard's scripts did, are believed."""
    if all(row.audio_filepath not in one.whole for row in rows):
        return rows, []
    strange = [row.audio_filepath for row in rows if row.audio_filepath not in one.whole]
    return [row for row in rows if row.audio_filepath in one.utterances], _listed(strange, one, f"not of the set and not scored: {path}")


def _missing(one: _Loaded, rows: Sequence[ResultRow], path: Path) -> list[tuple[str, str]]:
    """What a file lacks of its set. Of numbered utterances only how many."""
    there = {row.audio_filepath for row in rows}
    lacking = [name for name in one.utterances if name not in there]
    if len(lacking) == len(one.utterances):
        count = len(lacking) - len(rows)
        return [(one.entry.name, f"{count} of {len(lacking)} utterances are missing from {path}, which does not say which")] if count > 0 else []
    return _listed(lacking, one, f"missing from {path}")


def _listed(names: Sequence[str], one: _Loaded, what: str) -> list[tuple[str, str]]:
    """The first LISTED names with what there is to say of them, and how many more there are."""
    rest = len(names) - LISTED
    return [*((name, what) for name in names[:LISTED]), *([(one.entry.name, f"{rest} more {what}")] if rest > 0 else [])]


def _files(given: Sequence[Path]) -> list[Path]:
    """Result files, those in folders included. Raises ManifestError for a folder without any."""
    found: dict[Path, Path] = {}
    for path in given:
        inside = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
        if not inside:
            raise ManifestError(f"{path}: holds no result files (.jsonl).")
        found |= {file.resolve(): file for file in inside}
    return list(found.values())
