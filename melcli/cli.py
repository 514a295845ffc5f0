"""The `melcli` command: each sub-command parses, makes one call and prints.

Results go to stdout, everything else to stderr. Exit codes: 0 all done, 1 some inputs failed, 2 usage or configuration, 130 interrupted,
143 terminated.
torch and what needs it are imported inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import errno
import importlib.util
import itertools
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli import (
    cli_answer,
    cli_branches,
    cli_doctor,
    cli_export,
    cli_mistakes,
    cli_names,
    cli_score,
    cli_serve,
    cli_synthesize,
    cli_train,
    cli_transcribe,
    console,
    interrupts,
    launch,
)
from melcli.cli_options import (
    Device,
    Offline,
    Quiet,
    Ray,
    Root,
    Verbose,
    finish,
    prepare,
)
from melcli.errors import MelcliError, UsageError, first_line, is_out_of_memory

app = typer.Typer(name="melcli", pretty_exceptions_enable=False, rich_markup_mode=None)
COMPLETE = "_MELCLI_COMPLETE"
app.add_typer(cli_names.models_app, name="models")
app.add_typer(cli_names.recipes_app, name="recipes")


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print versions and exit.")] = False) -> None:
    """Speech language models that read mel spectrograms directly: transcripts, speech, scores and training.

    \b
    First steps:
      melcli doctor                               what works on this machine
      melcli transcribe talk.mp3                  what is said in a recording
      melcli synthesize "Hello." -o hello.wav     a text, spoken
      melcli train digits data.root=DIR           a recogniser of your own, in minutes
    """
    if version:
        from melcli.doctor import versions

        print(versions())
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def featurize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A manifest, folder, corpus name (librispeech:dev-clean) or hf:REPO.")],
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
    prepare(quiet, verbose, offline)
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
    finish([(failure.id, failure.error) for failure in done.failures], done.utterances + len(done.failures))


app.command(short_help="Train a model, or all those of a sweep, by a recipe.")(cli_train.train)
app.command(short_help="Train by a recipe, starting from another model.")(cli_train.finetune)


app.command()(cli_transcribe.transcribe)
app.command(short_help="Turn text into speech, or say on what a recording says.")(cli_synthesize.synthesize)
app.command()(cli_answer.answer)
app.command(short_help="Measure errors of models, result files and voices.")(cli_score.score)
app.command(short_help="Compare the text and speech branch of a unified encoder.")(cli_branches.branches)
app.command(short_help="Write a model for other programs to use.")(cli_export.export)
app.command(short_help="Serve OpenAI's audio API and a page, requests in batches.")(cli_serve.serve)


app.command(short_help="Say what works on this machine, and how to mend the rest.")(cli_doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: runs the app and turns every mistake of the user into one line and an exit code."""
    if COMPLETE in os.environ:  # set by the shell when Tab is pressed
        from melcli import cli_complete

        cli_complete.install(app)
    try:
        with interrupts.listening():
            code = app(args=None if arguments is None else list(arguments), prog_name="melcli", standalone_mode=False) or 0
            sys.stdout.flush()
    except MelcliError as error:
        console.error(_message(error))
        code = error.exit_code
    except typer.BadParameter.__mro__[1] as error:  # typer's UsageError, which it does not export
        console.error(cli_mistakes.message(error))
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # `| head` has had enough
        _abandon_stdout()
        code = 1
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            _abandon_stdout()
            console.error(f"{error.filename or 'output'}: cannot be written: {error.strerror}.")
            code = 1
        elif error.filename is not None:
            console.error(f"{error.filename}: {error.strerror}.")
            code = 2
        else:
            raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        console.error(f"the memory is too small for this: {first_line(error)}")
        code = 1
    if code == 130:
        code = interrupts.exit_code()
    if code in interrupts.SAID and not launch.is_worker():  # of several processes the one that started them says it
        print(interrupts.SAID[code], file=sys.stderr)
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
