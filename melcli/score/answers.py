"""`melcli score --task answer`: how many spoken questions a model answers rightly, and how well it heard them.

A row's `text` is the question and `pred_text` what the model took it for, so that its word error rate is that of any score; `reply` holds `answer`,
`accepted` (the right ones), `reason` (why the text ended), and `heard_answer`, what a recogniser heard in the spoken answer, where one listened.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from melcli.data.load import load_utterance
from melcli.data.questions import read_questions
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ManifestError, UsageError
from melcli.inputs import AudioInput
from melcli.reply import Replied, Responder
from melcli.score.replies import Interview, Judge, Material, Replies
from melcli.score.run import named
from melcli.score.voices import Voice
from melcli.scoring.answers import accepted
from melcli.scoring.sets import ScoreSet, open_sets
from melcli.scoring.tts.prompts import Wanted
from melcli.transcripts import Transcript

if TYPE_CHECKING:
    from torch import Tensor

    from melcli.models.replier import Replier
    from melcli.transcribe import Transcriber


def read_sets(names: Sequence[str], *, root: Path | None = None, offline: bool = False, limit: int | None = None) -> list[Material]:
    """The questions of score sets and manifests, each with its accepted answers.

    Raises ManifestError where no question of a source has an answer; one that has none, or no text, is listed among the failures.
    """
    return [_material(entry, named(_read(entry, root, offline)), limit) for entry in open_sets(names)]


def _read(entry: ScoreSet, root: Path | None, offline: bool) -> list[Utterance]:
    return read_questions(entry.source, root=root, offline=offline) if Path(entry.source).exists() else entry.read(root, offline)


def _material(entry: ScoreSet, utterances: dict[str, Utterance], limit: int | None) -> Material:
    first = dict(islice(utterances.items(), limit))
    kept, failed = {}, []
    for name, one in first.items():
        if not accepted(one.extra, f"{entry.source}: {one.id}"):
            failed.append((name, "no 'answer' (or 'answers') to judge by"))
        elif not (one.text or "").strip():
            failed.append((name, "no 'question' (or 'text')"))
        else:
            kept[name] = one
    if not kept:
        raise ManifestError(f"{entry.source}: none of its {len(first)} rows has a question and an 'answer' (or 'answers') to judge by.")
    return Material(entry.name, entry.label, kept, failed=failed, whole=frozenset(utterances))


class Asker:
    """Has a voice ask questions before somebody replies to them. rate: of the replies."""

    def __init__(self, replies: Replies, voice: Voice) -> None:
        self._replies, self._voice = replies, voice

    @property
    def rate(self) -> int:
        return self._replies.rate

    def replies(self, items: Iterable[AudioInput]) -> Iterator[Replied]:
        """Replies in order; a question that the voice cannot say comes with its error."""
        items = list(items)
        made = self._voice.speak([(Wanted(item.name, item.utterance.text or ""), item.utterance) for item in items])
        fit = [item for item in items if not made[item.name].error]
        found = {one.name: one for one in self._replies.replies(fit)} if fit else {}
        yield from (found[item.name] if item.name in found else Replied(item.name, 0.0, error=made[item.name].error) for item in items)


class Writer:
    """Puts questions in writing to a model, beside their recordings or alone. It says nothing aloud."""

    rate = 16000

    def __init__(self, replier: Replier, beside: bool) -> None:
        self._replier, self._beside = replier, beside

    def replies(self, items: Iterable[AudioInput]) -> Iterator[Replied]:
        """Replies in order; a recording that cannot be used comes with its error. What was heard is what was written."""
        from melcli.models.written_questions import answer_written

        found: dict[str, Replied] = {}
        waves: dict[str, Tensor] = {}
        asked = {item.name: item.utterance for item in items}
        for name, utterance in asked.items() if self._beside else ():
            try:
                waves[name] = load_utterance(utterance, self._replier.spec.rate)
            except AudioError as error:
                found[name] = Replied(name, 0.0, error=str(error))
        fit = [name for name in asked if name not in found]
        began = time.perf_counter()
        heard = [waves[name] for name in fit] if self._beside else None
        model, processor = self._replier.model, self._replier.processor
        answers = answer_written(model, processor, [asked[name].text or "" for name in fit], heard) if fit else []
        each = (time.perf_counter() - began) / max(1, len(fit))
        for name, (answer, reason) in zip(fit, answers, strict=True):
            seconds = len(waves[name]) / self._replier.spec.rate if name in waves else 0.0
            found[name] = Replied(name, seconds, asked[name].text or "", answer, reason, took=each)
        yield from (found[name] for name in asked)


def open_writer(name: str, *, beside: bool, device: str = "auto", dtype: str = "auto", offline: bool = False) -> tuple[Writer, dict[str, str]]:
    """A model that answers, to be asked in writing, and what was decided for it. Raises CheckpointError and UsageError as `Responder.load` does."""
    responder = Responder.load(name, "answer", speak=False, device=device, dtype=dtype, offline=offline)
    return Writer(responder.replier, beside), responder.decisions


def asked_by(material: Material, voice: Voice, folder: Path) -> Material:
    """The questions as a voice asks them; those of which it has no recording are listed among the failures. folder: where it may keep recordings."""
    found, failed = {}, list(material.failed)
    for name, one in material.utterances.items():
        key = Path(one.id).name or one.id
        spoken = voice.audio(Wanted(key, one.text or ""), folder)
        if spoken is None:
            failed.append((name, f"no recording of it in {voice.name}"))
        else:
            found[name] = replace(spoken, text=one.text, extra=one.extra)
    if not found:
        raise UsageError(f"{voice.name}: has none of the {len(material.utterances)} questions of {material.name}; recordings are found by their ids.")
    return replace(material, utterances=found, failed=failed)


def check_recordings(material: Material) -> None:
    """Raises UsageError where no question has a recording; one that has none will fail by itself."""
    if not any(one.audio for one in material.utterances.values()):
        raise UsageError(
            f"{material.name}: its questions are written, not spoken: have a voice ask them (--voice synth:flite/slt), give recordings called by "
            "their ids (--spoken FOLDER), or ask in writing (--written alone)."
        )


def judge(material: Material, written: str | None = None) -> Judge:
    """Makes rows of answers to these questions; see the top of the file. written: how they were given in writing, where they were."""
    right: Mapping[str, Utterance] = material.utterances

    def row(item: AudioInput, one: Replied, listened: str | None) -> Transcript:
        extra = right[item.name].extra
        reply = {"answer": one.said, "accepted": accepted(extra, item.name), "reason": one.reason}
        reply |= {} if listened is None else {"heard_answer": listened, "stopped": one.stopped}
        reply |= {} if written is None else {"written": written}
        return Transcript(item.name, item.utterance.audio[0] if item.utterance.audio else "", one.seconds, one.heard, seconds=one.took, reply=reply)

    return row


def interview(
    replies: Replies, material: Material, listener: Transcriber | None, folder: Path, voice: Voice | None, written: str | None = None
) -> tuple[Material, Interview]:
    """The questions of a source, asked by its recordings or by a voice, whose own are kept in a folder of the folder."""
    if voice is None:
        return material, Interview(replies, judge(material, written), listener, folder, material.utterances)
    asked = asked_by(material, voice, folder / "questions")
    return asked, Interview(Asker(replies, voice), judge(asked, written), listener, folder, asked.utterances)
