"""`melcli score --task continue`: how a model says on what recordings begin, as a recogniser, a language model and a speaker model judge it, and how
near its voice is to that of the prompt (audio/timbre.py).

The fields of its rows are in scoring/continuation.py.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from melcli.audio import timbre
from melcli.audio.resample import resample
from melcli.data.load import load_utterance
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ManifestError
from melcli.inputs import AudioInput
from melcli.reply import Replied
from melcli.score.replies import Interview, Material
from melcli.score.run import named
from melcli.scoring.sets import open_sets
from melcli.transcripts import Transcript

if TYPE_CHECKING:
    from melcli.models.voiceprint import Voiceprint
    from melcli.reply import Responder
    from melcli.transcribe import Transcriber

PROMPT_SECONDS = 3.0
"""Of a recording that are heard: the published protocol (Spectron, arXiv 2305.15255), and what models here are trained with unless told otherwise."""
REST_SECONDS = 1.0
"""Of a recording behind the prompt, at the least: what the person really said on, to compare with."""
RATE = 16000  # of recordings as they are listened to


def read_sets(names: Sequence[str], *, root: Path | None = None, offline: bool = False, limit: int | None = None) -> list[Material]:
    """Recordings of at least PROMPT_SECONDS and REST_SECONDS, their first N of each source; texts are not needed.

    Raises ManifestError where a source has none.
    """
    found = []
    for entry in open_sets(names):
        every = named(entry.read(root, offline))
        short = [name for name, one in every.items() if one.duration is not None and one.duration < PROMPT_SECONDS + REST_SECONDS]
        fit = {name: one for name, one in every.items() if name not in set(short)}
        if not fit:
            raise ManifestError(f"{entry.source}: none of its {len(every)} recordings lasts {PROMPT_SECONDS + REST_SECONDS:g} s or longer.")
        left_out = [(name, f"shorter than {PROMPT_SECONDS + REST_SECONDS:g} s") for name in short]
        kept = {name: replace(one, text=one.text or "") for name, one in islice(fit.items(), limit)}
        found.append(Material(entry.name, entry.label, kept, left_out=left_out, whole=frozenset(fit), beside=fit))
    return found


class RecordedOn:
    """What the people in the recordings really said on: the row that models are to be compared with. It writes nothing."""

    rate = RATE
    prompt_seconds = PROMPT_SECONDS

    def replies(self, items: Iterable[AudioInput]) -> Iterator[Replied]:
        """The recordings without their prompts."""
        for item in items:
            try:
                wave_S = load_utterance(item.utterance, RATE)
            except AudioError as error:
                yield Replied(item.name, 0.0, error=str(error))
                continue
            rest_S = wave_S[round(PROMPT_SECONDS * RATE) :]
            yield Replied(item.name, PROMPT_SECONDS, reason="eos", wave_S=rest_S, stopped="stop")


def interview(replies: Responder | RecordedOn, material: Material, listener: Transcriber, voiceprint: Voiceprint | None, folder: Path) -> Interview:
    """Continuations of recordings, listened to and compared with their prompts, and with that of another speaker."""
    prompts = Prompts(material.beside or material.utterances, replies.prompt_seconds)

    def row(item: AudioInput, one: Replied, listened: str | None) -> Transcript:
        wave_S = one.wave_S
        reply: dict[str, Any] = {"heard": one.heard, "reason": one.reason, "stopped": one.stopped}
        reply["seconds"] = 0.0 if wave_S is None else round(len(wave_S) / replies.rate, 3)
        try:
            if wave_S is not None and voiceprint is not None:
                likeness = _likeness(item.utterance, wave_S, replies.rate, replies.prompt_seconds, voiceprint)
                reply |= {} if likeness is None else {"sim_prompt": round(likeness, 4)}
            if wave_S is not None:
                reply |= prompts.compared(item.name, timbre.timbre(wave_S, replies.rate))
        except AudioError as error:
            return Transcript(item.name, "", 0.0, "", error=str(error))
        timed = one.took if one.took else None
        text = listened or ""
        return Transcript(item.name, item.utterance.audio[0], reply["seconds"], text, seconds=timed, reply=reply, reference=one.said)

    return Interview(replies, row, listener, folder, material.utterances)


class Prompts:
    """The first seconds of recordings as voices: each is measured once, when it is wanted."""

    def __init__(self, utterances: Mapping[str, Utterance], seconds: float) -> None:
        self._utterances, self._seconds = utterances, seconds
        self._measured: dict[str, timbre.Timbre] = {}

    def compared(self, name: str, said: timbre.Timbre) -> dict[str, Any]:
        """What a row says of speech that goes on from a recording: its own numbers, the prompt's, and how far it is from that and from another
        speaker's. Raises AudioError."""
        found: dict[str, Any] = {"voice": said.as_dict(), "prompt_voice": self._of(name).as_dict()}
        for suffix, other in (("", name), ("_other", self.other(name))):
            if other is not None:
                pitch, ltas = timbre.semitones(said, self._of(other)), timbre.ltas_distance(said, self._of(other))
                found[f"semitones{suffix}"] = None if pitch is None else round(pitch, 2)
                found[f"ltas{suffix}"] = None if ltas is None else round(ltas, 2)
        return found

    def other(self, name: str) -> str | None:
        """The next recording, around the end, of which another speaker is known; None where there is none."""
        names = list(self._utterances)
        own, at = self._utterances[name].speaker, names.index(name)
        if own is None:
            return None
        return next((one for one in names[at + 1 :] + names[:at] if self._utterances[one].speaker not in (None, own)), None)

    def _of(self, name: str) -> timbre.Timbre:
        if name not in self._measured:
            wave_S = load_utterance(self._utterances[name], timbre.RATE)[: round(self._seconds * timbre.RATE)]
            self._measured[name] = timbre.timbre(wave_S, timbre.RATE)
        return self._measured[name]


def _likeness(prompt: Utterance, wave_S: Tensor, rate: int, prompt_seconds: float, voiceprint: Voiceprint) -> float | None:
    prompt_S = load_utterance(prompt, voiceprint.rate)[: round(prompt_seconds * voiceprint.rate)]
    return voiceprint.likeness(resample(wave_S, rate, voiceprint.rate), prompt_S)
