"""The `melcli` command: each sub-command parses, makes one call and prints.

Results go to stdout, everything else to stderr. Exit codes: 0 all done, 1 some inputs failed, 2 usage or configuration, 130 interrupted.
torch and what needs it are imported inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import errno
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from melcli import cli_names, console
from melcli.errors import MelcliError, UsageError

if TYPE_CHECKING:
    from melcli.score_skip import Relevance
    from melcli.vocoder_recipe import VocoderRecipe

app = typer.Typer(name="melcli", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(cli_names.models_app, name="models")
app.add_typer(cli_names.recipes_app, name="recipes")

WARM_UP_BATCHES = 2  # before the clock runs, as the leaderboard does

Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute; auto takes the best there is.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="What to compute in.")]
BatchSize = Annotated[str, typer.Option(metavar="N|auto", help="Utterances decoded together; auto fits the memory.")]
Beams = Annotated[int | None, typer.Option(min=1, metavar="N", help="Hypotheses followed at once, 1 is greedy.  [default: the model's own]")]
CtcWeight = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of the CTC head in a beam search's scores.  [default: 0.3, where there is one]")
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Share the work over a Ray cluster: HOST:PORT, auto (the one this machine is in) or local (this machine)."),
]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the corpora given by name.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine; never download.")]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name or YAML file.")]
Settings = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings over the recipe's: train.lr=5e-4 data.root=data.")]
RunFolder = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run; the default is runs/NAME.")]
Resume = Annotated[str | None, typer.Option(metavar="auto|CHECKPOINT", help="Go on from the last checkpoint in the folder (auto), or this one.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read data, build the model, plan the batches, say it all, and stop.")]
Smoke = Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N steps and write the model: does everything run?")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe as YAML and exit.")]
Processes = Annotated[int, typer.Option(min=1, help="Processes to train with, one a device.")]
Seed = Annotated[int | None, typer.Option(help="Instead of the recipe's seed.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Speech language models that read mel spectrograms directly: features, training, transcripts, scores."""
    if version:
        from melcli import __version__

        print(f"melcli {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def featurize(
    source: Annotated[str, typer.Argument(help="A manifest, folder, corpus name (librispeech:dev-clean) or hf:REPO.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the shards; those that are finished there are kept.")],
    mel: Annotated[str, typer.Option(help="Mel preset; `melcli models ls --kind mel` lists them.")] = "phi4mm",
    jobs: Annotated[int | None, typer.Option(min=1, help="Shards made at a time.  [default: the number of cores]")] = None,
    ray: Ray = None,
    dtype: Annotated[Literal["float16", "float32", "bfloat16"], typer.Option(help="Number format on disk.")] = "float16",
    augment: Annotated[bool, typer.Option("--augment", help="Change speed, level, room and noise at random before the features.")] = False,
    copies: Annotated[int, typer.Option(min=1, help="With --augment: times each utterance is stored, each time changed anew.")] = 1,
    seed: Annotated[int, typer.Option(help="What --augment draws from.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace features made with other options or of other audio.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw durations and a few spectrograms into the folder.")] = False,
    device: Device = "auto",
    root: Root = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn audio into mel spectrogram shards.

    \b
    melcli featurize librispeech:train-clean-100 -o features/ --mel phi4mm
    """
    _prepare(quiet, verbose, offline)
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'melcli[plot]'.")
    if ray is not None and (jobs is not None or device not in ("auto", "cpu")):
        raise UsageError("--ray makes a shard on each core of the cluster; leave out --jobs and --device.")
    from melcli import ray_pool
    from melcli.audio.augment import Augment
    from melcli.featurize import HISTOGRAM_EDGES, Estimate
    from melcli.featurize import featurize as run

    def announce(plan: Estimate) -> None:
        console.decided([("mel", mel), ("plan", f"{plan.utterances:,} utterances, {plan.hours:.2f} h, about {plan.size / 1e6:,.1f} MB")])

    with ray_pool.joined(ray), console.progress("featurize", None) as bar:
        done = run(
            source,
            out,
            mel,
            jobs=jobs,
            executor=None if ray is None else ray_pool.Tasks(),
            dtype=dtype,
            augment=Augment() if augment else None,
            copies=copies,
            seed=seed,
            device=device,
            root=root,
            offline=offline,
            overwrite=overwrite,
            announce=announce,
            progress=lambda shard: bar.advance(1, f"shard {shard.index}: {shard.utterances} utterances"),
        )
    labels = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(HISTOGRAM_EDGES)]
    console.histogram("seconds  utterances", labels, done.histogram)
    kept = f", {done.skipped_shards} of them there already" if done.skipped_shards else ""
    print(f"{done.folder}: {done.utterances} utterances, {done.hours:.2f} h, {done.size / 1e6:.1f} MB in {done.shards} shards{kept}")
    if plot:
        from melcli.plot import plot_features

        print(*plot_features(done.folder), sep="\n")
    _finish([(failure.id, failure.error) for failure in done.failures], done.utterances + len(done.failures))


@app.command()
def train(
    recipe: RecipeName,
    settings: Settings = None,
    out: RunFolder = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    smoke: Smoke = None,
    print_config: PrintConfig = False,
    devices: Processes = 1,
    seed: Seed = None,
    jobs: Annotated[int, typer.Option(min=1, metavar="N", help="Of a recipe with a sweep: trainings at a time, sharing the processor.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Of a recipe with a sweep: train these members only; * stands for anything; may repeat.")
    ] = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model by a recipe; by one with a sweep, all its members, and make a table of them.

    \b
    melcli train recipes/digits.yaml data.root=data
    melcli train ablations/token_rate -o rates/ --dry-run
    """
    _prepare(quiet, verbose, offline)
    flags = {"--quiet": quiet, "--verbose": verbose, "--offline": offline, "--dry-run": dry_run}
    _train(recipe, settings or [], out, resume, smoke, seed, devices, flags, print_config, jobs, only or [])


@app.command()
def finetune(
    recipe: RecipeName,
    settings: Settings = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="MODEL", help="Name, folder or hub id of the model to start from.  [default: the recipe's model.init]"),
    ] = None,
    out: RunFolder = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    smoke: Smoke = None,
    print_config: PrintConfig = False,
    devices: Processes = 1,
    seed: Seed = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model by a recipe, starting from another: ours, any causal language model of transformers, or Phi-4-multimodal.

    \b
    melcli finetune recipes/finetune.yaml --from Qwen/Qwen3-0.6B data.root=data
    melcli finetune recipes/finetune.yaml tune.llm=frozen data.root=data --dry-run
    """
    _prepare(quiet, verbose, offline)
    flags = {"--quiet": quiet, "--verbose": verbose, "--offline": offline, "--dry-run": dry_run}
    begun = [] if start is None else [f"model.init={json.dumps(start)}", "model.backbone=null"]
    _train(recipe, [*begun, *(settings or [])], out, resume, smoke, seed, devices, flags, print_config, needs_start=True)


def _train(
    recipe: str,
    settings: list[str],
    out: Path | None,
    resume: str | None,
    smoke: int | None,
    seed: int | None,
    devices: int,
    flags: dict[str, bool],
    print_config: bool,
    jobs: int = 1,
    only: Sequence[str] = (),
    needs_start: bool = False,
) -> None:
    """What `train` and `finetune` do, once each has made its settings; the processes of several devices are all called `train`."""
    from melcli import launch
    from melcli.recipe import VocoderRecipe, load

    settings = [*settings, *([] if seed is None else [f"seed={seed}"])]
    resolved = load(recipe, settings)
    if isinstance(resolved, VocoderRecipe):
        _train_vocoder(recipe, resolved, out, resume, smoke, flags, print_config, devices, jobs > 1 or bool(only), needs_start)
        return
    if resolved.sweep is not None and not print_config:
        if launch.is_worker():
            raise UsageError("a sweep starts its own processes: run it without torchrun; --devices N is for each of its trainings.")
        if resume not in (None, "auto"):
            raise UsageError(f"--resume {resume}: a sweep goes on from the last checkpoint of each of its trainings by itself.")
        given = [*(["--devices", str(devices)] if devices > 1 else []), *(["--smoke", str(smoke)] if smoke else [])]
        given += [name for name, on in flags.items() if on and name != "--dry-run"]
        _sweep(recipe, settings, out or Path("runs") / resolved.name, only, jobs, given, flags["--dry-run"])
        return
    if jobs > 1 or only:
        raise UsageError(f"--jobs and --only are for recipes with a sweep, which {recipe} has not.")
    if needs_start and resolved.model.init is None:
        raise UsageError("finetune needs a model to start from: give --from MODEL, or model.init in the recipe; `melcli train` starts from nothing.")
    if print_config:
        from melcli.config import dump_yaml

        print(dump_yaml(resolved), end="")
        return
    if devices > 1 and not launch.is_worker():
        options = {"--out": out, "--resume": resume, "--smoke": smoke}
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        raise typer.Exit(launch.launch(devices, ["train", recipe, *settings, *given, *(name for name, on in flags.items() if on)]))
    if launch.is_worker():
        launch.join()
    from melcli.train import train as run

    result = run(resolved, out, resume=resume, smoke=smoke, dry_run=flags["--dry-run"], offline=flags["--offline"])
    if result is not None and launch.is_first():
        rates = "; ".join(f"{name} WER {rate:.2f} %" for name, rate in result.rates.items())
        console.note(f"weights kept: {result.chosen}" + (f": {rates}" if rates else ""))
        print(result.folder)


def _train_vocoder(
    name: str,
    recipe: VocoderRecipe,
    out: Path | None,
    resume: str | None,
    smoke: int | None,
    flags: dict[str, bool],
    print_config: bool,
    devices: int,
    swept: bool,
    needs_start: bool,
) -> None:
    """`train` of a recipe with a `vocoder:`."""
    if needs_start:
        raise UsageError(f"{name} trains a vocoder, which starts from nothing: use `melcli train`.")
    if swept:
        raise UsageError(f"--jobs and --only are for recipes with a sweep, which {name} has not.")
    if devices > 1:
        raise UsageError(f"--devices {devices}: {name} trains a vocoder, which takes one device.")
    if print_config:
        from melcli.config import dump_yaml

        print(dump_yaml(recipe), end="")
        return
    from melcli.train_vocoder import train_vocoder

    result = train_vocoder(recipe, out, resume=resume, smoke=smoke, dry_run=flags["--dry-run"], offline=flags["--offline"])
    if result is not None:
        console.note("; ".join(f"{source} mel error {error:.4f}" for source, error in result.errors.items()) or "not evaluated")
        print(result.folder)


def _sweep(recipe: str, settings: Sequence[str], out: Path, only: Sequence[str], jobs: int, options: Sequence[str], dry_run: bool) -> None:
    """`train` of a recipe that has a sweep."""
    from melcli import sweep, sweep_run, sweep_table
    from melcli.recipe import read

    members = sweep.members(read(recipe, list(settings)))
    chosen = sweep_run.select(members, only)
    if dry_run:
        found = [one for one in sweep_run.outcomes(members, out) if one.member in chosen]
        console.table(("training", "state", "recipe"), sweep_run.plan_rows(found), stdout=True)
        console.note(f"{len(found)} trainings in {out}")
        return
    found = sweep_run.run(members, out, chosen=chosen, jobs=jobs, options=options)
    console.table(*sweep_table.readable(*sweep_table.table(found)), stdout=True)
    if means := sweep_table.summary(found):
        console.table(*sweep_table.mean_table(means), title="over seeds, mean ± standard deviation", stdout=True)
    console.note(f"written: {out}/sweep.md, sweep.csv, sweep.json")
    if left := sum(one.state in ("new", "begun") for one in found):
        console.note(f"{left} of {len(found)} are not done; the same command goes on with them")
    _finish([(one.member.label, one.error) for one in found if one.error], len(found))


@app.command()
def transcribe(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Files, folders, patterns, JSONL manifests, or - for audio on standard input.")],
    model: Annotated[str, typer.Option(help="A model's name, folder or hub id.")] = "tiny-en",
    format: Annotated[Literal["txt", "json", "jsonl", "all"], typer.Option("--format", "-f", help="What to write.")] = "txt",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a file an input into this folder, keeping the tree, instead of stdout.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder too.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out inputs whose output is in the folder already.")] = False,
    beam: Beams = None,
    ctc_weight: CtcWeight = None,
    ray: Ray = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn speech into text.

    \b
    melcli transcribe talk.mp3
    melcli transcribe -r interviews/ -f json -o transcripts/
    """
    _prepare(quiet, verbose, offline)
    from melcli import ray_pool
    from melcli.inputs import open_inputs
    from melcli.transcripts import open_output, write_all

    size = _batch_size(batch_size)
    with (
        open_inputs(paths, recursive=recursive) as inputs,
        open_output(inputs, format, out, skip_existing) as output,
        ray_pool.joined(ray if output.todo else None),
    ):
        todo = output.todo
        if len(todo) < len(inputs.items):
            console.note(f"{len(inputs.items) - len(todo)} of {len(inputs.items)} are done already and skipped")
        transcripts = iter(())
        if todo:
            transcriber = _recogniser(ray).load(model, device=device, dtype=dtype, batch_size=size, beam=beam, ctc_weight=ctc_weight, offline=offline)
            console.decided(transcriber.decisions)
            transcripts = transcriber.transcribe(todo)
        with console.progress("transcribe", len(todo)) as bar:
            failed = write_all(transcripts, output, done=lambda transcript: bar.advance(1, transcript.name))
    _finish(failed, inputs.total)


@app.command()
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
    melcli score --manifest dev.jsonl --skip-layers all --report report/
    """
    _prepare(quiet, verbose, offline)
    from melcli import launch, ray_pool
    from melcli.score import COLUMNS
    from melcli.score import score as run
    from melcli.score_explain import check_folder, explain, runs_of

    if report is not None:
        check_folder(report)
    if compare is not None:
        if sets or manifest or hyp or model or limit or out or overwrite or allow_missing or csv or skip_layers or devices > 1 or ray:
            raise UsageError("--compare takes --protocol, --format, --report and --worst only: it reads two files of transcripts, whole.")
        _compare(compare, protocol, format, report, worst)
        return
    size = _batch_size(batch_size)
    if hyp and model:
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
        transcriber = _recogniser(ray).load(name, warm_up=WARM_UP_BATCHES if sets else 0, **options)
        if launch.is_first():
            console.decided(transcriber.decisions, title=name if model and len(model) > 1 else "")
        return transcriber

    if len(model or []) > 1:
        from melcli.transcribe import Transcriber

        for name in model:  # before hours of decoding with the first
            Transcriber.check(name, offline=offline)
    with ray_pool.joined(ray), console.progress("score", None) as bar:
        common = {"sets": sets or [], "manifests": manifest or [], "protocol": protocol, "root": root, "limit": limit, "output": out}
        common |= {"overwrite": overwrite, "offline": offline, "load": load, "heard": lambda name: bar.advance(1, name)}
        if skip_layers is not None:
            from melcli.score_skip import score_skipping

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
    _finish(failed, len(failed) + sum(s.total.utterances for one in scored for s in one.sets.values()))


def _skipped(found: Relevance, format: str, report: Path | None) -> None:
    """`score --skip-layers`."""
    if format == "json":
        print(json.dumps(found.as_dict()))
    else:
        console.table(*found.table(), stdout=True)
    if report is not None:
        from melcli.score_skip import write_report

        write_report(found, report)
    reports = [found.whole, *found.skipped.values()]
    failed = list(dict.fromkeys(failure for one in reports for failure in one.failures))
    _finish(failed, len(failed) + sum(s.total.utterances for s in found.whole.sets.values()))


def _compare(files: tuple[Path, Path], protocol: str | None, format: str, report: Path | None, worst: int) -> None:
    """`score --compare A B`."""
    from melcli.score import choose_protocol
    from melcli.score_explain import COMPARED, compare_files, explain
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


@app.command()
def doctor(quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Say what works on this machine, and the remedy for what does not."""
    _prepare(quiet, verbose)
    from melcli.doctor import checks

    found = list(checks())
    console.table(("what", "state", "detail"), [(c.name, c.status, c.detail) for c in found], stdout=True)
    if any(check.status == "broken" for check in found):
        raise typer.Exit(1)


def _prepare(quiet: bool, verbose: bool, offline: bool = False) -> None:
    if quiet and verbose:
        raise UsageError("-q and -v contradict each other.")
    console.set_level(console.QUIET if quiet else console.VERBOSE if verbose else console.NORMAL)
    if offline:  # how the Hugging Face libraries are told; they read it once, when they are imported
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def _recogniser(ray: str | None):
    """The class whose `load` makes a transcriber: in this process, or in actors of the Ray cluster that is joined."""
    if ray is None:
        from melcli.transcribe import Transcriber

        return Transcriber
    from melcli.ray_pool import RayTranscriber

    return RayTranscriber


def _batch_size(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: must be a number of at least 1, or auto.")
    return int(text)


def _given(context: typer.Context, *without: str) -> list[str]:
    """The options of a command as they were given, for a process that is to do the same."""
    given: list[str] = []
    for option in context.command.params:
        value = context.params[option.name]
        if option.name not in without and context.get_parameter_source(option.name).name == "COMMANDLINE":
            for one in value if isinstance(value, list | tuple) else [value]:
                given += [option.opts[0]] if one is True else [option.opts[0], str(one)]
    return given


def _finish(failed: Sequence[tuple[str, str]], total: int) -> None:
    """Exit 1 with a list where inputs failed."""
    if failed:
        console.failures(failed, total)
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: runs the app and turns every mistake of the user into one line and an exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="melcli", standalone_mode=False) or 0
        sys.stdout.flush()
    except MelcliError as error:
        console.error(_message(error))
        code = error.exit_code
    except typer.BadParameter.__mro__[1] as error:  # typer's UsageError, which it does not export
        command = "melcli" if error.ctx is None else error.ctx.command_path
        console.error(f"{error.format_message().replace('Value error, ', '')} See {command} --help.")
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # `| head` has had enough
        _abandon_stdout()
        code = 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _abandon_stdout()
            console.error(f"{error.filename or 'output'}: {error.strerror}.")
            code = 1
        elif error.filename is not None:
            console.error(f"{error.filename}: {error.strerror}.")
            code = 2
        else:
            raise
    if code == 130:
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _message(error: MelcliError) -> str:
    """What went wrong; of an error in a process that loads data its last line, without the traceback that torch puts around it."""
    lines = str(error).strip().splitlines()
    wrapped = len(lines) > 1 and lines[0].startswith("Caught ") and "DataLoader worker" in lines[0]
    return lines[-1].partition(": ")[2] if wrapped else str(error)


def _abandon_stdout() -> None:
    """What is still to be written cannot be: keep the interpreter from trying, and complaining, when it ends."""
    with suppress(OSError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
