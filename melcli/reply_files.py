"""Where the speech of replies goes: one file, a folder that keeps the tree of the recordings, or a pipe; and what lies in that folder.

Shapes: S samples.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melcli.audio.writer import check_suffix
from melcli.errors import UsageError
from melcli.files import alone
from melcli.inputs import AudioInput, Inputs
from melcli.journal import Journal
from melcli.synthesizing.rows import MANIFEST, protect
from melcli.transcripts import distinct_stems
from melcli.untrusted import check_names

PIPE = Path("-")


@dataclass
class Outputs:
    """What becomes of each recording's reply. todo: the recordings still to be replied to. files: by name; none for text alone and for a pipe.

    folder: of all files, where it is one and not a file that was named. rows: of the manifest in it, by the audio's path below it. journal: keeps
    them until that is written. skips: whether what is there is left out.
    """

    todo: list[AudioInput]
    files: dict[str, Path] = field(default_factory=dict)
    folder: Path | None = None
    pipe: bool = False
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    journal: Journal | None = None
    skips: bool = False

    @property
    def speaks(self) -> bool:
        """Whether there is speech to be written at all."""
        return self.pipe or bool(self.files)

    def where(self) -> str:
        """What to say of it."""
        if self.pipe:
            return "WAV on standard output, text on standard error"
        return f"{self.folder}/, a file a recording" if self.folder else str(next(iter(self.files.values()), "text alone"))

    def note(self, name: str, about: Mapping[str, Any]) -> None:
        """Put a reply whose speech is written into the manifest."""
        if self.folder is not None and self.journal is not None:
            audio = self.files[name].relative_to(self.folder).as_posix()
            self.rows[audio] = {"id": audio.rpartition(".")[0], "audio": audio, **about}
            self.journal.add(self.rows[audio])

    def write_manifest(self) -> Path | None:
        """Write a row for each file that is there: what `melcli score` can read. None where there is no folder, or no file."""
        rows = [row for audio, row in sorted(self.rows.items()) if self.folder is not None and (self.folder / audio).is_file()]
        if not rows or self.journal is None:
            return None
        return self.journal.finish("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    @contextmanager
    def writing(self, who: str) -> Iterator[None]:
        """Hold the folder, and write its manifest at the end, after an interrupt too. Raises UsageError where another process writes there."""
        if self.folder is None:
            yield
            return
        with alone(self.folder, who), Journal(self.folder / MANIFEST) as self.journal:
            earlier = dict(self.journal.rows)
            if self.skips:
                self.rows = earlier
            try:
                yield
            except KeyboardInterrupt:
                self.rows = earlier | self.rows
                self.write_manifest()
                raise
            self.write_manifest()


def open_outputs(inputs: Inputs, out: Path | None, skip_existing: bool = False) -> Outputs:
    """Where the speech of replies to these recordings goes. out: a file for one recording, a folder for any number, `-`, or None for text alone.

    Raises UsageError for what cannot be, such as a file for several recordings, or a file over an input.
    """
    if skip_existing and (out is None or out == PIPE or _is_file(out)):
        raise UsageError("--skip-existing looks for files in an output folder: say which with -o DIR.")
    if out is None:
        return Outputs(inputs.items)
    one = inputs.total == 1
    if out == PIPE:
        if not one:
            raise UsageError(f"-o -: one reply goes into a pipe, and there are {inputs.total} recordings; give -o DIR.")
        if sys.stdout.isatty():
            raise UsageError("-o - writes audio to standard output, which is a terminal: pipe it on, or give -o FILE.wav.")
        return Outputs(inputs.items, pipe=True)
    if _is_file(out):
        check_suffix(out)
        if not one:
            raise UsageError(f"-o {out}: is a file, and there are {inputs.total} recordings: give a folder.")
        protect([out], inputs.sources)
        return Outputs(inputs.items, {item.name: out for item in inputs.items})
    if out.is_file():
        raise UsageError(f"-o {out}: is a file that is no audio; give a folder, or a name that ends in .wav.")
    stems = distinct_stems(inputs)
    check_names(stems.values(), out)
    files = {name: out / f"{stem}.wav" for name, stem in stems.items()}
    protect([*files.values(), out / MANIFEST], inputs.sources)
    todo = [item for item in inputs.items if not (skip_existing and files[item.name].is_file())]
    return Outputs(todo, files, out, skips=skip_existing)


def _is_file(out: Path) -> bool:
    return bool(out.suffix) and not out.is_dir() and out != PIPE
