"""`melcli score --task tts` on the command line: its options, and what it prints. torch is imported inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from melcli import console
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.score_tts import TextSet
    from melcli.scoring.tally import Report
    from melcli.transcribe import Transcriber

RECOGNISER = "pocketsphinx"
PROTOCOL = "spoken"

Task = Annotated[
    Literal["asr", "tts", "answer", "continue"] | None,
    typer.Option(
        help="asr: how well a model hears; tts: how well a voice speaks; answer: how many questions a model answers; continue: how well it says on "
        "what somebody began.  [default: that of the sets, else asr]",
        show_default=False,
    ),
]
Spoken = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="tts, answer: speech that is there already, a folder or manifest, called by the ids of the texts or questions; may repeat with tts.",
    ),
]
Recogniser = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help=f"Who listens to speech that is made, by name, folder or hub id; with answer only where it is given.  [default: {RECOGNISER}]",
        show_default=False,
    ),
]
Similarity = Annotated[
    str | None, typer.Option(metavar="MODEL", help="tts, continue: also compare voices by this speaker model, such as microsoft/wavlm-base-plus-sv.")
]
Mos = Annotated[Path | None, typer.Option(metavar="FILE", help="tts: also guess opinions by this ONNX file of DNSMOS P.835 (sig_bak_ovr.onnx).")]
Prompts = Annotated[
    Literal["none", "continuation", "cross-sentence"] | None,
    typer.Option(
        help="tts: whose voice is taken: the first 3 s of each recording, or another one of its speaker.  [default: none]", show_default=False
    ),
]
Reference = Annotated[
    str | None, typer.Option(metavar="SOURCE", help="tts: recordings to compare with, or synth:VOICE, instead of those in the manifest.")
]
Vocoder = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What turns a model's spectrograms into sound.  [default: auto]", show_default=False),
]
Temperature = Annotated[
    float | None, typer.Option(min=0, help="tts, answer, continue: of a model's latents.  [default: its own]", show_default=False)
]
Seed = Annotated[int | None, typer.Option(help="tts, answer, continue: what prompts and speech are drawn from.  [default: 0]", show_default=False)]


def refuse(task: str, given: dict[str, tuple[Any, tuple[str, ...]]]) -> None:
    """Raises UsageError where an option was given that is of other tasks. given: by flag, what it was given and the tasks that it is for."""
    wrong = {flag: tasks for flag, (value, tasks) in given.items() if value and task not in tasks}
    if wrong:
        parts = [f"{flag} is for --task {_listed(tasks)}" for flag, tasks in wrong.items()]
        raise UsageError(f"{'; '.join(parts)}; this is --task {task}.")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for; None where an option was not given."""

    models: Sequence[str]
    spoken: Sequence[str]
    sets: Sequence[str]
    manifests: Sequence[str]
    hypotheses: Sequence[Path]
    recogniser: str | None
    similarity: str | None
    mos: Path | None
    prompts: str | None
    reference: str | None
    vocoder: str | None
    temperature: float | None
    seed: int | None
    protocol: str | None
    limit: int | None
    output: Path | None
    overwrite: bool
    csv: Path | None
    report: Path | None
    worst: int
    format: str
    device: str
    dtype: str
    root: Path | None
    offline: bool


def run(asked: Asked, load: Callable[[str], Transcriber]) -> tuple[list[tuple[str, str]], int]:
    """Score, print, and return (failures, how many were to be scored). load: the recogniser, by name."""
    from melcli import launch

    if asked.csv is not None and asked.csv.is_dir():
        raise UsageError(f"--csv {asked.csv}: is a folder, and --csv takes a file.")
    if asked.hypotheses:
        from melcli.score import score

        if asked.models or asked.spoken or asked.sets or asked.manifests or asked.output or asked.overwrite:
            raise UsageError("--hyp scores rows that exist; leave out --model, --spoken, --manifest, --set, --out and --overwrite.")
        reports = score(hypotheses=asked.hypotheses, protocol=asked.protocol or PROTOCOL, limit=asked.limit)
    else:
        reports = _score(asked, load)
    if not launch.is_first():
        return [], 0
    _show(reports, asked)
    failed = [failure for one in reports for failure in one.failures]
    return failed, len(failed) + sum(s.total.utterances for one in reports for s in one.sets.values())


def _show(reports: Sequence[Report], asked: Asked) -> None:
    from melcli.files import write_text
    from melcli.score_explain import explain, runs_of
    from melcli.scoring.tts import summary

    if asked.format == "json":
        objects = [summary.as_dict(one) for one in reports]
        print(json.dumps(objects if len(objects) > 1 else objects[0]))
    else:
        console.table(summary.COLUMNS, summary.table(reports), stdout=True)
    if asked.csv is not None:
        write_text(asked.csv, summary.to_csv(reports))
    if asked.report is not None:
        write_text(asked.report / "speech.json", json.dumps([summary.as_dict(one) for one in reports], indent=1) + "\n")
        write_text(asked.report / "speech.md", summary.to_markdown(reports))
    if asked.report is not None or asked.worst:
        explain(runs_of(reports), reports[0].protocol, asked.report, asked.worst, stdout=asked.format == "table")


def _score(asked: Asked, load: Callable[[str], Transcriber]) -> list[Report]:
    """Open everything before anything is spoken, say what was decided, and score."""
    from melcli import launch
    from melcli.score import choose_protocol
    from melcli.score_tts import Ears, ears_settings, listening, open_texts, own_texts, read_sets, score_tts
    from melcli.score_tts_voices import Spoken, open_voice

    if not asked.models and not asked.spoken:
        raise UsageError("--task tts needs --model VOICE or --spoken SOURCE.")
    named = bool(asked.sets or asked.manifests)
    if asked.spoken and asked.models and not named:
        raise UsageError("--model and --spoken side by side need texts: give --manifest TEXTS.jsonl.")
    if asked.prompts not in (None, "none") and not named:
        raise UsageError(f"--prompts {asked.prompts}: needs recordings by speakers: give --manifest or --set of them.")
    protocol, why = choose_protocol(asked.protocol or PROTOCOL, [])
    where: dict[str, Any] = {"root": asked.root, "offline": asked.offline}
    speaking = {"vocoder": asked.vocoder or "auto", "temperature": asked.temperature, "seed": asked.seed or 0}
    speaking |= {"device": asked.device, "dtype": asked.dtype, "offline": asked.offline}
    voices = [
        *(Spoken.load(one, **where) for one in dict.fromkeys(asked.spoken)),
        *(open_voice(one, **speaking) for one in dict.fromkeys(asked.models)),
    ]
    texts = open_texts(asked.sets, asked.manifests, **where) if named or asked.models else {}
    transcriber = load(asked.recogniser or RECOGNISER)
    kind = asked.prompts or "none"
    decisions = {"protocol": why if asked.protocol else why.replace("as asked", "the default for speech")}
    decisions["prompts"] = kind if kind == "none" else f"{kind}, seed {asked.seed or 0}"
    voiceprint = opinion = other = None
    sets: list[TextSet] = []
    if asked.similarity is not None:
        from melcli.models.voiceprint import Voiceprint

        voiceprint, decisions["similarity"] = Voiceprint.load(asked.similarity, device=asked.device, offline=asked.offline)
    if asked.mos is not None:
        from melcli.scoring.tts.dnsmos import Dnsmos

        opinion, decisions["mos"] = Dnsmos(asked.mos), f"DNSMOS P.835, {asked.mos}"
    if asked.reference is not None:
        compared = open_voice(asked.reference) if asked.reference.startswith("synth:") else Spoken.load(asked.reference, **where)
        decisions["reference"], other = f"{compared.name}, as asked", lambda wanted: compared.audio(wanted, Path())
    if texts:
        sets = read_sets(texts, kind=kind, seed=asked.seed or 0, reference=other, hear=listening(transcriber), limit=asked.limit)
    if launch.is_first():
        console.decided(decisions)
        for one in sets:
            _say_left_out(one.name, one.left_out, len(one.wanted))
    settings = {"prompts": decisions["prompts"], "reference": asked.reference or "the source's own"}
    known = ears_settings(transcriber, asked.similarity, None if asked.mos is None else asked.mos.name)
    with console.progress("score", None) as bar:
        return score_tts(
            voices,
            Ears(transcriber, voiceprint, opinion, known),
            lambda voice: sets or [own_texts(voice, other, asked.limit)],
            protocol,
            output=asked.output or asked.report,
            overwrite=asked.overwrite,
            settings=settings,
            expected=bar.expect,
            heard=lambda name: bar.advance(1, name),
            done=lambda voice, name: console.detail(f"{voice}: {name} done"),
        )


def _say_left_out(source: str, left_out: Sequence[tuple[str, str]], kept: int) -> None:
    """What the protocol of prompts cannot use."""
    for name, reason in left_out:
        console.detail(f"{name}: left out: {reason}")
    if left_out:
        console.note(f"{source}: {len(left_out)} of {len(left_out) + kept} left out: {left_out[0][1]} (-v lists them)")
