"""`melcli score --task tts`: how well a voice says what it is given, as an independent recogniser hears it and as its recordings measure.

Speech is made, listened to and measured a block at a time; each utterance's row is written when all of it is known, so that a run that was ended goes
on where it was. The rows are those of any other score, with `speech` in them (scoring/tts/measures.py): `--hyp` and `--compare` read them too.

Shapes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from melcli import launch
from melcli.audio.resample import resample
from melcli.data.load import load_utterance
from melcli.data.texts import UNSEEN, by_name, read_texts
from melcli.data.utterance import Utterance
from melcli.data.words_heard import words_by_time
from melcli.errors import AudioError, ManifestError, UsageError
from melcli.inputs import AudioInput
from melcli.score import model_digest
from melcli.score.run import result_folder, transcribe_set
from melcli.score.voices import Made, Spoken, Voice
from melcli.scoring import results
from melcli.scoring.protocol import Protocol
from melcli.scoring.sets import open_sets
from melcli.scoring.tally import Report
from melcli.scoring.tts import prompts
from melcli.scoring.tts.measures import RATE, measure
from melcli.scoring.tts.prompts import Wanted
from melcli.transcripts import Transcript

if TYPE_CHECKING:
    from melcli.models.voiceprint import Voiceprint
    from melcli.scoring.tts.dnsmos import Dnsmos
    from melcli.transcribe import Transcriber

Another = Callable[[Wanted], Utterance | None]
"""Finds another recording of a text."""

BLOCK = 32  # texts spoken, listened to and measured at a time


@dataclass(frozen=True)
class TextSet:
    """What is to be spoken of one source. left_out: (id, reason) of what cannot be under this protocol. without_text: ids."""

    name: str
    wanted: list[Wanted]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    without_text: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ears:
    """Everything that listens. settings: what rows depend on of it."""

    recogniser: Transcriber
    voiceprint: Voiceprint | None = None
    opinion: Dnsmos | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


class Listener:
    """Has a voice speak, listens and measures; with the face of a transcriber, so that rows are kept and gone on with as any other's."""

    def __init__(self, voice: Voice, ears: Ears, wanted: Mapping[str, Wanted], folder: Path) -> None:
        self.voice, self.ears, self.wanted, self.folder = voice, ears, wanted, folder

    def transcribe(self, items: Iterable[AudioInput]) -> Iterator[Transcript]:
        """A transcript of each, with its measures; or why there is none."""
        items = iter(items)
        while block := list(islice(items, BLOCK)):
            made = self.voice.speak([(self.wanted[item.name], item.utterance) for item in block])
            yield from (Transcript(one.name, "", 0.0, "", error=made[one.name].error) for one in block if made[one.name].error)
            for heard in self.ears.recogniser.transcribe([item for item in block if not made[item.name].error]):
                utterance = next(item.utterance for item in block if item.name == heard.name)
                yield heard if heard.error else self._measured(heard, utterance, made[heard.name])

    def _measured(self, heard: Transcript, utterance: Utterance, made: Made) -> Transcript:
        wanted = self.wanted[heard.name]
        try:
            spoken_S = load_utterance(utterance, RATE)
            reference_S = None if wanted.reference is None else load_utterance(wanted.reference, RATE)
            speech = measure(spoken_S, wanted.text, reference_S)
            speech |= self._likeness(spoken_S, wanted)
            if self.ears.opinion is not None:
                speech["mos"] = self.ears.opinion.rate(spoken_S)
        except AudioError as error:
            return replace(heard, error=str(error))
        if made.stopped is not None:
            speech["stopped"] = made.stopped
        if Path(utterance.audio[0]).parent == self.folder.absolute():
            speech["audio"] = f"{self.folder.name}/{Path(utterance.audio[0]).name}"
        return replace(heard, seconds=made.seconds, speech=speech)

    def _likeness(self, spoken_S: Tensor, wanted: Wanted) -> dict[str, float]:
        """Cosines with the prompt and with the original, where there are any and somebody can tell."""
        print_ = self.ears.voiceprint
        if print_ is None:
            return {}
        found = {}
        for key, other in (("sim_prompt", wanted.prompt), ("sim_reference", wanted.original or wanted.reference)):
            if other is not None:
                value = print_.likeness(resample(spoken_S, RATE, print_.rate), load_utterance(other, print_.rate))
                found |= {} if value is None else {key: round(value, 4)}
        return found


def score_tts(
    voices: Sequence[Voice],
    ears: Ears,
    sets: Callable[[Voice], Sequence[TextSet]],
    protocol: Protocol,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    settings: Mapping[str, str] | None = None,
    expected: Callable[[int], None] = lambda count: None,
    heard: Callable[[str], None] = lambda name: None,
    done: Callable[[str, str], None] = lambda voice, name: None,
) -> list[Report]:
    """One report a voice. sets: what it is to speak.

    output: folder of result files and of speech that is made; what is there is gone on with, unless `overwrite`. settings: what else rows depend on.
    expected, heard, done: as in `score`. Raises UsageError, ManifestError; what fails is listed in the report and not counted.
    """
    of_voice = [sets(voice) for voice in voices]
    expected(sum(len(one.wanted) for several in of_voice for one in several) // launch.place()[1])
    reports = []
    with result_folder(output) as folder:
        for voice, several in zip(voices, of_voice, strict=True):
            report = Report(protocol, voice.name)
            made_by = {"model": voice.name, **voice.settings, **ears.settings, **(settings or {})}
            for one in several:
                _score_set(report, voice, ears, one, folder, made_by, overwrite, heard)
                done(voice.name, one.name)
            reports.append(report)
    return reports


def _score_set(
    report: Report,
    voice: Voice,
    ears: Ears,
    texts: TextSet,
    folder: Path,
    made_by: Mapping[str, str],
    overwrite: bool,
    heard: Callable[[str], None],
) -> None:
    file = folder / results.file_name(voice.name, texts.name.replace("/", "-").replace(":", "_"))
    at = file.with_suffix("")
    wanted = {one.id: one for one in texts.wanted}
    places = {name: voice.audio(one, at) for name, one in wanted.items()}
    there = {name: replace(audio, text=wanted[name].text, speaker=wanted[name].speaker) for name, audio in places.items() if audio is not None}
    report.failures += [(name, "no text to speak") for name in texts.without_text]
    report.failures += [(name, f"no speech of it in {voice.name}") for name, audio in places.items() if audio is None]
    if not there:
        raise UsageError(
            f"{voice.name}: has speech of none of the {len(wanted)} texts of {texts.name}; recordings are found by the ids of the texts."
        )
    report.failures += transcribe_set(Listener(voice, ears, wanted, at), there, file, made_by, overwrite=overwrite, heard=heard)
    if launch.is_first():
        rows = {row.audio_filepath: row for row in results.read(file)} if file.exists() else {}
        report.add(texts.name, [rows[name] for name in there if name in rows], folder=folder, utterances=there, about=ears.recogniser.decisions)


def ears_settings(recogniser: Transcriber, similarity: str | None, opinion: str | None) -> dict[str, str]:
    """What rows depend on of those who listen."""
    known = recogniser.decisions
    found = {"recogniser": known["model"], "weights": model_digest(recogniser.folder), "decoding": known.get("decoding", "")}
    return found | {"dtype": known.get("dtype", "").partition(": ")[0], "similarity": similarity or "none", "mos": opinion or "none"}


def own_texts(voice: Voice, reference: Another | None = None, limit: int | None = None) -> TextSet:
    """The texts that recordings bring. Raises UsageError where they bring none."""
    texts = voice.texts()[:limit] if isinstance(voice, Spoken) else []
    if not texts:
        raise UsageError(f"{voice.name}: its recordings have no texts; give those that were spoken with --manifest TEXTS.jsonl.")
    return TextSet("spoken", [_wanted(one.id, one, reference) for one in texts])


def open_texts(sets: Sequence[str], manifests: Sequence[str], *, root: Path | None = None, offline: bool = False) -> dict[str, dict[str, Utterance]]:
    """The texts of score sets and manifests by the names of both; the sentences in the package where none is given.

    Raises ManifestError and RegistryError.
    """
    found = {entry.name: by_name(entry.read(root, offline)) for entry in open_sets(sets)}
    for source in manifests if sets or manifests else [str(UNSEEN)]:
        short = Path(source).name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".txt") if Path(source).exists() else source
        found[source if short in found else short] = by_name(read_texts(source, root=root, offline=offline))
    return found


def read_sets(
    texts: Mapping[str, Mapping[str, Utterance]],
    *,
    kind: str = "none",
    seed: int = 0,
    reference: Another | None = None,
    hear: Callable[[Sequence[Utterance]], list[str]] | None = None,
    limit: int | None = None,
) -> list[TextSet]:
    """What is to be spoken of texts, with what it is compared with and the prompts that a protocol gives.

    kind: one of prompts.PROTOCOLS. reference: another recording to compare with than the texts' own. hear: what is said in recordings, needed for
    `continuation` where words have no times. limit: the first N texts of each source; prompts come from all of them.
    Raises UsageError where there is no prompt for any, ManifestError where there is no text.
    """
    found = []
    for name, utterances in texts.items():
        first = dict(islice(utterances.items(), limit))
        empty = [key for key, one in first.items() if not (one.text or "").strip()]
        wanted = {key: _wanted(key, one, reference) for key, one in first.items() if key not in empty}
        if not wanted:
            raise ManifestError(f"{name}: none of its {len(first)} rows has a text to speak.")
        left_out: list[tuple[str, str]] = []
        if kind == "cross-sentence":
            wanted, left_out = _cross(wanted, utterances, seed)
        elif kind == "continuation":
            wanted, left_out = _continued(wanted, utterances, hear)
        if not wanted:
            raise UsageError(f"--prompts {kind}: {name}: {left_out[0][1]}, nor for any other of its texts.")
        found.append(TextSet(name, list(wanted.values()), left_out, empty))
    return found


def _wanted(name: str, utterance: Utterance, reference: Another | None) -> Wanted:
    wanted = Wanted(name, utterance.text or "", utterance.speaker)
    own = utterance if utterance.audio else None
    return replace(wanted, reference=own if reference is None else reference(wanted))


def _cross(wanted: Mapping[str, Wanted], utterances: Mapping[str, Utterance], seed: int) -> tuple[dict[str, Wanted], list[tuple[str, str]]]:
    """Each text with another recording of its speaker."""
    others = prompts.other_recordings(utterances, seed)
    lacking = [(name, "no other recording of this speaker of 2 to 20 s") for name in wanted if others[name] is None]
    return {name: replace(one, prompt=others[name]) for name, one in wanted.items() if others[name] is not None}, lacking


def _continued(
    wanted: Mapping[str, Wanted], utterances: Mapping[str, Utterance], hear: Callable[[Sequence[Utterance]], list[str]] | None
) -> tuple[dict[str, Wanted], list[tuple[str, str]]]:
    """Each text without what is said in the first seconds of its recording, which become the prompt."""
    places: dict[str, float] = {}
    left_out = []
    for name in wanted:
        one = utterances[name]
        whole = len(one.audio) == 1 and not one.audio[0].startswith("synth:")
        try:
            at = prompts.cut_place(load_utterance(one, RATE), RATE) if whole else None
        except AudioError as error:
            left_out.append((name, str(error)))
            continue
        if at is None:
            left_out.append((name, f"no recording of at least {prompts.PROMPT_SECONDS + prompts.SEARCH_SECONDS + prompts.REST_SECONDS:g} s"))
        else:
            places[name] = at
    counts = {name: words_by_time(utterances[name], at) for name, at in places.items()}
    unknown = [name for name, count in counts.items() if count is None]
    if unknown and hear is not None:
        heard = hear([prompts.halves(utterances[name], places[name], 0)[0] for name in unknown])
        counts |= {name: prompts.words_before(utterances[name].text or "", text) for name, text in zip(unknown, heard, strict=True)}
    found = {}
    for name, at in places.items():
        prompt, rest = prompts.halves(utterances[name], at, counts[name] or 0)
        if not counts[name] or not rest.text:
            left_out.append((name, "no words in its first seconds, or none after them"))
            continue
        found[name] = replace(wanted[name], text=rest.text, prompt=prompt, reference=rest, original=utterances[name])
    return found, left_out


def listening(recogniser: Transcriber) -> Callable[[Sequence[Utterance]], list[str]]:
    """What a recogniser hears in recordings, in their order; nothing in those that cannot be read."""

    def hear(utterances: Sequence[Utterance]) -> list[str]:
        heard: dict[str, Any] = {one.name: one.text for one in recogniser.transcribe([AudioInput(str(i), u) for i, u in enumerate(utterances)])}
        return [heard[str(i)] for i in range(len(utterances))]

    return hear
