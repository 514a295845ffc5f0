"""`melcli branches`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli import console
from melcli.cli.options import Device, Dtype, Offline, Quiet, Root, Verbose, finish, prepare
from melcli.errors import UsageError


def branches(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Manifests, folders or corpora of speech with its text.")],
    model: Annotated[str, typer.Option(help="A model whose speech input is unified, or a unified encoder: name, folder or hub id.")],
    vectors: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="For a model that reads vectors made elsewhere: speech=FILE, text=FILE; may repeat."),
    ] = None,
    protocol: Annotated[str, typer.Option(metavar="NAME", help="How texts are compared; see `models ls --kind protocol`.")] = "plain",
    text: Annotated[str, typer.Option(metavar="NORMALISER", help="What is done to a text before the text branch reads it.")] = "plain",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N utterances of each source.")] = None,
    format: Annotated[Literal["table", "json"], typer.Option("--format", "-f", help="What to print.")] = "table",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the encoder's vectors of each source, speech and text.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    root: Root = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """How near the text branch and the speech branch of a unified encoder are: retrieval, and what a model repeats of either.

    Speech of other utterances is fed as well: what a model says that does not listen.

    \b
    melcli branches speechocean762:dev --model runs/unified-encoder --root data
    melcli branches dev.jsonl --model runs/tesu -f json
    melcli branches dev.jsonl --model runs/sonar --vectors speech=dev-speech.safetensors --vectors text=dev-text.safetensors
    """
    prepare(quiet, verbose, offline)
    from melcli.branches import branches as run

    files: dict[str, Path] = {}
    for one in vectors or []:
        name, equals, path = one.partition("=")
        if not (name and equals and path) or name in files:
            raise UsageError(f"--vectors {one}: write NAME=FILE, each name once; speech=FILE and text=FILE are compared")
        files[name] = Path(path)
    options = {"protocol": protocol, "text": text, "limit": limit, "out": out, "root": root, "device": device, "dtype": dtype, "offline": offline}
    found = run(list(dict.fromkeys(sources)), model, vectors=files, **options)
    if format == "json":
        print(json.dumps(found.as_dict()))
    else:
        for head, rows in found.tables():
            console.table(head, rows, stdout=True)
    finish(found.failures, len(found.failures) + sum(one.utterances for one in found.sets.values()))
