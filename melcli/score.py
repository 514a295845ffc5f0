"""Scores: what a model transcribes of a manifest, or what others transcribed already, against the reference texts.

Raw text is kept on both sides and normalised only to be counted, so that a result can be scored again under another protocol.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melcli import console
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, UsageError
from melcli.files import write_text
from melcli.inputs import AudioInput
from melcli.scoring import bootstrap, breakdown, diff, normalize
from melcli.scoring import report as reporting
from melcli.scoring.bootstrap import Interval
from melcli.scoring.compare import Comparison, same_utterances
from melcli.scoring.compare import compare as compare_runs
from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run, score_rows
from melcli.scoring.wer import ErrorCounts

if TYPE_CHECKING:
    from melcli.transcribe import Transcriber

HYPOTHESIS_KEYS = ("pred_text", "hyp")
FILES = "transcripts"  # the system of hypothesis files whose utterances differ
SAME = "the same utterances"  # the set of hypothesis files whose utterances do not


@dataclass(frozen=True)
class SetScore:
    """One set's errors. audio_seconds: of the utterances that were scored, None where their rows do not say. wall_seconds: it took to decode them.

    interval: 95 % of the WER, None where there is too little to draw from.
    """

    counts: ErrorCounts
    audio_seconds: float | None
    wall_seconds: float | None = None
    interval: Interval | None = None

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio per second of decoding, model loading left out."""
        return self.audio_seconds / self.wall_seconds if self.audio_seconds and self.wall_seconds else None


@dataclass
class Report:
    """What one model (None: hypotheses made elsewhere) scored on each set. runs: the utterances behind it."""

    protocol: str
    model: str | None
    sets: dict[str, SetScore] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The object of `score -f json`. Rates in percent; averages are over sets, each counting the same; unknown values are null."""
        sets = {}
        for name, score in self.sets.items():
            c = score.counts
            sets[name] = {"wer": _round(c.wer), "cer": _round(c.cer), "ins": c.ins, "del": c.del_, "sub": c.sub, "words": c.words}
            sets[name] |= {"utterances": c.utterances, "audio_seconds": _round(score.audio_seconds), "rtfx": _round(score.rtfx)}
            sets[name]["wer_interval"] = None if score.interval is None else [_round(score.interval.low), _round(score.interval.high)]
        average = {"wer": _mean([s.counts.wer for s in self.sets.values()]), "rtfx": _mean([s.rtfx for s in self.sets.values()])}
        return {"protocol": self.protocol, "model": self.model, "sets": sets, "average": average}

    def rows(self) -> list[list[str]]:
        """The rows of the table that COLUMNS heads."""
        found = []
        for name, s in self.as_dict()["sets"].items():
            between = None if s["wer_interval"] is None else "{:.2f}..{:.2f}".format(*s["wer_interval"])
            cells = [s["wer"], between, *(s[key] for key in ("cer", "sub", "del", "ins", "words", "utterances", "audio_seconds", "rtfx"))]
            found.append([self.model or "-", name, *("-" if cell is None else str(cell) for cell in cells)])
        return found


COLUMNS = ("model", "set", "WER %", "95 %", "CER %", "sub", "del", "ins", "words", "utterances", "audio s", "RTFx")
COMPARED = ("a", "b", "WER % a", "WER % b", "b - a", "95 %", "p", "b better in %", "utterances")


def score(
    *,
    manifests: Sequence[str] = (),
    hypotheses: Sequence[Path] = (),
    models: Sequence[str] = ("tiny-en",),
    protocol: str = "plain",
    root: Path | None = None,
    limit: int | None = None,
    output: Path | None = None,
    offline: bool = False,
    load: Callable[[str], Transcriber] | None = None,
    done: Callable[[str, str], None] = lambda model, name: None,
) -> list[Report]:
    """One report a model over all manifests, or one report over all hypothesis files.

    root: where corpora by name are found. limit: the first N utterances of each set. output: leaderboard rows, one file where there is one model
    and one set, otherwise FILE-MODEL-SET.jsonl. load: makes a Transcriber of a model's name. done: called after each set.
    Raises UsageError, ManifestError, RegistryError; an utterance that fails is listed in the report and not counted.
    """
    rules = _protocol(protocol)
    if bool(manifests) == bool(hypotheses):
        raise UsageError("score needs either --manifest SOURCE (and --model) or --hyp FILE.jsonl.")
    if output is not None and hypotheses:
        raise UsageError("-o writes what a model transcribes; with --hyp the transcripts are in a file already.")
    if hypotheses:
        return [_score_files(hypotheses, rules, limit)]
    if output is not None:
        _check_output(output, [str(path) for path in manifests])
    sets = {name: _references(source, root, limit, offline) for name, source in _set_names(manifests).items()}
    reports = []
    for model in models:
        report = Report(protocol, model)
        transcriber = (load or _load)(model)
        for name, (utterances, without_text) in sets.items():
            report.failures += [(u.id, "no text to score against") for u in without_text]
            rows, wall = _decode(transcriber, utterances, report)
            run = score_rows(rules, model, name, _result_rows(rows), about=dict(transcriber.decisions))
            report.sets[name] = scored = SetScore(run.total, sum(row["duration"] for row in rows), wall, _interval(run))
            report.runs.append(replace(run, rtfx=scored.rtfx))
            if output is not None:
                _write(output if len(models) * len(sets) == 1 else _expanded(output, model, name), rows)
            done(model, name)
        reports.append(report)
    return reports


def _load(model: str) -> Transcriber:
    from melcli.transcribe import Transcriber

    return Transcriber.load(model)


def _references(source: str, root: Path | None, limit: int | None, offline: bool) -> tuple[list[Utterance], list[Utterance]]:
    from melcli.data.manifest import read_source

    utterances = read_source(source, root=root, offline=offline)[:limit]
    with_text = [u for u in utterances if u.text is not None]
    if not with_text:
        raise ManifestError(f"{source}: none of its {len(utterances)} utterances has a text to score against.")
    return with_text, [u for u in utterances if u.text is None]


def _decode(transcriber: Transcriber, utterances: Sequence[Utterance], report: Report) -> tuple[list[dict[str, Any]], float]:
    """Leaderboard rows in the order of the utterances, and the seconds that it took from the first file's opening to the last word."""
    by_name = {f"{position}:{u.id}": u for position, u in enumerate(utterances)}  # ids need not be unique
    rows: dict[str, dict[str, Any]] = {}
    began = time.perf_counter()
    for heard in transcriber.transcribe([AudioInput(name, u) for name, u in by_name.items()]):
        utterance = by_name[heard.name]
        if heard.error is not None:
            report.failures.append((utterance.id, heard.error))
            continue
        audio = utterance.audio[0] if len(utterance.audio) == 1 else utterance.id
        rows[heard.name] = {
            "audio_filepath": audio,
            "duration": round(heard.duration, 3),
            "time": round(heard.seconds, 4),
            "text": utterance.text,
            "pred_text": heard.text,
        }
        stopped = next((segment.finish_reason for segment in heard.segments if segment.finish_reason != "eos"), "eos" if heard.segments else None)
        known = {"speaker": utterance.speaker, "finish_reason": stopped}
        rows[heard.name] |= {key: value for key, value in known.items() if value is not None}
    wall = time.perf_counter() - began
    return [rows[name] for name in by_name if name in rows], wall


def compare(a: Path, b: Path, protocol: str = "plain") -> tuple[Comparison, list[Run]]:
    """Two hypothesis files of the same utterances against each other, and the runs they hold.

    Raises UsageError where their utterances are not the same; ManifestError, RegistryError.
    """
    rules = _protocol(protocol)
    first, second = [replace(run, system=run.set_name, set_name=SAME) for run in _runs([a, b], rules, None)]
    return compare_runs(first, second, rules), [first, second]


def check_folder(folder: Path) -> None:
    """Refuse before any decoding a place for a report that is a file. Raises UsageError."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--report {folder}: is a file, and --report takes a folder.")


def explain(runs: Sequence[Run], protocol: str, folder: Path | None, worst: int, stdout: bool) -> None:
    """Write a report of runs into a folder, and show their worst utterances word by word: on stdout, or on stderr where stdout is for JSON."""
    rules = _protocol(protocol)
    for run in runs if worst else ():
        for one in breakdown.worst(run, rules, worst):
            c = one.counts
            console.spans(
                f"\n{run.system}, {run.set_name}, {one.row.audio_filepath}: {c.sub} replaced, {c.del_} missed, {c.ins} invented of {c.words} words",
                diff.lines(diff.pieces(one.pairs), console.width(stdout)),
                stdout=stdout,
            )
    if folder is not None:
        *_, page = reporting.write(folder, runs, rules)
        console.note(f"report: {page}")


def _protocol(name: str) -> Protocol:
    return Protocol(name, "1", normalize.get(name))


def _score_files(files: Sequence[Path], protocol: Protocol, limit: int | None) -> Report:
    report = Report(protocol.name, None, runs=_runs(files, protocol, limit))
    report.sets = {run.set_name: SetScore(run.total, run.seconds, None, _interval(run)) for run in report.runs}
    first, *others = report.runs
    if others and all(same_utterances(first, run) for run in others):
        report.runs = [replace(run, system=run.set_name, set_name=SAME) for run in report.runs]
    return report


def _runs(files: Sequence[Path], protocol: Protocol, limit: int | None) -> list[Run]:
    sources = _set_names([str(file) for file in files])
    return [
        score_rows(protocol, FILES, name, _result_rows(_hypotheses(Path(file))[:limit]), folder=Path(file).parent) for name, file in sources.items()
    ]


def _interval(run: Run) -> Interval | None:
    return bootstrap.intervals(run.counts, bootstrap.blocks(run.rows))[0]


def _hypotheses(path: Path) -> list[dict[str, Any]]:
    """Rows with `text` and `pred_text`, whichever of HYPOTHESIS_KEYS the file has. Raises ManifestError with file and line."""
    from melcli.data.rows import read_lines

    rows = []
    for where, row in read_lines(path):
        key = next((key for key in HYPOTHESIS_KEYS if key in row), None)
        if key is None or "text" not in row:
            raise ManifestError(f"{where}: no '{'text' if key else 'pred_text'}'; a row holds 'text' and one of: {', '.join(HYPOTHESIS_KEYS)}.")
        if not isinstance(row["text"], str) or not isinstance(row[key], str):
            raise ManifestError(f"{where}: 'text' and '{key}' must both be strings.")
        rows.append(row | {"pred_text": row[key]})
    if not rows:
        raise ManifestError(f"{path}: holds no rows.")
    return rows


def _result_rows(rows: Sequence[dict[str, Any]]) -> list[ResultRow]:
    """Rows that say nothing of where they are from are known by their place in the file."""
    found = []
    for number, row in enumerate(rows, start=1):
        seconds = {
            key: row[key] if isinstance(row.get(key), int | float) and not isinstance(row[key], bool) else None for key in ("duration", "time")
        }
        more = {key: str(row[key]) for key in ("speaker", "parent_id", "finish_reason") if row.get(key) is not None}
        found.append(ResultRow(str(row.get("audio_filepath") or f"row {number}"), text=row["text"], pred_text=row["pred_text"], **seconds, **more))
    return found


def _set_names(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each source: a file's or folder's own name, a corpus as it was written; the whole path where two would be the same."""
    short = [Path(s).name.removesuffix(".gz").removesuffix(".jsonl") if Path(s).exists() else s for s in sources]
    return {(name if short.count(name) == 1 else source): source for name, source in zip(short, sources, strict=True)}


def _expanded(output: Path, model: str, name: str) -> Path:
    parts = [output.stem, *(part.strip("/").replace("/", "_").replace(":", "-") for part in (model, name))]
    return output.with_name("-".join(parts) + (output.suffix or ".jsonl"))


def _check_output(output: Path, manifests: Sequence[str]) -> None:
    """Refuse before any decoding what could not be written after it, or would replace what is read. Raises UsageError."""
    if output.is_dir():
        raise UsageError(f"-o {output}: is a folder, and -o takes a file.")
    if any(Path(manifest).exists() and Path(manifest).resolve() == output.resolve() for manifest in manifests):
        raise UsageError(f"-o {output}: is one of the manifests and would be overwritten; give another file.")


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return round(sum(known) / len(known), 2) if len(known) == len(values) and known else None
