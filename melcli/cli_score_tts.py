"""`melcli score --task tts` on the command line: its options, and what it prints. torch is imported inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from melcli import console
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.scoring.tally import Report
    from melcli.transcribe import Transcriber

RECOGNISER = "pocketsphinx"

Task = Annotated[Literal["asr", "tts"], typer.Option(help="asr: how well a model hears. tts: how well a voice speaks.")]
Spoken = Annotated[
    list[str] | None,
    typer.Option(metavar="SOURCE", help="tts: speech that is there already, a folder or manifest, called by the ids of the texts; may repeat."),
]
Recogniser = Annotated[
    str | None, typer.Option(metavar="MODEL", help=f"tts: who listens, by name, folder or hub id.  [default: {RECOGNISER}]", show_default=False)
]
Similarity = Annotated[
    str | None, typer.Option(metavar="MODEL", help="tts: also compare voices by this speaker model, such as microsoft/wavlm-base-plus-sv.")
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
Seed = Annotated[int | None, typer.Option(help="tts: what prompts and speech are drawn from.  [default: 0]", show_default=False)]


def refuse(task: str, for_asr: dict[str, Any], for_tts: dict[str, Any]) -> None:
    """Raises UsageError where an option was given that is of the other task. The values are those that options were given, by flag."""
    other, given = ("tts", for_tts) if task == "asr" else ("asr", for_asr)
    wrong = [flag for flag, value in given.items() if value]
    if wrong:
        means = "" if task == "tts" else "; give --task tts to score speech"
        raise UsageError(f"{', '.join(wrong)}: {'is' if len(wrong) == 1 else 'are'} for --task {other}{means}.")


def run(
    *,
    models: Sequence[str],
    spoken: Sequence[str],
    sources: Sequence[str],
    hypotheses: Sequence[Path],
    recogniser: str | None,
    similarity: str | None,
    mos: Path | None,
    kind: str | None,
    reference: str | None,
    seed: int | None,
    protocol: str | None,
    limit: int | None,
    output: Path | None,
    overwrite: bool,
    csv: Path | None,
    report: Path | None,
    worst: int,
    format: str,
    device: str,
    root: Path | None,
    offline: bool,
    load: Callable[[str], Transcriber],
) -> tuple[list[tuple[str, str]], int]:
    """Score, print, and return (failures, how many were to be scored)."""
    from melcli import launch
    from melcli.files import write_text
    from melcli.score_explain import explain, runs_of
    from melcli.scoring.tts import summary

    if csv is not None and csv.is_dir():
        raise UsageError(f"--csv {csv}: is a folder, and --csv takes a file.")
    if hypotheses:
        from melcli.score import score

        if models or spoken or sources or output or overwrite:
            raise UsageError("--hyp scores rows that exist; leave out --model, --spoken, --manifest, --set, --out and --overwrite.")
        reports = score(hypotheses=hypotheses, protocol=protocol, limit=limit)
    else:
        with console.progress("score", None) as bar:
            reports = _score(
                models, spoken, sources, recogniser or RECOGNISER, similarity, mos, kind or "none", reference, seed or 0, protocol, limit,
                output or report, overwrite, device, root, offline, load, bar,
            )  # fmt: skip
    if not launch.is_first():
        return [], 0
    if format == "json":
        objects = [summary.as_dict(one) for one in reports]
        print(json.dumps(objects if len(objects) > 1 else objects[0]))
    else:
        console.table(summary.COLUMNS, summary.table(reports), stdout=True)
    if csv is not None:
        write_text(csv, summary.to_csv(reports))
    if report is not None:
        write_text(report / "speech.json", json.dumps([summary.as_dict(one) for one in reports], indent=1) + "\n")
        write_text(report / "speech.md", summary.to_markdown(reports))
    if report is not None or worst:
        explain(runs_of(reports), reports[0].protocol, report, worst, stdout=format == "table")
    failed = [failure for one in reports for failure in one.failures]
    return failed, len(failed) + sum(s.total.utterances for one in reports for s in one.sets.values())


def _score(
    models: Sequence[str],
    spoken: Sequence[str],
    sources: Sequence[str],
    recogniser: str,
    similarity: str | None,
    mos: Path | None,
    kind: str,
    reference: str | None,
    seed: int,
    protocol: str | None,
    limit: int | None,
    output: Path | None,
    overwrite: bool,
    device: str,
    root: Path | None,
    offline: bool,
    load: Callable[[str], Transcriber],
    bar: console.Progress,
) -> list[Report]:
    from melcli import launch
    from melcli.score import choose_protocol
    from melcli.score_tts import Ears, ears_settings, listening, read_sets, score_tts
    from melcli.score_tts_voices import Spoken, open_voice
    from melcli.scoring.sets import of_label

    if not models and not spoken:
        raise UsageError("--task tts needs --model VOICE or --spoken SOURCE.")
    if spoken and not sources and models:
        raise UsageError("--model and --spoken side by side need texts: give --manifest TEXTS.jsonl.")
    chosen, why = choose_protocol(protocol, [of_label(source) for source in sources] or [None])
    voices = [
        *(Spoken.load(one, root, offline) for one in dict.fromkeys(spoken)),
        *(open_voice(one, device=device, seed=seed, offline=offline) for one in dict.fromkeys(models)),
    ]
    ears = load(recogniser)
    decisions = {"protocol": why}
    voiceprint = opinion = None
    if similarity is not None:
        from melcli.models.voiceprint import Voiceprint

        voiceprint, decisions["similarity"] = Voiceprint.load(similarity, device=device, offline=offline)
    if mos is not None:
        from melcli.scoring.tts.dnsmos import Dnsmos

        opinion = Dnsmos(mos)
        decisions["mos"] = f"{mos}: DNSMOS P.835"
    other = None
    if reference is not None:
        compared = open_voice(reference) if reference.startswith("synth:") else Spoken.load(reference, root, offline)
        decisions["reference"] = f"{compared.name}, as asked"
        other = lambda wanted: compared.audio(wanted, Path())  # noqa: E731
    sets = None
    if sources or models or kind != "none":
        sets = read_sets(sources, kind=kind, seed=seed, reference=other, hear=listening(ears), limit=limit, root=root, offline=offline)
        for one in sets:
            for name, reason in one.left_out:
                console.detail(f"{name}: left out: {reason}")
            if one.left_out:
                console.note(
                    f"{one.name}: {len(one.left_out)} of {len(one.left_out) + len(one.wanted)} left out: {one.left_out[0][1]}, or so (-v lists them)"
                )
    if launch.is_first():
        decisions["prompts"] = kind if kind == "none" else f"{kind}, seed {seed}"
        console.decided(decisions)
    settings = {"prompts": decisions.get("prompts", kind), "reference": reference or "the source's own"}
    return score_tts(
        voices,
        Ears(ears, voiceprint, opinion, ears_settings(ears, similarity, None if mos is None else mos.name)),
        sets,
        chosen,
        output=output,
        overwrite=overwrite,
        settings=settings,
        expected=bar.expect,
        heard=lambda name: bar.advance(1, name),
        done=lambda voice, name: console.detail(f"{voice}: {name} done"),
    )
