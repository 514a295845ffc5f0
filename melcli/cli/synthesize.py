"""`melcli synthesize`: its options, what becomes of a text, of a file of them, and of a pipe. What it does to recordings is in continuation.py."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melcli import console
from melcli.cli import continuation
from melcli.cli.options import Device, Dtype, Offline, Quiet, Verbose, finish, prepare
from melcli.cli.reply import MaxSeconds, Recursive
from melcli.errors import AudioError, CheckpointError, DiskFull, UsageError, WriteError
from melcli.files import alone

if TYPE_CHECKING:
    from melcli.synthesize import Chunk, Delivered, Request, Synthesizer
    from melcli.synthesizing.rows import Row

ROWS = (".jsonl", ".jsonl.gz")
MODEL = "tiny-voice"


def synthesize(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to say, or - for text on standard input.")] = None,
    text_file: Annotated[Path | None, typer.Option(metavar="FILE", help="What to say: a text, or a .jsonl file with a text a row.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE|DIR|-", help="Audio file (.wav, .flac, .ogg, .opus, .mp3), folder for a .jsonl, or - for WAV on stdout."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"A speaking model's name, folder or hub id.  [default: {MODEL}]", show_default=False)] = None,
    voice: Annotated[Path | None, typer.Option(metavar="FILE", help="A recording of 1 to 30 s to speak like.")] = None,
    voice_text: Annotated[str | None, typer.Option(metavar="TEXT", help="What is said in it.  [default: its .txt beside it, else unknown]")] = None,
    lexicon: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Words and how they sound, a line each with a tab between, or in the CMU's layout.")
    ] = None,
    vocoder: Annotated[str, typer.Option(metavar="NAME|auto", help="What makes audio of the mel; see `models ls --kind vocoder`.")] = "auto",
    temperature: Annotated[
        float | None,
        typer.Option(min=0, max=10, help="How freely the voice varies; 0 is always the mean.  [default: the model's own]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn from; the same seed gives the same audio.")] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw mel, stop probability and deviation; or prompt and continuation (.png, .pdf, .svg)."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Transcribe the result and print the word error rate against the text.")] = False,
    check_with: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The recogniser of --check, which this turns on.  [default: tiny-en]")
    ] = None,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", help="Leave out rows whose audio is in the folder already.")] = False,
    prompts: continuation.Continue = None,
    with_prompt: continuation.WithPrompt = None,
    max_seconds: MaxSeconds = None,
    recursive: Recursive = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn text into speech, or say on what is said in a recording.

    \b
    melcli synthesize "hello world" -o hello.wav
    melcli synthesize --text-file story.txt -o story.mp3 --voice ann.wav
    melcli synthesize --text-file rows.jsonl -o spoken/
    cat story.txt | melcli synthesize - -o - | aplay
    melcli synthesize --continue begun.wav -o whole.wav --model runs/spectron
    """
    prepare(quiet, verbose, offline)
    listener = check_with or ("tiny-en" if check else None)
    common = {"device": device, "dtype": dtype, "offline": offline}
    if prompts:
        texts = {"TEXT": text, "--text-file": text_file, "--voice": voice, "--voice-text": voice_text, "--lexicon": lexicon}
        name = continuation.check(model, out, texts)
        _check_listener(listener, out, offline)
        voicing = {"vocoder": vocoder, "temperature": temperature, "seed": seed, "max_seconds": max_seconds}
        done = continuation.go_on(prompts, name, out, with_prompt, plot, recursive, skip_existing, voicing | common)
        if listener is not None and done.spoken:
            _listen(listener, done.spoken, common)
        finish(done.failed, done.total)
        return
    recorded = {"--prompt": with_prompt is not None, "--max-seconds": max_seconds, "--recursive": recursive}
    if wrong := [flag for flag, value in recorded.items() if value]:
        raise UsageError(f"{', '.join(wrong)}: {'is' if len(wrong) == 1 else 'are'} for recordings: give --continue PROMPT.wav.")
    model = model or MODEL
    _check_options(text, text_file, out, plot, voice, voice_text, skip_existing)
    rows: list[Row] = []
    batch = text_file is not None and text_file.name.endswith(ROWS)
    if batch:
        from melcli.journal import Journal
        from melcli.synthesizing.rows import MANIFEST, read_rows, write_manifest

        rows = read_rows(text_file, out)
        todo = [row for row in rows if not (skip_existing and row.path.is_file())]
        if len(todo) < len(rows):
            console.note(f"{len(rows) - len(todo)} of {len(rows)} are done already and skipped")
        if not todo:
            with alone(out, "synthesize"), Journal(out / MANIFEST) as journal:  # of a run that was killed at its very end
                print(write_manifest(rows, journal))
            return
    _check_listener(listener, out, offline)
    from melcli.synthesize import Synthesizer

    options = {"vocoder": vocoder, "temperature": temperature, "seed": seed, "lexicon": lexicon} | common
    synthesizer = Synthesizer.load(model, **options)
    console.decided(synthesizer.decisions | {"output": _output(out, batch)})
    began = time.perf_counter()
    if batch:
        with alone(out, "synthesize"):
            spoken, failed, seconds = _speak_rows(synthesizer, rows, todo, out, voice, voice_text)
    else:
        spoken, seconds = _speak_text(synthesizer, text, text_file, out, voice, voice_text, plot, keep_text=listener is not None)
        failed = []
    took = time.perf_counter() - began
    if seconds:
        console.note(f"{seconds:.1f} s of audio in {took:.1f} s (real-time factor {took / seconds:.2f})")
    if listener is not None and spoken:
        _listen(listener, spoken, common)
    if batch:
        finish(failed, len(todo))


def _check_options(
    text: str | None, text_file: Path | None, out: Path | None, plot: Path | None, voice: Path | None, voice_text: str | None, skip_existing: bool
) -> None:
    """Everything that can be wrong with a command before anything is loaded. Raises UsageError."""
    if (text is None) == (text_file is None):
        raise UsageError("give one of TEXT, - for standard input, and --text-file FILE.")
    if out is None:
        raise UsageError("say where the audio goes: -o FILE.wav, -o - for a pipe, or -o DIR for a .jsonl file.")
    if text_file is not None and not text_file.is_file():
        raise UsageError(f"--text-file {text_file}: {'is a folder' if text_file.is_dir() else 'no such file'}.")
    if voice_text is not None and voice is None:
        raise UsageError("--voice-text is what is said in the recording of --voice: give that too.")
    if voice is not None and not voice.is_file():
        raise UsageError(f"--voice {voice}: {'is a folder' if voice.is_dir() else 'no such file'}.")
    if plot is not None:
        from melcli.synthesizing.plot import check_plot

        check_plot(plot)
    inputs = [path for path in (text_file, voice) if path is not None]
    if text_file is not None and text_file.name.endswith(ROWS):
        if plot is not None:
            raise UsageError("--plot draws one text, and this is a file of them.")
        if str(out) == "-" or (out.exists() and not out.is_dir()):
            raise UsageError(f"-o {out}: a .jsonl file is spoken into a folder.")
        return
    if skip_existing:
        raise UsageError("--skip-existing looks for files in an output folder: it goes with a .jsonl file.")
    if text is not None and text != "-":
        if not any(letter.isalnum() for letter in text):
            raise UsageError("there is nothing to say in the text.")
        if len(text) < 255 and " " not in text and Path(text).is_file():
            raise UsageError(f"{text} is a file: give --text-file {text} to have it read out.")
    if str(out) != "-":
        if out.is_dir():
            raise UsageError(f"-o {out}: is a folder, and one text makes one file: {out / 'speech.wav'}, say.")
        from melcli.audio.writer import check_suffix
        from melcli.synthesizing.rows import protect

        check_suffix(out)
        protect([out, *([plot] if plot else [])], inputs)
    elif sys.stdout.isatty():
        raise UsageError("-o - writes audio to standard output, which is a terminal: pipe it on, or give -o FILE.wav.")


def _check_listener(name: str | None, out: Path | None, offline: bool) -> None:
    """See to it that the recogniser of --check is there, before anything is spoken."""
    if name is None:
        return
    if str(out) == "-":
        raise UsageError("--check listens to a file: give -o FILE.")
    from melcli.transcribe import Transcriber

    try:
        Transcriber.check(name, offline=offline)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("--model", "--check-with", 1)) from None


def _output(out: Path, batch: bool) -> str:
    from melcli.audio.vocoder import KNEE

    where = f"{out}/, a file a row" if batch else "WAV on standard output" if str(out) == "-" else str(out)
    return f"{where}; as loud as the voice is, peaks above {KNEE:g} of full scale rounded off"


def _speak_text(
    synthesizer: Synthesizer,
    text: str | None,
    text_file: Path | None,
    out: Path,
    voice: Path | None,
    voice_text: str | None,
    plot: Path | None,
    keep_text: bool,
) -> tuple[list[tuple[Path, str]], float]:
    """One text into a file or a pipe. Returns (file, text) and the seconds of audio."""
    from melcli.audio.writer import WavPipe, file_writer
    from melcli.synthesize import Request, deliver
    from melcli.synthesizing.plot import SECONDS, plot_spoken

    kept: list[str] = []
    lines = _lines(text_file) if text is None else _stdin() if text == "-" else text.splitlines(keepends=True)
    request = Request("text", _keeping(lines, kept) if keep_text else lines, _voice(synthesizer, voice, voice_text))
    pipe = str(out) == "-"
    rate = synthesizer.rate
    writer = nullcontext(WavPipe(sys.stdout.buffer, rate)) if pipe else file_writer(out, rate)
    chunks = synthesizer.stream(request) if pipe else synthesizer.chunks([request])
    with console.progress("synthesize", None) as bar:
        found = deliver(chunks, writer, rate, keep=SECONDS if plot else 0.0, done=lambda chunk: bar.advance(chunk.spoken is not None, _said(chunk)))
    _warn([found])
    if plot is not None:
        plot_spoken(plot, found.spoken, synthesizer.speaker.spec, synthesizer.speaker.frames_per_step, _title(found))
    if not pipe:
        print(out)
    return [(out, "".join(kept))], found.samples / rate


def _speak_rows(
    synthesizer: Synthesizer, rows: list[Row], todo: list[Row], folder: Path, voice: Path | None, voice_text: str | None
) -> tuple[list[tuple[Path, str]], list[tuple[str, str]], float]:
    """A file of texts into a folder. Returns (file, text) of what was spoken, (row, reason) of what failed, and the seconds of audio."""
    from melcli.audio.writer import file_writer
    from melcli.journal import Journal
    from melcli.synthesize import deliver
    from melcli.synthesizing.rows import MANIFEST, write_manifest

    failed: list[tuple[str, str]] = []
    done: dict[str, Delivered] = {}
    by_audio = {row.audio: row for row in todo}
    rate = synthesizer.rate
    requests = _requests(synthesizer, todo, _voice(synthesizer, voice, voice_text), failed)
    with Journal(folder / MANIFEST) as journal, console.progress("synthesize", len(todo)) as bar:

        def note(audio: str, found: Delivered) -> None:
            journal.add({"audio": audio, "duration": round(found.samples / rate, 3), "odd": [reason for reason, _ in found.odd]})

        try:
            for audio, chunks in groupby(synthesizer.chunks(requests), key=lambda chunk: chunk.request.id):
                row = by_audio[audio]
                try:
                    done[audio] = deliver(chunks, file_writer(row.path, rate), rate, whole=functools.partial(note, audio))
                except DiskFull:
                    raise
                except (AudioError, UsageError, WriteError) as error:
                    failed.append((row.where, str(error)))
                bar.advance(1, audio)
        except KeyboardInterrupt:
            write_manifest(rows, journal)
            raise
        _warn(list(done.values()))
        print(write_manifest(rows, journal))
    return [(by_audio[audio].path, by_audio[audio].text) for audio in done], failed, sum(found.samples for found in done.values()) / rate


def _requests(synthesizer: Synthesizer, rows: list[Row], voice: object, failed: list[tuple[str, str]]) -> Iterator[Request]:
    """A request a row; rows of which the voice cannot be used are put into `failed`. A recording is read once in a row of rows."""
    from melcli.synthesize import Request

    last: tuple[object, object] = (None, None)
    for row in rows:
        key = (row.voice, row.voice_text)
        try:
            if row.voice is not None and last[0] != key:
                last = key, _voice(synthesizer, row.voice, row.voice_text, flag="voice")
        except UsageError as error:
            failed.append((row.where, str(error)))
            continue
        yield Request(row.audio, row.text, voice if row.voice is None else last[1])


def _voice(synthesizer: Synthesizer, path: Path | None, text: str | None, flag: str = "--voice"):
    if path is None:
        return None
    from melcli.voice_prompt import read_voice

    return read_voice(path, synthesizer.speaker.spec, synthesizer.alphabet, text=text, flag=flag)


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig") as lines:
            yield from lines
    except UnicodeDecodeError as error:
        raise UsageError(f"--text-file {path}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None


def _stdin() -> Iterator[str]:
    try:
        for line in sys.stdin.buffer:
            yield line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text.") from None


def _keeping(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _said(chunk: Chunk) -> str | None:
    return chunk.piece.text[:40] if chunk.piece is not None else None


def _title(found: Delivered) -> str:
    from melcli.synthesizing.plot import SECONDS

    passages = f"{found.passages} passage{'' if found.passages == 1 else 's'}"
    return passages if len(found.spoken) == found.passages else f"the first {SECONDS:g} s of {passages}"


def _warn(delivered: list[Delivered]) -> None:
    """What the user should know of the audio: what was left out of it, and where the model did not end by itself."""
    from melcli.synthesize import shown

    left_out = tuple(dict.fromkeys(one for found in delivered for one in found.left_out))
    if left_out:
        console.warn(f"left out, since the voice cannot say it: {shown(left_out)}")
    odd = [one for found in delivered for one in found.odd]
    if odd:
        counts = ", ".join(f"{count} by {reason}" for reason, count in Counter(reason for reason, _ in odd).items())
        total = sum(found.passages for found in delivered)
        console.warn(f"{len(odd)} of {total} passages did not end by themselves ({counts}), so listen to them; the first: {odd[0][1][:60]}")
    for reason, text in odd:
        console.detail(f"{reason}: {text}")


def _listen(model: str, spoken: list[tuple[Path, str]], options: dict[str, object]) -> None:
    """`--check`."""
    from melcli.synthesizing.check import listen, verdict
    from melcli.transcribe import Transcriber

    transcriber = Transcriber.load(model, **options)
    console.decided(transcriber.decisions, title="check")
    heard = listen(transcriber, spoken)
    for one in heard:
        (console.detail if len(heard) > 1 else print)(f"{one.path}: {one.text}" if len(heard) > 1 else f"heard: {one.text}")
    print(verdict(heard))
