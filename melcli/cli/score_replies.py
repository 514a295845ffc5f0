"""`melcli score --task answer` and `--task continue` on the command line: their options, and what they print. torch is imported inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from melcli import console
from melcli.cli import score_aloud
from melcli.cli.score_aloud import RECOGNISER, show
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.score.replies import Scored
    from melcli.transcribe import Transcriber

Voice = Annotated[
    str | None,
    typer.Option(metavar="VOICE", help="answer: who asks, instead of the recordings: synth:PROGRAM/VOICE, or a model of ours."),
]
Written = Annotated[
    Literal["alone", "beside"] | None,
    typer.Option(help="answer: give the question in writing: alone (no audio is opened), or beside its recording. What better hearing could reach."),
]
LanguageModel = Annotated[
    str | None, typer.Option("--lm", metavar="MODEL", help="continue: how likely this language model of transformers finds what is said.")
]

ANSWERS = ("accuracy %", "95 %", "exact %", "95 %", "spoken %", "95 %", "question WER %", "95 %", "questions", "audio s", "RTFx")
CONTINUATIONS = ("log-ppl", "95 %", "per word", "SIM prompt", "95 %", "WER %", "95 %", "seconds", "silent", "loops", "recordings", "audio s", "RTFx")
VOICES = (
    *("F0 Hz", "prompt's", "from it, st", "95 %", "from another's", "95 %", "LTAS from it, dB", "95 %", "from another's", "95 %"),
    *("voiced %", "prompt's", "silence %", "prompt's", "level dB", "prompt's"),
)


def task_of(asked: str | None, sets: Sequence[str]) -> str:
    """The task of a score: the one that was asked for, or else that of the sets. Raises UsageError where these are of several."""
    if asked is not None:
        return asked
    from melcli.scoring.sets import SETS, ScoreSet

    tasks = {name: known.task if isinstance(known := SETS.get(name), ScoreSet) else "asr" for name in sets}
    if len(set(tasks.values())) > 1:
        other = next(name for name, task in tasks.items() if task != "asr")
        raise UsageError(f"--set {other}: is scored by its answers, other sets by their words: score it by itself, or give --task asr.")
    return next(iter(tasks.values()), "asr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(score_aloud.Asked):
    """What was asked for; None where an option was not given."""

    task: str
    sources: Sequence[str]
    voice: str | None
    written: str | None
    lm: str | None


def run(asked: Asked, load: Callable[[str], Transcriber]) -> tuple[list[tuple[str, str]], int]:
    """Score, print, and return (failures, how many were to be scored). load: a recogniser, by name."""
    from melcli import launch
    from melcli.score.replies import from_files

    protocol, why = asked.rules(f"--task {asked.task}")
    nats = None
    if asked.lm is not None:
        from melcli.models.perplexity import LanguageModel

        nats, about = LanguageModel.load(asked.lm, device=asked.device, offline=asked.offline)
        console.decided({"lm": about})
    if asked.hypotheses:
        if asked.models or asked.spoken or asked.sources or asked.output or asked.overwrite or asked.voice or asked.written or asked.similarity:
            raise UsageError("--hyp scores rows that exist; leave out --model, --set, --manifest, --out, --overwrite and what is about replying.")
        console.decided({"protocol": why})
        scored = from_files(asked.hypotheses, protocol, asked.limit)
    else:
        if not asked.sources:
            raise UsageError(f"--task {asked.task} needs {'--set llama-questions, say, or ' if asked.task == 'answer' else ''}--manifest SOURCE.")
        if not asked.models:
            raise UsageError(f"--task {asked.task} needs --model MODEL, one that was trained for it.")
        with console.progress("score", None) as bar:
            one_task = _score_answers if asked.task == "answer" else _score_continuations
            scored = one_task(asked, load, protocol, why, bar)
    if not launch.is_first():
        return [], 0
    _show(scored, asked, nats)
    failed = [failure for one in scored for failure in one.report.failures]
    return failed, len(failed) + sum(len(rows) for one in scored for rows in one.rows.values())


def _score_answers(asked: Asked, load: Callable[[str], Transcriber], protocol: Any, why: str, bar: console.Progress) -> list[Scored]:
    from melcli.reply import Responder
    from melcli.score.answers import check_recordings, interview, open_writer, read_sets
    from melcli.score.replies import score_replies
    from melcli.score.voices import Spoken, open_voice

    if sum(map(bool, (asked.voice, asked.spoken, asked.written == "alone"))) > 1 or len(asked.spoken) > 1:
        raise UsageError("--voice, --spoken and --written alone: give one of them, once; each says who asks.")
    if asked.written and asked.recogniser:
        raise UsageError("--written asks what the model knows, and its text is judged: leave out --recogniser.")
    material = read_sets(asked.sources, **asked.where, limit=asked.limit)
    voice = None
    if asked.voice or asked.spoken:
        voice = Spoken.load(asked.spoken[0], **asked.where) if asked.spoken else open_voice(asked.voice, **asked.voicing, **asked.machine)
    elif asked.written != "alone":
        for one in material:
            check_recordings(one)
    listener = None if asked.recogniser is None else load(asked.recogniser)
    bar.expect(sum(len(one.utterances) for one in material) * len(asked.models))
    questions = f"in writing, {asked.written}" if asked.written else "their recordings" if voice is None else f"asked by {voice.name}"
    scored = []
    for model in asked.models:
        if asked.written:
            source, decisions = open_writer(model, beside=asked.written == "beside", **asked.machine)
        else:
            source = Responder.load(model, "answer", speak=listener is not None, **asked.voicing, **asked.machine)
            decisions = source.decisions
        decisions = decisions | {"protocol": why, "questions": questions}
        console.decided(decisions, title=model if len(asked.models) > 1 else "")
        settings = _settings(asked, model, decisions, listener) | ({} if voice is None else dict(voice.settings))
        scored.append(
            score_replies(
                model,
                protocol,
                material,
                lambda one, folder, source=source: interview(source, one, listener, folder, voice, asked.written),
                settings=settings,
                output=asked.output or asked.report,
                overwrite=asked.overwrite,
                heard=lambda name: bar.advance(1, name),
                about=decisions,
            )
        )
    return scored


def _score_continuations(asked: Asked, load: Callable[[str], Transcriber], protocol: Any, why: str, bar: console.Progress) -> list[Scored]:
    from melcli.reply import Responder
    from melcli.score.continuation import RecordedOn, interview, read_sets
    from melcli.score.replies import score_replies
    from melcli.score.voices import RECORDINGS

    material = read_sets(asked.sources, **asked.where, limit=asked.limit)
    for one in material:
        if one.left_out:
            console.note(f"{one.name}: {len(one.left_out)} of {len(one.whole) + len(one.left_out)} left out: {one.left_out[0][1]}")
    listener = load(asked.recogniser or RECOGNISER)
    voiceprint, likeness = asked.voiceprint()
    bar.expect(sum(len(one.utterances) for one in material) * len(asked.models))
    scored = []
    for model in asked.models:
        people = model == RECORDINGS
        source = RecordedOn() if people else Responder.load(model, "continue", speak=True, **asked.voicing, **asked.machine)
        decisions = {"protocol": why, **likeness} | ({"speech": "the recordings themselves"} if people else source.decisions)
        console.decided(decisions, title=model if len(asked.models) > 1 else "")
        scored.append(
            score_replies(
                model,
                protocol,
                material,
                lambda one, folder, source=source: (one, interview(source, one, listener, voiceprint, folder)),
                settings=_settings(asked, model, decisions, listener) | {"similarity": asked.similarity or "none"},
                output=asked.output or asked.report,
                overwrite=asked.overwrite,
                made=True,
                heard=lambda name: bar.advance(1, name),
                about=decisions,
            )
        )
    return scored


def _settings(asked: Asked, model: str, decisions: dict[str, str], listener: Transcriber | None) -> dict[str, str]:
    """All that the rows of a model depend on."""
    from melcli.models.checkpoint import resolve
    from melcli.score import model_digest
    from melcli.score.tts import ears_settings
    from melcli.score.voices import RECORDINGS

    found = {"model": model, "task": asked.task} | {key: value.partition(": ")[0] for key, value in decisions.items() if key in ("device", "dtype")}
    found |= {key: decisions[key] for key in ("questions", "prompt") if key in decisions}
    if model != RECORDINGS:
        found["weights"] = model_digest(resolve(model, offline=asked.offline))
    if listener is None:
        return found
    known = ears_settings(listener, None, None)
    found |= {"recogniser": known["recogniser"], "recogniser weights": known["weights"], "decoding": known["decoding"]}
    voicing = asked.voicing | {"vocoder": decisions.get("vocoder", "none").partition(":")[0]}
    return found | ({} if model == RECORDINGS else {key: str(value) for key, value in voicing.items()})


def _show(scored: Sequence[Scored], asked: Asked, lm: Any) -> None:
    objects = [_as_dict(one, asked.task, lm) for one in scored]
    head = ("model", "set", *(ANSWERS if asked.task == "answer" else CONTINUATIONS))
    rows = [row for one in objects for row in _rows(one, asked.task)]
    show(asked, asked.task, objects, head, rows, [one.report for one in scored])
    if asked.task == "continue" and asked.format == "table":
        console.table(("model", "set", *VOICES), [row for one in objects for row in _voices(one)], title="\nvoices beside their prompts", stdout=True)


def _as_dict(one: Scored, task: str, lm: Any) -> dict[str, Any]:
    """The object of `score -f json`: that of any score, with `answers` or `continuation` in each set."""
    from melcli.scoring import answers, continuation

    found = one.report.as_dict()
    for name, rows in one.rows.items():
        if task == "answer":
            found["sets"][name]["answers"] = answers.of_rows(rows)
            if any("written" in (row.reply or {}) for row in rows):  # nobody heard the questions
                found["sets"][name] |= {"wer": None, "wer_interval": None, "cer": None}
                found["average"]["wer"] = None
        else:
            nats = None if lm is None else lm.nats([row.pred_text for row in rows])
            found["sets"][name]["continuation"] = continuation.of_rows(rows, nats)
    return found


def _rows(one: dict[str, Any], task: str) -> list[list[str]]:
    from melcli.scoring.tally import cell

    found = []
    for name, s in one["sets"].items():
        if task == "answer":
            a = s["answers"]
            parts = [part for key in ("accuracy", "exact", "spoken_accuracy") for part in (a.get(key), a.get(f"{key}_interval"))]
            cells = [*parts, s["wer"], s["wer_interval"], a["questions"]]
        else:
            c = s["continuation"]
            cells = [c["log_perplexity"], c["log_perplexity_interval"], c["per_word"], c["sim_prompt"], c["sim_prompt_interval"]]
            cells += [s["wer"], s["wer_interval"], c["seconds"], c["silent"], c["loops"], c["continuations"]]
        found.append([one["model"] or "-", name, *map(cell, [*cells, s["audio_seconds"], s["rtfx"]])])
    return found


def _voices(one: dict[str, Any]) -> list[list[str]]:
    from melcli.scoring.tally import cell

    found = []
    for name, s in one["sets"].items():
        v = s["continuation"]["voice"]
        cells = [v["pitch"], v["prompt_pitch"]]
        cells += [v[key + end] for key in ("semitones", "semitones_other", "ltas", "ltas_other") for end in ("", "_interval")]
        cells += [v[prefix + key] for key in ("voiced", "silence", "level") for prefix in ("", "prompt_")]
        found.append([one["model"] or "-", name, *map(cell, cells)])
    return found
