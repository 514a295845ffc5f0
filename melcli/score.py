"""Scores: what a model transcribes of a manifest, or what others transcribed already, against the reference texts.

Raw text is kept on both sides and normalised only to be counted, so that a result can be scored again under another protocol.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, UsageError
from melcli.files import write_text
from melcli.inputs import AudioInput
from melcli.scoring import protocol as protocols
from melcli.scoring.protocol import Protocol
from melcli.scoring.wer import ErrorCounts

if TYPE_CHECKING:
    from melcli.transcribe import Transcriber

HYPOTHESIS_KEYS = ("pred_text", "hyp")


@dataclass(frozen=True)
class SetScore:
    """One set's errors. audio_seconds: of the utterances that were scored, None where their rows do not say. wall_seconds: it took to decode them."""

    counts: ErrorCounts
    audio_seconds: float | None
    wall_seconds: float | None = None

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio per second of decoding, model loading left out."""
        return self.audio_seconds / self.wall_seconds if self.audio_seconds and self.wall_seconds else None


@dataclass
class Report:
    """What one model (None: hypotheses made elsewhere) scored on each set."""

    protocol: str
    model: str | None
    sets: dict[str, SetScore] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The object of `score -f json`. Rates in percent; averages are over sets, each counting the same; unknown values are null."""
        sets = {}
        for name, score in self.sets.items():
            c = score.counts
            sets[name] = {"wer": _round(c.wer), "cer": _round(c.cer), "ins": c.ins, "del": c.del_, "sub": c.sub, "words": c.words}
            sets[name] |= {"utterances": c.utterances, "audio_seconds": _round(score.audio_seconds), "rtfx": _round(score.rtfx)}
        average = {"wer": _mean([s.counts.wer for s in self.sets.values()]), "rtfx": _mean([s.rtfx for s in self.sets.values()])}
        return {"protocol": self.protocol, "model": self.model, "sets": sets, "average": average}

    def rows(self) -> list[list[str]]:
        """The rows of the table that COLUMNS heads."""
        found = []
        for name, s in self.as_dict()["sets"].items():
            cells = [s[key] for key in ("wer", "cer", "sub", "del", "ins", "words", "utterances", "audio_seconds", "rtfx")]
            found.append([self.model or "-", name, *("-" if cell is None else str(cell) for cell in cells)])
        return found


COLUMNS = ("model", "set", "WER %", "CER %", "sub", "del", "ins", "words", "utterances", "audio s", "RTFx")


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
    rules = protocols.get(protocol)
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
            report.sets[name] = SetScore(_count(rows, rules), sum(row["duration"] for row in rows), wall)
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
    wall = time.perf_counter() - began
    return [rows[name] for name in by_name if name in rows], wall


def _score_files(files: Sequence[Path], protocol: Protocol, limit: int | None) -> Report:
    report = Report(protocol.name, None)
    for name, source in _set_names([str(file) for file in files]).items():
        rows = _hypotheses(Path(source))[:limit]
        durations = [row.get("duration") for row in rows]
        known = all(isinstance(d, int | float) and not isinstance(d, bool) for d in durations)
        report.sets[name] = SetScore(_count(rows, protocol), sum(durations) if known else None)
    return report


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


def _count(rows: Sequence[dict[str, Any]], protocol: Protocol) -> ErrorCounts:
    each = protocol.score_each([row["text"] for row in rows], [row["pred_text"] for row in rows])
    return sum((counts for counts in each if counts is not None), ErrorCounts())


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
