"""`melcli score --task tts` on the command line: its options, and what it prints. torch is imported inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from melcli import console
from melcli.cli import score_aloud
from melcli.cli.score_aloud import PROTOCOL, RECOGNISER, show
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.score.tts import TextSet
    from melcli.scoring.tally import Report
    from melcli.transcribe import Transcriber

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(score_aloud.Asked):
    """What was asked for; None where an option was not given."""

    sets: Sequence[str]
    manifests: Sequence[str]
    mos: Path | None
    prompts: str | None
    reference: str | None


def run(asked: Asked, load: Callable[[str], Transcriber]) -> tuple[list[tuple[str, str]], int]:
    """Score, print, and return (failures, how many were to be scored). load: the recogniser, by name."""
    from melcli import launch

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
    from melcli.scoring.tts import summary

    objects = [summary.as_dict(one) for one in reports]
    rows = summary.table(objects)
    show(asked, "speech", objects, summary.COLUMNS, rows, reports)
    if asked.report is not None:
        write_text(asked.report / "speech.md", summary.to_markdown(rows))


def _score(asked: Asked, load: Callable[[str], Transcriber]) -> list[Report]:
    """Open everything before anything is spoken, say what was decided, and score."""
    from melcli import launch
    from melcli.score.tts import Ears, ears_settings, listening, open_texts, own_texts, read_sets, score_tts
    from melcli.score.voices import Spoken, open_voice

    if not asked.models and not asked.spoken:
        raise UsageError("--task tts needs --model VOICE or --spoken SOURCE.")
    named = bool(asked.sets or asked.manifests)
    if asked.spoken and asked.models and not named:
        raise UsageError("--model and --spoken side by side need texts: give --manifest TEXTS.jsonl.")
    if asked.prompts not in (None, "none") and not named:
        raise UsageError(f"--prompts {asked.prompts}: needs recordings by speakers: give --manifest or --set of them.")
    protocol, why = asked.rules("speech")
    where = asked.where
    voices = [
        *(Spoken.load(one, **where) for one in dict.fromkeys(asked.spoken)),
        *(open_voice(one, **asked.voicing, **asked.machine) for one in asked.models),
    ]
    texts = open_texts(asked.sets, asked.manifests, **where) if named or asked.models else {}
    transcriber = load(asked.recogniser or RECOGNISER)
    kind = asked.prompts or "none"
    voiceprint, likeness = asked.voiceprint()
    decisions = {"protocol": why, "prompts": kind if kind == "none" else f"{kind}, seed {asked.seed or 0}", **likeness}
    opinion = other = None
    sets: list[TextSet] = []
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
