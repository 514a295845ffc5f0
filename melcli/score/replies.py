"""What `score --task answer` and `score --task continue` share: a model replies to recordings, its speech is listened to, and rows are kept of it.

A row is written when all of it is known, so that a run that was ended goes on where it was; rows are those of any other score, with `reply` in them.

Shapes: S samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from melcli import launch
from melcli.audio.writer import file_writer
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, UsageError
from melcli.inputs import AudioInput
from melcli.reply import Replied
from melcli.score.run import result_folder, transcribe_set
from melcli.scoring import results
from melcli.scoring.protocol import Protocol as Counting
from melcli.scoring.results import ResultRow
from melcli.scoring.sets import by_label
from melcli.scoring.tally import Report
from melcli.transcripts import Transcript

if TYPE_CHECKING:
    from melcli.transcribe import Transcriber

BLOCK = 16  # recordings replied to, listened to and measured at a time


@dataclass
class Scored:
    """A report, and all rows of each of its sets: those too whose reference has no words, which no word error rate counts."""

    report: Report
    rows: dict[str, list[ResultRow]] = field(default_factory=dict)

    def add(self, name: str, rows: list[ResultRow], **more: Any) -> None:
        """Take the rows of a set. more: see `Report.add`."""
        self.report.add(name, rows, **more)
        self.rows[name] = rows


class Replies(Protocol):
    """Whoever replies. rate: samples a second of what is spoken."""

    @property
    def rate(self) -> int: ...

    def replies(self, items: Iterable[AudioInput]) -> Iterator[Replied]: ...


Judge = Callable[[AudioInput, Replied, str | None], Transcript]
"""Makes the row of a reply. The text is what a recogniser heard in its speech, None where nobody listened."""


class Interview:
    """Has somebody reply, and a recogniser listen; with the face of a transcriber, so that rows are kept and gone on with as any other's."""

    def __init__(self, replies: Replies, judge: Judge, listener: Transcriber | None, folder: Path, names: Iterable[str]) -> None:
        """folder: where speech is written, for the recogniser and whoever wants to hear it. names: of all recordings, in order."""
        self.source, self.judge, self.listener = replies, judge, listener
        seen: Counter[str] = Counter()
        self._paths: dict[str, Path] = {}
        for name in names:
            stem = quote(PurePath(name).stem, safe=" ") or "recording"
            seen[stem] += 1
            self._paths[name] = folder / (f"{stem}.wav" if seen[stem] == 1 else f"{stem}#{seen[stem]}.wav")

    def path(self, name: str) -> Path:
        """Where the speech of a reply is: called as the recording, numbered where several have one name."""
        return self._paths[name]

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        """A transcript of each, with its reply; or why there is none."""
        items = iter(items)
        while block := list(islice(items, BLOCK)):
            made = {one.name: one for one in self.source.replies(block)}
            spoken = [one.name for one in made.values() if one.error is None and one.wave_S is not None and len(one.wave_S)]
            for name in spoken:
                with file_writer(self.path(name), self.source.rate) as out:
                    out.write(made[name].wave_S)
            heard = self._listen(spoken)
            for item in block:
                one = made[item.name]
                error = one.error or (heard[item.name].error if item.name in heard else None)
                if error is not None:
                    yield Transcript(item.name, "", 0.0, "", error=error)
                elif self.listener is None:
                    yield self.judge(item, one, None)
                else:
                    yield self.judge(item, one, heard[item.name].text if item.name in heard else "")

    def _listen(self, names: Sequence[str]) -> dict[str, Transcript]:
        if self.listener is None:
            return {}
        items = [AudioInput(name, Utterance(name, (str(self.path(name).absolute()),))) for name in names]
        return {one.name: one for one in self.listener.transcribe(items)}


@dataclass(frozen=True)
class Material:
    """What is to be replied to of one source. left_out: (name, reason) of what cannot be, as this task goes; failed: of what ought to be.

    beside: all that could be, whatever the limit, for who compares with others; empty where nobody does.
    """

    name: str
    label: str
    utterances: dict[str, Utterance]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    whole: frozenset[str] = frozenset()
    beside: Mapping[str, Utterance] = field(default_factory=dict)


def score_replies(
    name: str,
    protocol: Counting,
    material: Sequence[Material],
    interview: Callable[[Material, Path], tuple[Material, Interview]],
    *,
    settings: Mapping[str, str],
    output: Path | None = None,
    overwrite: bool = False,
    made: bool = False,
    heard: Callable[[str], None] = lambda name: None,
    about: Mapping[str, str] | None = None,
) -> Scored:
    """What one system replied to each source, counted.

    interview: makes that of a source, with a folder for its speech, and says what is asked in it; see `transcribe_set` for the rest.

    settings: all that rows depend on. output: folder of result files and of speech; what is there is gone on with, unless `overwrite`.
    """
    scored = Scored(Report(protocol, name))
    with result_folder(output) as folder:
        for one in material:
            file = folder / results.file_name(name, one.label)
            asked, asking = interview(one, file.with_suffix(""))
            scored.report.failures += asked.failed
            options = {"whole": one.whole, "overwrite": overwrite, "made": made, "heard": heard}
            scored.report.failures += transcribe_set(asking, asked.utterances, file, settings, **options)
            if launch.is_first():
                rows = {row.audio_filepath: row for row in results.read(file)} if file.exists() else {}
                kept = [rows[key] for key in asked.utterances if key in rows]
                scored.add(one.name, kept, folder=folder, utterances=asked.utterances, about=about)
    return scored


def from_files(paths: Sequence[Path], protocol: Counting, limit: int | None = None) -> list[Scored]:
    """One `Scored` a model of the result files, those in folders included. Raises ManifestError for a file without replies."""
    files = [file for path in paths for file in (sorted(path.rglob("*.jsonl")) if path.is_dir() else [path])]
    found: dict[str | None, Scored] = {}
    for file in files:
        rows = results.read(file)[:limit]
        if not rows or any(row.reply is None for row in rows):
            raise ManifestError(f"{file}: holds rows without replies; `score --task answer -o DIR` and `--task continue -o DIR` write such files.")
        model = results.model_of(file)
        scored = found.setdefault(model, Scored(Report(protocol, model)))
        label = by_label(results.parse_name(file)[1])
        scored.add(str(file) if label in scored.rows else label, rows, folder=file.parent)
    if not found:
        raise UsageError(f"--hyp: no result files (.jsonl) in {', '.join(map(str, paths))}.")
    return list(found.values())
