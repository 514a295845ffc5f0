"""Where the speech comes from that `melcli score --task tts` listens to: a model of ours, a synthesiser, the recordings themselves, or files.

Shapes: T mel frames, M mel bins, S samples.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from melcli.audio.mel import log_mel
from melcli.audio.writer import file_writer
from melcli.data.load import load_utterance
from melcli.data.manifest import fingerprint
from melcli.data.speakable import passages
from melcli.data.texts import by_name, read_texts
from melcli.data.utterance import Utterance
from melcli.data.voices import SCHEME, Delivery, voice
from melcli.errors import AudioError, ManifestError, UsageError
from melcli.score import model_digest
from melcli.scoring.tts.prompts import Wanted

if TYPE_CHECKING:
    from melcli.models.speaker import VoicePrompt
    from melcli.synthesize import Synthesizer

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
    """A voice of flite or another synthesiser, which speaks when it is listened to."""

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


class Model:
    """A model of ours with a vocoder. Its speech is written below the folder of the results."""

    def __init__(self, name: str, synthesizer: Synthesizer, weights: str = "") -> None:
        self.name = name
        self.synthesizer = synthesizer
        made = {"temperature": f"{synthesizer.temperature:g}", "seed": str(synthesizer.seed), "speech weights": weights}
        self.settings = {"speech": name, "vocoder": synthesizer.decisions["vocoder"].partition(":")[0]} | made

    @classmethod
    def load(cls, name: str, **options: Any) -> Model:
        """A model by name, folder or hub id. options: as `Synthesizer.load` takes them. Raises CheckpointError and as that does."""
        from melcli.models.checkpoint import resolve
        from melcli.synthesize import Synthesizer

        weights = model_digest(resolve(name, offline=bool(options.get("offline"))))
        return cls(name, Synthesizer.load(name, **options), weights)

    def audio(self, wanted: Wanted, folder: Path) -> Utterance | None:
        path = folder / f"{quote(wanted.id, safe=' ')}.wav"
        return Utterance(wanted.id, (str(path.absolute()),), wanted.text, speaker=wanted.speaker)

    def speak(self, batch: Sequence[tuple[Wanted, Utterance]]) -> dict[str, Made]:
        from melcli.synthesize import Request

        found: dict[str, Made] = {}
        requests = []
        for wanted, _ in batch:
            try:
                requests.append(Request(wanted.id, wanted.text, self._prompt(wanted.prompt)))
            except (AudioError, UsageError) as error:
                found[wanted.id] = Made(error=str(error))
        began = time.perf_counter()
        spoken = list(self.synthesizer.speak(requests))
        whole = sum(len(one.wave_S) for one in spoken) or 1
        each = (time.perf_counter() - began) / whole  # texts are spoken together: each has its share by its length
        paths = {wanted.id: Path(audio.audio[0]) for wanted, audio in batch}
        for one in spoken:
            if one.error is None:
                with file_writer(paths[one.id], one.rate) as out:
                    out.write(one.wave_S)
            stopped = next((reason for reason in one.reasons if reason != "stop"), "stop")
            found[one.id] = Made(error=one.error) if one.error else Made(each * len(one.wave_S), stopped)
        return found

    def _prompt(self, prompt: Utterance | None) -> VoicePrompt | None:
        if prompt is None:
            return None
        from melcli.models.speaker import VoicePrompt

        spec = self.synthesizer.speaker.spec
        text = " ".join(piece.text for piece in passages(prompt.text or "", self.synthesizer.alphabet) if piece.text)
        return VoicePrompt(log_mel(spec, load_utterance(prompt, spec.rate)), text or None)


def open_voice(name: str, **options: Any) -> Voice:
    """A voice by name: `synth:PROGRAM/VOICE`, `recordings`, or a model of ours by name, folder or hub id.

    options: how a model is loaded, see `Synthesizer.load`. Raises UsageError for a voice that nobody has, CheckpointError for a model.
    """
    if name.startswith(SCHEME):
        return Synthetic(name)
    return Recordings() if name == RECORDINGS else Model.load(name, **options)


def _digest(utterances: list[Utterance]) -> str:
    """16 hex digits that change with the files: their paths, sizes and times."""
    state = hashlib.sha256(fingerprint(utterances).encode())
    for utterance in utterances:
        for part in utterance.audio:
            with suppress(OSError, ValueError):
                about = Path(part).stat()
                state.update(f"{about.st_size} {about.st_mtime_ns}".encode())
    return state.hexdigest()[:16]
