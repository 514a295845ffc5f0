"""`melcli export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli import console
from melcli.cli.options import Offline, Quiet, Verbose, prepare


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, folder (of a run, too) or hub id.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; one that melcli exported before is replaced.")],
    to: Annotated[
        Literal["hf", "backbone", "onnx"],
        typer.Option(help="hf: all of it for melcli and transformers; backbone: a stock language model; onnx: graphs."),
    ] = "hf",
    merge_lora: Annotated[bool, typer.Option("--merge-lora", help="Add adapters to the weights that they stand beside.")] = False,
    average: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="Of a run's folder: the mean of its weights at the latest K evaluations.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Write matrices in eight bits, for a quarter to half of the size (hf and onnx).")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload it to this repository on the hub, made private where there is none.")
    ] = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a model for others to use; it is read again and compared before it is there.

    \b
    melcli export tiny-en -o tiny-en-hf/ --to hf
    melcli export tiny-en -o tiny-en-onnx/ --to onnx
    melcli export runs/digits -o digits/ --average 3 --int8
    """
    prepare(quiet, verbose, offline)
    from melcli.export import export as run

    done = run(model, out, to, merge_lora=merge_lora, average=average, int8=int8, push=push, offline=offline)
    console.note(f"{done.size / 1e6:,.1f} MB in {done.folder}")
    print(done.url or done.folder)
