"""A model's transcripts of one set, written to a result file as they are made and gone on with where a run was ended, by one process or several."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from melcli import console, launch
from melcli.data.rows import ADDRESSES
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from melcli.scoring import results
from melcli.scoring.results import ResultRow
from melcli.transcripts import Transcript

if TYPE_CHECKING:
    from melcli.transcribe import Transcriber


def named(utterances: Sequence[Utterance]) -> dict[str, Utterance]:
    """Utterances by what result files call them: the file of a whole recording, otherwise the id; numbered where that is not unique."""
    found: dict[str, Utterance] = {}
    seen: Counter[str] = Counter()
    for utterance in utterances:
        whole = len(utterance.audio) == 1 and not utterance.audio[0].startswith(ADDRESSES) and utterance.start is None and utterance.end is None
        piece = "parent_id" in utterance.extra
        name = utterance.audio[0] if whole and not piece else os.path.basename(utterance.id) or utterance.id
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = utterance
    return found


@contextmanager
def result_folder(output: Path | None) -> Iterator[Path]:
    """The folder of result files: `output`, or one that is removed at the end; what an interrupt then costs is said. For all processes together."""
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="melcli-score-") as scratch:
        try:
            yield Path(launch.gather([scratch])[0])
        except KeyboardInterrupt:
            if launch.is_first():
                console.note("what was done is not kept; with -o DIR it is, and the same command goes on with it")
            raise
        launch.gather([])  # nobody removes what another still reads


def transcribe_set(
    transcriber: Transcriber,
    utterances: Mapping[str, Utterance],
    file: Path,
    settings: Mapping[str, str],
    *,
    whole: Collection[str] = (),
    overwrite: bool = False,
    made: bool = False,
    heard: Callable[[str], None] = lambda name: None,
) -> list[tuple[str, str]]:
    """Transcribe into a result file what it does not hold yet, and return (utterance, reason) of what failed.

    utterances: by name, each with a text. whole: the names of all utterances of the set, where it has more. made: what is heard is compared with what
    the model wrote, and not with these texts. Started by torchrun or `--devices`,
    each process takes its share and the first one puts them together; the failures of all are returned to all. heard: called with each name that
    is done, those included that were done before. Raises UsageError where the file was made otherwise or another run writes to it.
    """
    rank, world = launch.place()
    with results.claim(file) if rank == 0 else nullcontext():
        if rank == 0:
            results.begin(file, settings, overwrite)
            results.settle(file, list(utterances))
        launch.gather([])  # from here on the file is there, and whole
        texts = {} if made else {name: u.text or "" for name, u in utterances.items()}
        done = results.held(file, texts, whole or set(utterances))
        for name in [name for name in utterances if name in done][rank::world]:
            heard(name)
        todo = [name for name in utterances if name not in done][rank::world]
        failures = launch.gather(_transcribe(transcriber, {name: utterances[name] for name in todo}, results.share_path(file, rank, world), heard))
        if rank == 0:
            results.settle(file, list(utterances))
    return failures


def _transcribe(transcriber: Transcriber, utterances: Mapping[str, Utterance], file: Path, heard: Callable[[str], None]) -> list[tuple[str, str]]:
    """Append transcripts to a file as they are made, and return (utterance, reason) of what failed."""
    if not utterances:
        return []
    failures = []
    with results.Appender(file) as output:
        for transcript in transcriber.transcribe([AudioInput(name, utterance) for name, utterance in utterances.items()]):
            if transcript.error is not None:
                failures.append((utterances[transcript.name].id, transcript.error))
            else:
                output.write(_row(utterances[transcript.name], transcript))
            heard(transcript.name)
    return failures


def _row(utterance: Utterance, transcript: Transcript) -> ResultRow:
    return ResultRow(
        audio_filepath=transcript.name,
        duration=round(transcript.duration, 3),
        time=None if transcript.seconds is None else round(transcript.seconds, 4),
        text=(utterance.text or "") if transcript.reference is None else transcript.reference,
        pred_text=transcript.text,
        speaker=utterance.speaker,
        parent_id=utterance.extra.get("parent_id"),
        chunk_index=utterance.extra.get("chunk_index"),
        finish_reason=results.finish_reason([segment.finish_reason for segment in transcript.segments]),
        speech=transcript.speech,
        reply=transcript.reply,
    )
