"""What the user named becomes a list of inputs: files, folders, globs, manifests and audio on stdin.

An input that cannot be opened is a failure with a one-line reason; the others go on.
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Self

from melcli.data.folders import AUDIO_SUFFIXES, is_audio, walk
from melcli.data.rows import ADDRESSES
from melcli.data.utterance import MICROPHONE, Utterance
from melcli.errors import MelcliError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST_SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


@dataclass(frozen=True, slots=True)
class AudioInput:
    """One thing to transcribe. name: what the user calls it, and no other input of the run.

    blocks: gives its samples at a rate, wave_S by wave_S, where they are not those of the utterance's files.
    """

    name: str
    utterance: Utterance
    blocks: Callable[[int], Iterator[Tensor]] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """shown: the path in JSON. stems: where the output of an input may go below the output folder, without suffix, the nicest first."""

    shown: str
    stems: tuple[str, ...]


@dataclass
class Inputs:
    """What there is to transcribe, in order, and what could not be opened: (name, reason). Close it (`with`): stdin is kept in a temporary file."""

    items: list[AudioInput] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)
    _temporary: list[IO[bytes]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many inputs were named, those included that could not be opened."""
        return len(self.items) + len(self.failures)

    def add(self, name: str, utterance: Utterance, shown: str, stems: Sequence[str]) -> None:
        """Add an input; a name that is taken gets a number."""
        unique, number = name, 2
        while unique in self.places:
            unique, number = f"{name}#{number}", number + 1
        self.items.append(AudioInput(unique, utterance))
        self.places[unique] = Place(shown, tuple(stems))

    def reason(self, name: str, error: str) -> str:
        """An error without the path it repeats, and without the name of the temporary file that stands for stdin."""
        for item in self.items:
            if item.name == name:
                shown = self.places[name].shown
                for path in item.utterance.audio:
                    # of a row of a manifest the path says more than its id
                    error = (error.removeprefix(f"{path}: ") if shown == name else error).replace(path, shown)
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._temporary:
            file.close()


def open_inputs(paths: Sequence[str], *, recursive: bool = False, stdin: IO[bytes] | None = None) -> Inputs:
    """Files, folders (with `recursive` to the bottom), globs, JSONL manifests `-` (audio on stdin) and `mic` (the microphone) as inputs, each file
    once."""
    inputs = Inputs()
    seen: set[Path] = set()
    for given in paths:
        try:
            if given == "-":
                _add_stdin(inputs, stdin)
            elif given == "mic" and not os.path.lexists(given):
                inputs.add("mic", Utterance(id="mic", audio=(MICROPHONE,)), "mic", ("mic",))
            elif os.path.isdir(given):
                _add_folder(inputs, given, recursive, seen)
            elif glob.has_magic(given) and not os.path.lexists(given):
                matches = sorted(p for p in glob.glob(given, recursive=True) if os.path.isdir(p) or is_audio(p) or p.endswith(MANIFEST_SUFFIXES))
                if not matches:
                    raise UsageError("the pattern matches no audio file, folder or manifest.")
                for match in matches:
                    if os.path.isdir(match):
                        if recursive:
                            _add_folder(inputs, match, recursive, seen, may_be_empty=True)
                    else:
                        _add_file(inputs, match, seen)
            else:
                _add_file(inputs, given, seen)
        except (MelcliError, OSError) as error:
            inputs.failures.append((given, error.strerror or str(error) if isinstance(error, OSError) else str(error)))
    return inputs


def _add_file(inputs: Inputs, given: str, seen: set[Path]) -> None:
    path = Path(given)
    if not path.exists():
        raise UsageError("no such file or folder.")
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    inputs.sources.append(path.resolve())
    if given.endswith(MANIFEST_SUFFIXES):
        return _add_manifest(inputs, path)
    stem = path.stem if is_audio(path.name) else path.name
    inputs.add(given, _whole_file(path), given, (stem, path.name, f"{path.resolve().parent.name}/{path.name}"))


def _add_manifest(inputs: Inputs, path: Path) -> None:
    from melcli.data.manifest import read_source

    for utterance in read_source(str(path)):
        stem = inside(utterance.id)
        inputs.sources.extend(Path(part) for part in utterance.audio if not part.startswith(ADDRESSES))
        inputs.add(utterance.id, utterance, " + ".join(utterance.audio), (stem, f"{path.name.split('.')[0]}/{stem}"))


def _add_folder(inputs: Inputs, given: str, recursive: bool, seen: set[Path], may_be_empty: bool = False) -> None:
    folder = Path(given)
    if (folder / "wav.scp").is_file():  # a Kaldi folder is a manifest
        return _add_manifest(inputs, folder)
    os.listdir(folder)  # a folder that cannot be read says so; os.walk would call it empty
    files = walk(folder) if recursive else sorted(child.name for child in folder.iterdir() if child.is_file() and not child.name.startswith("."))
    found = [name for name in files if is_audio(name)]
    if not found and not may_be_empty:
        deeper = "" if recursive or not any(child.is_dir() for child in folder.iterdir()) else " itself; -r looks into its folders too"
        raise UsageError(f"no audio in this folder{deeper} (looked for {', '.join(AUDIO_SUFFIXES[:6])} and more).")
    for name in found:
        path = folder / name
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        inputs.sources.append(path.resolve())
        inputs.add(str(path), _whole_file(path), str(path), (os.path.splitext(name)[0], name, f"{folder.resolve().name}/{name}"))


def _add_stdin(inputs: Inputs, stdin: IO[bytes] | None) -> None:
    stream = sys.stdin.buffer if stdin is None else stdin
    if stream.isatty():
        raise UsageError("'-' reads audio from standard input, which is a terminal: pipe a file into it.")
    kept = tempfile.NamedTemporaryFile(prefix="melcli-stdin-")  # decoders seek, pipes cannot
    shutil.copyfileobj(stream, kept)
    kept.flush()
    inputs._temporary.append(kept)
    if kept.tell() == 0:
        raise UsageError("standard input is empty.")
    inputs.add("-", Utterance(id="-", audio=(kept.name,)), "-", ("stdin",))


def _whole_file(path: Path) -> Utterance:
    return Utterance(id=str(path), audio=(os.path.abspath(path),))


def inside(name: str) -> str:
    """An utterance's id as a relative path that stays inside the output folder."""
    return "/".join(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "//", "..", ".")) or "utterance"
