"""`melcli answer`: spoken questions in, answers out, in text and, where wanted, in speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli.cli.options import Device, Dtype, Offline, Quiet, Verbose, finish, prepare
from melcli.cli.reply import Asked, MaxSeconds, Recursive, run


def answer(
    paths: Annotated[
        list[str], typer.Argument(metavar="QUESTION", help="Recordings of questions, folders, patterns, JSONL manifests, or - for standard input.")
    ],
    model: Annotated[str, typer.Option(help="A model that answers: a name, folder or hub id.")],
    format: Annotated[Literal["txt", "json", "jsonl"], typer.Option("--format", "-f", help="What to print.")] = "txt",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE|DIR|-", help="Also speak the answers: into a file, into a folder, or as WAV on standard output."),
    ] = None,
    recursive: Recursive = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out questions whose answer is in the folder already.")] = False,
    vocoder: Annotated[str, typer.Option(metavar="NAME|auto", help="What makes audio of the mel; see `models ls --kind vocoder`.")] = "auto",
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=10, help="How freely the voice varies; 0 is the mean.  [default: the model's own]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What the voice is drawn from.")] = 0,
    max_seconds: MaxSeconds = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Answer spoken questions.

    \b
    melcli answer question.wav --model runs/spectron-qa
    melcli answer question.wav --model runs/spectron-qa -o answer.wav
    melcli answer questions/ --model runs/spectron-qa -f jsonl
    """
    prepare(quiet, verbose, offline)
    voice = {"vocoder": vocoder, "temperature": temperature, "seed": seed, "max_seconds": max_seconds}
    voice |= {"device": device, "dtype": dtype, "offline": offline}
    asked = Asked(paths=paths, task="answer", model=model, out=out, format=format, recursive=recursive, skip_existing=skip_existing, voice=voice)
    done = run(asked)
    finish(done.failed, done.total)
