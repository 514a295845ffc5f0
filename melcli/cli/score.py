"""`melcli score`: error rates of models and of result files, the comparison of two, and what each layer matters to speech."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from melcli import console
from melcli.cli import score_aloud, score_replies, score_tts
from melcli.cli.options import (
    BatchSize,
    Beams,
    CtcWeight,
    Device,
    Dtype,
    Offline,
    Quiet,
    Ray,
    Root,
    Verbose,
    batch_size_of,
    finish,
    prepare,
)
from melcli.cli.options import recogniser as recogniser_of
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.score.skip import Relevance

WARM_UP_BATCHES = 2  # before the clock runs, as the leaderboard does


def score(
    context: typer.Context,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME", help="openasr, openasr-classic, librispeech, one of their sets, or any source; may repeat."),
    ] = None,
    manifest: Annotated[list[str] | None, typer.Option(metavar="SOURCE", help="A manifest, folder or corpus with texts; may repeat.")] = None,
    hyp: Annotated[list[Path] | None, typer.Option(metavar="PATH", help="Result files or folders of them, instead of a model; may repeat.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model's name, folder or hub id; may repeat.  [default: tiny-en]")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How texts are compared; see `models ls --kind protocol`.  [default: the sets' own, else plain]"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N utterances of each set.")] = None,
    format: Annotated[Literal["table", "json"], typer.Option("--format", "-f", help="What to print.")] = "table",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the result files; what is there is gone on with.  [default with --set: results]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin result files anew instead of going on with them.")] = False,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="With --hyp: score files that lack utterances of their set.")] = False,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the leaderboard's table, a line a model.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Processes that share the utterances, one a device.")] = 1,
    ray: Ray = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two JSONL files of the same utterances: is B better than A?")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for report.html, report.md and summary.json.")] = None,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Also show the N worst utterances of each set, word by word.")] = 0,
    task: score_aloud.Task = None,
    spoken: score_aloud.Spoken = None,
    recogniser: score_aloud.Recogniser = None,
    similarity: score_aloud.Similarity = None,
    mos: score_tts.Mos = None,
    prompts: score_tts.Prompts = None,
    reference: score_tts.Reference = None,
    vocoder: score_aloud.Vocoder = None,
    temperature: score_aloud.Temperature = None,
    seed: score_aloud.Seed = None,
    voice: score_replies.Voice = None,
    written: score_replies.Written = None,
    lm: score_replies.LanguageModel = None,
    skip_layers: Annotated[
        str | None,
        typer.Option(metavar="all|LAYERS", help="How much each layer matters to speech: score again with each of 0-31, say, skipped in turn."),
    ] = None,
    beam: Beams = None,
    ctc_weight: CtcWeight = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    root: Root = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure word and character errors, of a model or of a file of transcripts.

    \b
    melcli score --manifest dev.jsonl --model tiny-en
    melcli score --set openasr --root mirror/ --csv row.csv
    melcli score --hyp results/ -f json
    melcli score --compare old.jsonl new.jsonl --report report/
    melcli score --manifest dev.jsonl --skip-layers all --beam 1 --report report/
    melcli score --task tts --manifest texts.jsonl --spoken speech/
    melcli score --set llama-questions --model runs/spectron-qa
    """
    prepare(quiet, verbose, offline)
    task = score_replies.task_of(task, sets or [])
    aloud = ("tts", "answer", "continue")
    of_task = {"--compare": (compare, ("asr",)), "--skip-layers": (skip_layers, ("asr",)), "--ray": (ray, ("asr",))}
    of_task |= {"--allow-missing": (allow_missing, ("asr",)), "--devices": (devices > 1, ("asr", "tts"))}
    of_task |= {"--spoken": (spoken, ("tts", "answer")), "--recogniser": (recogniser, aloud), "--similarity": (similarity, ("tts", "continue"))}
    of_task |= {"--mos": (mos, ("tts",)), "--prompts": (prompts, ("tts",)), "--reference": (reference, ("tts",)), "--vocoder": (vocoder, aloud)}
    of_task |= {"--temperature": (temperature is not None, aloud), "--seed": (seed is not None, aloud)}
    of_task |= {"--voice": (voice, ("answer",)), "--written": (written, ("answer",)), "--lm": (lm, ("continue",))}
    score_aloud.refuse(task, of_task)
    from melcli import launch, ray_pool
    from melcli.score import COLUMNS
    from melcli.score import score as run
    from melcli.score.explain import check_folder, explain, runs_of

    if report is not None:
        check_folder(report)
    if compare is not None:
        if sets or manifest or hyp or model or limit or out or overwrite or allow_missing or csv or skip_layers or devices > 1 or ray:
            raise UsageError("--compare takes --protocol, --format, --report and --worst only: it reads two files of transcripts, whole.")
        _compare(compare, protocol, format, report, worst)
        return
    size = batch_size_of(batch_size)
    if hyp and model and task == "asr":
        raise UsageError("--hyp scores transcripts that exist; leave out --model.")
    if skip_layers is not None and (hyp or csv or worst or ray or (model and len(model) > 1)):
        raise UsageError("--skip-layers is about one model: leave out --hyp, --csv, --worst, --ray and all but one --model.")
    if ray is not None and (hyp or devices > 1 or launch.is_worker()):
        raise UsageError("--ray runs a model on all devices of a cluster; leave out --hyp, --devices and torchrun.")
    if devices > 1 and not launch.is_worker():
        raise typer.Exit(launch.launch(devices, ["score", *_given(context, "devices")]))
    if launch.is_worker():
        launch.join(timedelta(days=7))  # one process may be through with its share long before another

    def load(name: str):
        options = {"device": device, "dtype": dtype, "batch_size": size, "beam": beam, "ctc_weight": ctc_weight, "offline": offline}
        transcriber = recogniser_of(ray).load(name, warm_up=WARM_UP_BATCHES if sets else 0, **options)
        if launch.is_first():
            console.decided(transcriber.decisions, title=name if model and len(model) > 1 else "")
        return transcriber

    if task in aloud:
        given = {"models": list(dict.fromkeys(model or [])), "spoken": spoken or [], "hypotheses": hyp or []}
        given |= {"recogniser": recogniser, "similarity": similarity, "vocoder": vocoder, "temperature": temperature, "seed": seed}
        given |= {"protocol": protocol, "limit": limit, "output": out, "overwrite": overwrite, "csv": csv, "report": report, "worst": worst}
        given |= {"format": format, "device": device, "dtype": dtype, "root": root, "offline": offline}
        if task == "tts":
            given |= {"sets": sets or [], "manifests": manifest or [], "mos": mos, "prompts": prompts, "reference": reference}
            finish(*score_tts.run(score_tts.Asked(**given), load))
        else:
            given |= {"task": task, "sources": [*(sets or []), *(manifest or [])], "voice": voice, "written": written, "lm": lm}
            finish(*score_replies.run(score_replies.Asked(**given), load))
        return
    if len(model or []) > 1:
        from melcli.transcribe import Transcriber

        for name in model:  # before hours of decoding with the first
            Transcriber.check(name, offline=offline)
    with ray_pool.joined(ray), console.progress("score", None) as bar:
        common = {"sets": sets or [], "manifests": manifest or [], "protocol": protocol, "root": root, "limit": limit, "output": out}
        common |= {"overwrite": overwrite, "offline": offline, "load": load, "heard": lambda name: bar.advance(1, name)}
        if skip_layers is not None:
            from melcli.score.skip import score_skipping

            found = score_skipping(skip_layers, (model or ["tiny-en"])[0], **common)
        else:
            scored = run(
                hypotheses=hyp or [],
                models=list(dict.fromkeys(model or ["tiny-en"])),
                expected=bar.expect,
                table=csv,
                allow_missing=allow_missing,
                done=lambda name, set_name: console.detail(f"{name}: {set_name} done"),
                **common,
            )
    if not launch.is_first():
        return
    if skip_layers is not None:
        _skipped(found, format, report)
        return
    if format == "json":
        objects = [one.as_dict() for one in scored]
        print(json.dumps(objects if len(objects) > 1 else objects[0]))
    else:
        console.table(COLUMNS, [row for one in scored for row in one.rows()], stdout=True)
    if scored and (report is not None or worst):
        explain(runs_of(scored), scored[0].protocol, report, worst, stdout=format == "table")
    failed = [failure for one in scored for failure in one.failures]
    finish(failed, len(failed) + sum(s.total.utterances for one in scored for s in one.sets.values()))


def _skipped(found: Relevance, format: str, report: Path | None) -> None:
    """`score --skip-layers`."""
    if format == "json":
        print(json.dumps(found.as_dict()))
    else:
        console.table(*found.table(), stdout=True)
    if report is not None:
        from melcli.score.skip import write_report

        write_report(found, report)
    reports = [found.whole, *found.skipped.values()]
    failed = list(dict.fromkeys(failure for one in reports for failure in one.failures))
    finish(failed, len(failed) + sum(s.total.utterances for s in found.whole.sets.values()))


def _compare(files: tuple[Path, Path], protocol: str | None, format: str, report: Path | None, worst: int) -> None:
    """`score --compare A B`."""
    from melcli.score import choose_protocol
    from melcli.score.explain import COMPARED, compare_files, explain
    from melcli.scoring.results import parse_name
    from melcli.scoring.sets import of_label

    rules, why = choose_protocol(protocol, [of_label(parse_name(path)[1]) for path in files])
    found, runs = compare_files(*files, rules)
    console.decided({"protocol": why})
    if format == "json":
        print(json.dumps(rules.stamp() | found.as_dict()))
    else:
        console.table(COMPARED, [found.row()], stdout=True)
        print(found.verdict)
    explain(runs, rules, report, worst, stdout=format == "table")


def _given(context: typer.Context, *without: str) -> list[str]:
    """The options of a command as they were given, for a process that is to do the same."""
    given: list[str] = []
    for option in context.command.params:
        value = context.params[option.name]
        if option.name not in without and context.get_parameter_source(option.name).name == "COMMANDLINE":
            for one in value if isinstance(value, list | tuple) else [value]:
                given += [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return given
