"""Options that several commands have, and what those do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli import console
from melcli.errors import UsageError

Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute; auto takes the best there is.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="What to compute in.")]
BatchSize = Annotated[str, typer.Option(metavar="N|auto", help="Utterances decoded together; auto fits the memory.")]
Beams = Annotated[int | None, typer.Option(min=1, metavar="N", help="Hypotheses followed at once, 1 is greedy.  [default: the model's own]")]
CtcWeight = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of the CTC head in a beam search's scores.  [default: 0.3, or 0 where it hears sounds]")
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Share the work over a Ray cluster: HOST:PORT, auto (the one this machine is in) or local (this machine)."),
]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the corpora given by name.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine; never download.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results, warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]


def prepare(quiet: bool, verbose: bool, offline: bool = False) -> None:
    """What every command does first: how much it says, and whether it may download."""
    if quiet and verbose:
        raise UsageError("-q and -v contradict each other.")
    console.set_level(console.QUIET if quiet else console.VERBOSE if verbose else console.NORMAL)
    if offline:  # how the Hugging Face libraries are told; they read it once, when they are imported
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def recogniser(ray: str | None):
    """The class whose `load` makes a transcriber: in this process, or in actors of the Ray cluster that is joined."""
    if ray is None:
        from melcli.transcribe import Transcriber

        return Transcriber
    from melcli.ray_pool import RayTranscriber

    return RayTranscriber


def batch_size_of(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: must be a number of at least 1, or auto.")
    return int(text)


def finish(failed: Sequence[tuple[str, str]], total: int) -> None:
    """Exit 1 with a list where inputs failed."""
    if failed:
        console.failures(failed, total)
        raise typer.Exit(1)
