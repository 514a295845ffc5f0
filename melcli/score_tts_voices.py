"""Where the speech comes from that `melcli score --task tts` listens to: a model of ours, a synthesiser, the recordings themselves, or files.

Shapes: T mel frames, M mel bins, S samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from melcli.data.manifest import fingerprint
from melcli.data.texts import by_name, read_texts
from melcli.data.utterance import Utterance
from melcli.data.voices import SCHEME, Delivery, voice
from melcli.errors import AudioError, ManifestError, UsageError
from melcli.scoring.tts.prompts import Wanted

RECORDINGS = "recordings"


@dataclass(frozen=True, slots=True)
class Made:
    """How speaking one text went. seconds: it took; stopped: why the voice stopped; error: why there is no speech."""

    seconds: float | None = None
    stopped: str | None = None
    error: str | None = None


class Voice(Protocol):
    """name: in tables and file names. settings: all that its speech depends on."""

    name: str
    settings: Mapping[str, str]

    def audio(self, wanted: Wanted, folder: Path) -> Utterance | None:
        """Where the speech of a text is, or will be once `speak` has made it below a folder; None where there is none."""
        ...

    def speak(self, batch: Sequence[tuple[Wanted, Utterance]]) -> dict[str, Made]:
        """Make the speech of some texts, each at its place; what there is to say of each, by id."""
        ...


@dataclass
class Spoken:
    """Speech that is there already: a folder of audio or a manifest, its files called by the ids of the texts."""

    name: str
    found: dict[str, Utterance]
    settings: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.settings = {"speech": f"{len(self.found)} recordings, {_digest(list(self.found.values()))}"}

    @classmethod
    def load(cls, source: str, root: Path | None = None, offline: bool = False) -> Spoken:
        """The recordings of a source. Raises ManifestError where it holds none."""
        found = {name: utterance for name, utterance in by_name(read_texts(source, root=root, offline=offline)).items() if utterance.audio}
        if not found:
            raise ManifestError(f"--spoken {source}: holds no recordings.")
        return cls(Path(source).name.partition(".")[0] or source, found)

    def texts(self) -> list[Utterance]:
        """The texts that stand beside the recordings."""
        return [Utterance(name, (), one.text, speaker=one.speaker) for name, one in self.found.items() if one.text is not None]

    def audio(self, wanted: Wanted, folder: Path) -> Utterance | None:
        return self.found.get(wanted.id)

    def speak(self, batch: Sequence[tuple[Wanted, Utterance]]) -> dict[str, Made]:
        return {wanted.id: Made() for wanted, _ in batch}


class Synthetic:
    """A voice of flite, espeak-ng or festival, which speaks when it is listened to."""

    def __init__(self, address: str) -> None:
        """address: `synth:flite/rms`. Raises UsageError for a voice that nobody has."""
        try:
            self.delivery = Delivery(voice(address.removeprefix(SCHEME)).name)
        except AudioError as error:
            raise UsageError(str(error)) from None
        self.name = self.delivery.voice
        self.settings = {"speech": f"{SCHEME}{self.name}"}

    def audio(self, wanted: Wanted, folder: Path) -> Utterance | None:
        return Utterance(wanted.id, (self.delivery.address(wanted.text),), wanted.text)

    def speak(self, batch: Sequence[tuple[Wanted, Utterance]]) -> dict[str, Made]:
        return {wanted.id: Made() for wanted, _ in batch}


class Recordings:
    """The reference recordings themselves, scored as if a voice had spoken them: what the best voice could reach."""

    name = RECORDINGS
    settings: Mapping[str, str] = {"speech": "the reference recordings"}

    def audio(self, wanted: Wanted, folder: Path) -> Utterance | None:
        return wanted.reference

    def speak(self, batch: Sequence[tuple[Wanted, Utterance]]) -> dict[str, Made]:
        return {wanted.id: Made() for wanted, _ in batch}


def place(wanted: Wanted, folder: Path) -> Utterance:
    """Where a voice that makes speech puts it."""
    return Utterance(wanted.id, (str((folder / f"{quote(wanted.id, safe=' ')}.wav").absolute()),), wanted.text, speaker=wanted.speaker)


def open_voice(name: str, **options: object) -> Voice:
    """A voice by name: `synth:PROGRAM/VOICE`, `recordings`, or a model of ours by name, folder or hub id. Raises UsageError and as they do."""
    if name.startswith(SCHEME):
        return Synthetic(name)
    if name == RECORDINGS:
        return Recordings()
    raise UsageError(f"--model {name}: no voice; valid are synth:PROGRAM/VOICE such as synth:flite/slt, and {RECORDINGS}.")


def _digest(utterances: list[Utterance]) -> str:
    """16 hex digits that change with the files: their paths, sizes and times."""
    state = hashlib.sha256(fingerprint(utterances).encode())
    for utterance in utterances:
        for part in utterance.audio:
            with suppress(OSError, ValueError):
                about = Path(part).stat()
                state.update(f"{about.st_size} {about.st_mtime_ns}".encode())
    return state.hexdigest()[:16]
