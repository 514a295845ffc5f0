"""What `melcli answer` and `melcli synthesize --continue` share: recordings in, what was heard and what is said out, as text and as speech."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from melcli import console
from melcli.errors import AudioError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from melcli.inputs import AudioInput, Inputs
    from melcli.reply import Replied, Responder, Task
    from melcli.reply_files import Outputs

NAMES = {"answer": ("question", "answer"), "continue": ("heard", "says")}
"""What was heard and what is said are called so, by task."""

MaxSeconds = Annotated[float | None, typer.Option(min=0.1, metavar="S", help="Cut speech that would be longer.  [default: what its text can take]")]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into the folders of a folder too.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for. with_prompt: the speech begins with what it continues. plot: a picture of the only recording and what follows.
    voice: how the model is loaded, see `Responder.load`."""

    paths: Sequence[str]
    task: Task
    model: str
    out: Path | None
    format: Literal["txt", "json", "jsonl"] = "txt"
    recursive: bool = False
    skip_existing: bool = False
    with_prompt: bool = False
    plot: Path | None = None
    voice: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """failed: (name, reason). total: inputs. spoken: (file, what is said in it)."""

    failed: list[tuple[str, str]]
    total: int
    spoken: list[tuple[Path, str]]


def run(asked: Asked) -> Done:
    """Reply to everything that was asked."""
    from melcli.inputs import open_inputs
    from melcli.reply import Responder
    from melcli.reply_files import open_outputs

    if str(asked.out) == "-" and asked.format != "txt":
        raise UsageError(f"-o - has the audio on standard output, where -f {asked.format} would write as well: give -o FILE.wav.")
    with open_inputs(asked.paths, recursive=asked.recursive) as inputs:
        if asked.plot is not None:
            _check_plot(asked.plot, inputs)
        outputs = open_outputs(inputs, asked.out, asked.skip_existing)
        if len(outputs.todo) < len(inputs.items):
            console.note(f"{len(inputs.items) - len(outputs.todo)} of {len(inputs.items)} are done already and skipped")
        replies: list[Replied] = []
        if outputs.todo:
            responder = Responder.load(asked.model, asked.task, speak=outputs.speaks, **asked.voice)
            console.decided(responder.decisions | {"output": outputs.where()})
            printer = Printer(inputs, asked, sys.stderr if outputs.pipe else sys.stdout)
            alone = inputs.total == 1 and asked.format == "txt"
            with outputs.writing("synthesize" if asked.task == "continue" else asked.task):
                replies = [_stream(responder, outputs, asked, printer)] if alone else list(_batch(responder, outputs, asked, printer))
            printer.close()
        else:
            with outputs.writing(asked.task):  # of a run that was killed at its very end
                pass
        failed = [*inputs.failures, *((one.name, inputs.reason(one.name, one.error)) for one in replies if one.error)]
        _warn([one for one in replies if not one.error])
        said = {one.name: _said(one, asked) for one in replies if not one.error}
        return Done(failed, inputs.total, [(outputs.files[name], text) for name, text in said.items() if name in outputs.files])


class Printer:
    """Texts on a stream. txt: a line for what was heard and one for what is said, begun with the recording's name where there are several; json: one
    object, or a list of them; jsonl: an object a line, as each is done."""

    def __init__(self, inputs: Inputs, asked: Asked, stream: TextIO) -> None:
        self._places, self._several = inputs.places, inputs.total > 1
        self._format, self._names, self._stream = asked.format, NAMES[asked.task], stream
        self._whole = asked.task == "continue"  # which may be one text, told apart by nobody
        self._held: list[dict[str, Any]] = []
        self._open: str | None = None

    def stage(self, kind: str, text: str) -> None:
        """The next text of the only recording, as it comes; the same kind goes on in its line."""
        if kind == "said" and not text and self._whole:
            return
        if kind != self._open:
            self._print(("" if self._open is None else "\n") + f"{self._label(kind)}: ")
        self._open = kind
        self._print(text)

    def end(self, path: Path | None) -> None:
        """The only recording is done; its speech is in a file, or there is none."""
        if self._open is not None:
            self._print("\n")
        if path is not None:
            self._print(f"speech: {path}\n")

    def write(self, one: Replied, path: Path | None) -> None:
        """A recording is done."""
        if self._format == "txt":
            begin = f"{one.name}: " if self._several else ""
            lines = [f"{self._label('heard')}: {one.heard}", *([f"{self._label('said')}: {one.said}"] if one.said or not self._whole else [])]
            lines += [] if path is None else [f"speech: {path}"]
            self._print("".join(f"{begin}{line}\n" for line in lines))
            return
        row = {"audio": self._places[one.name].shown, "duration": round(one.seconds, 3), self._names[0]: one.heard, self._names[1]: one.said}
        row |= {"finish_reason": one.reason, "speech": None if path is None else str(path)}
        if self._format == "jsonl":
            self._print(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            self._held.append(row)

    def close(self) -> None:
        """Print what was held back."""
        if self._format == "json" and (self._held or self._several):
            self._print(json.dumps(self._held if self._several else self._held[0], ensure_ascii=False, indent=2) + "\n")

    def _label(self, kind: str) -> str:
        return self._names[0 if kind == "heard" else 1]

    def _print(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _stream(responder: Responder, outputs: Outputs, asked: Asked, printer: Printer) -> Replied:
    """The only recording, each stage as soon as it is there."""
    import torch

    from melcli.audio.writer import WavPipe, file_writer
    from melcli.reply import Replied

    (item,) = outputs.todo
    path = outputs.files.get(item.name)
    speech = nullcontext(WavPipe(sys.stdout.buffer, responder.rate)) if outputs.pipe else file_writer(path, responder.rate) if path else nullcontext()
    first, samples = True, 0
    kept: list[Tensor] = []
    try:
        with speech as out:
            for stage in responder.stream(item):
                if stage.kind != "speech":
                    printer.stage(stage.kind, stage.text)
                    continue
                if first and asked.with_prompt:
                    out.write(responder.prompted(item))
                out.write(responder.begun(stage.wave_S) if first and asked.with_prompt else stage.wave_S)
                first, samples = False, samples + len(stage.wave_S)
                kept += [stage.wave_S] if asked.plot is not None else []
            if outputs.speaks and not samples:
                raise AudioError(f"{item.name}: the model said nothing aloud.")
            _note(outputs, responder.last, asked, samples / responder.rate)
    except AudioError as error:
        printer.end(None)
        return Replied(item.name, 0.0, error=str(error))
    printer.end(path)
    one = responder.last
    if asked.plot is not None:
        from melcli.synthesizing.plot import plot_continued

        title = f"{item.name}   heard: {one.heard[:60]}   says: {one.said[:60]}"
        plot_continued(asked.plot, responder.prompted(item), torch.cat(kept), responder.rate, responder.replier.spec, title)
    return one


def _check_plot(path: Path, inputs: Inputs) -> None:
    """Raises UsageError where the picture could not be drawn in the end."""
    from melcli.synthesizing.plot import check_plot
    from melcli.synthesizing.rows import protect

    check_plot(path)
    if inputs.total != 1:
        raise UsageError(f"--plot draws one recording, and there are {inputs.total}.")
    protect([path], inputs.sources)


def _batch(responder: Responder, outputs: Outputs, asked: Asked, printer: Printer) -> Iterator[Replied]:
    """All recordings, several at a time; the samples of each are let go of once they are written."""
    items = {item.name: item for item in outputs.todo}
    with console.progress(asked.task, len(items)) as bar:
        for one in responder.replies(outputs.todo):
            path = outputs.files.get(one.name)
            if one.error is None and path is not None:
                _write(responder, items[one.name], one, path, outputs, asked)
            if one.error is None:
                printer.write(one, path)
            bar.advance(1, one.name)
            yield one


def _write(responder: Responder, item: AudioInput, one: Replied, path: Path, outputs: Outputs, asked: Asked) -> None:
    """Write the speech of a reply, noted before its file has its name; where there is none the reply gets its error."""
    from melcli.audio.writer import file_writer

    wave_S, one.wave_S = one.wave_S, None
    try:
        if wave_S is None or not len(wave_S):
            raise AudioError(f"{one.name}: the model said nothing aloud.")
        with file_writer(path, responder.rate) as out:
            if asked.with_prompt:
                out.write(responder.prompted(item))
                wave_S = responder.begun(wave_S)
            out.write(wave_S)
            _note(outputs, one, asked, len(wave_S) / responder.rate)
    except AudioError as error:
        one.error = str(error)


def _said(one: Replied, asked: Asked) -> str:
    """What a file with the speech of a reply holds, in words."""
    return one.text if asked.with_prompt else one.said


def _note(outputs: Outputs, one: Replied, asked: Asked, seconds: float) -> None:
    heard, says = NAMES[asked.task]
    whole = seconds + (one.seconds if asked.with_prompt else 0.0)
    about = {"text": _said(one, asked), heard: one.heard, says: one.said, "duration": round(whole, 3), "source": one.name}
    if one.name in outputs.files:
        outputs.note(one.name, about)


def _warn(replies: Sequence[Replied]) -> None:
    """What did not end by itself, and what could not be told apart."""
    for what, reasons in (("texts", [one.reason for one in replies]), ("voices", [one.stopped for one in replies])):
        odd = Counter(reason for reason in reasons if reason not in (None, "", "eos", "stop"))
        if odd:
            counts = ", ".join(f"{count} by {reason}" for reason, count in odd.items())
            console.warn(f"{sum(odd.values())} of {len(replies)} {what} did not end by themselves ({counts})")
