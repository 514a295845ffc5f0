"""`melcli transcribe`: its options, and what they come to."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from melcli import console
from melcli.cli.options import BatchSize, Beams, CtcWeight, Device, Dtype, Offline, Quiet, Ray, Verbose, batch_size_of, finish, prepare, recogniser
from melcli.errors import UsageError

TIMED = ("srt", "vtt", "tsv")  # formats that are nothing without times


def transcribe(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Files, folders, patterns, JSONL manifests, - for standard input, or mic.")],
    model: Annotated[str, typer.Option(help="A model's name, folder or hub id.")] = "tiny-en",
    format: Annotated[
        Literal["txt", "json", "jsonl", "srt", "vtt", "tsv", "all"], typer.Option("--format", "-f", help="What to write; srt and vtt are subtitles.")
    ] = "txt",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a file an input into this folder, keeping the tree, instead of stdout.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder too.")] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out inputs whose output is in the folder already.")] = False,
    timestamps: Annotated[
        Literal["none", "segment", "word"] | None,
        typer.Option(help="Times of stretches of speech, or of each word as well.  [default: none in txt, segment elsewhere]", show_default=False),
    ] = None,
    line_length: Annotated[int, typer.Option(min=10, metavar="N", help="Characters in a line of a subtitle.")] = 42,
    lines: Annotated[int, typer.Option(min=1, metavar="N", help="Lines in a subtitle; longer ones are cut in several.")] = 2,
    vad: Annotated[bool, typer.Option("--vad/--no-vad", help="Look for speech first and hear only that, or hear everything.")] = True,
    max_chunk: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Longest piece given to the model at a time.  [default: what it takes]")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print each stretch of speech as soon as it is heard.")] = False,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="An instruction, for models whose prompt takes one.")] = None,
    hotwords: Annotated[str | None, typer.Option(metavar="A,B", help="Words or phrases that are likely to be said.")] = None,
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
    melcli transcribe -r interviews/ -f srt -o subtitles/
    """
    prepare(quiet, verbose, offline)
    from melcli import ray_pool
    from melcli.inputs import open_inputs
    from melcli.models.hints import Hints
    from melcli.subtitles import Layout
    from melcli.transcripts import open_output, write_all

    times = timestamps or ("none" if format == "txt" else "segment")
    if times == "none" and format in (*TIMED, "all"):
        raise UsageError(f"--timestamps none: -f {format} needs times; leave it out.")
    live = paths == ["mic"] and not Path("mic").exists()
    stream = stream or live
    if "mic" in paths and not (live or Path("mic").exists()):
        raise UsageError("mic: a microphone is listened to alone; name no other input.")
    if live and not vad:
        raise UsageError("mic: needs the VAD to tell when something was said; leave out --no-vad.")
    if stream and (ray is not None or out is not None or format not in ("txt", "jsonl")):
        raise UsageError("--stream, and mic, print to the terminal as -f txt or jsonl, from this process: leave out -o, --ray and other formats.")
    words = tuple(word for word in (part.strip() for part in (hotwords or "").split(",")) if word)
    if hotwords is not None and not words:
        raise UsageError("--hotwords: give words or phrases with commas between them.")
    hints = Hints(word_times=times == "word", prompt=prompt, hotwords=words)
    size = batch_size_of(batch_size)
    layout = Layout(line_length, lines, times, stamped=format in ("txt", "all") and timestamps in ("segment", "word"))
    ends: Counter[str] = Counter()
    with (
        open_inputs(paths, recursive=recursive) as inputs,
        open_output(inputs, format, out, skip_existing, layout, stream) as output,
        ray_pool.joined(ray if output.todo else None),
        _microphone() if live else nullcontext(),
    ):
        todo = output.todo
        if len(todo) < len(inputs.items):
            console.note(f"{len(inputs.items) - len(todo)} of {len(inputs.items)} are done already and skipped")
        transcripts = iter(())
        if todo:
            asked = {"batch_size": size, "beam": beam, "ctc_weight": ctc_weight, "vad": vad, "max_chunk": max_chunk, "hints": hints}
            transcriber = recogniser(ray).load(model, device=device, dtype=dtype, offline=offline, **asked)
            console.decided(transcriber.decisions)
            if live:
                console.note("listening; Ctrl-C ends it")
            transcripts = transcriber.transcribe(todo, **({"heard": output.write_segment} if stream else {}))
        with console.progress("transcribe", len(todo)) as bar:

            def done(transcript) -> None:
                ends.update(segment.finish_reason for segment in transcript.segments)
                bar.advance(1, transcript.name)

            failed = write_all(transcripts, output, done=done)
    _warn(ends)
    finish(failed, inputs.total)


def _microphone() -> AbstractContextManager[None]:
    from melcli.audio.microphone import until_interrupted

    return until_interrupted()


def _warn(ends: Counter[str]) -> None:
    """Say what was cut short: its text is not all that was said."""
    total = sum(ends.values())
    for reason, what in (("length", "hit the limit of tokens"), ("repetition", "ran into a loop, which was cut")):
        if ends[reason]:
            console.warn(f"{ends[reason]} of {total} segments {what}: their text may lack words; -f json says which (finish_reason {reason})")
