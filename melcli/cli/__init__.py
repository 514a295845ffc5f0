"""The `melcli` command: each sub-command parses, makes one call and prints.

Results go to stdout, everything else to stderr. Exit codes: 0 all done, 1 some inputs failed, 2 usage or configuration, 130 interrupted,
143 terminated.
torch and what needs it are imported inside the commands, so that `--help` is instant.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from melcli import console, interrupts, launch
from melcli.cli import answer, branches, doctor, export, featurize, mistakes, names, score, serve, synthesize, train, transcribe
from melcli.errors import MelcliError, first_line, is_out_of_memory

app = typer.Typer(name="melcli", pretty_exceptions_enable=False, rich_markup_mode=None)
COMPLETE = "_MELCLI_COMPLETE"
app.add_typer(names.models_app, name="models")
app.add_typer(names.recipes_app, name="recipes")


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


app.command()(featurize.featurize)
app.command(short_help="Train a model, or all those of a sweep, by a recipe.")(train.train)
app.command(short_help="Train by a recipe, starting from another model.")(train.finetune)
app.command()(transcribe.transcribe)
app.command(short_help="Turn text into speech, or say on what a recording says.")(synthesize.synthesize)
app.command()(answer.answer)
app.command(short_help="Measure errors of models, result files and voices.")(score.score)
app.command(short_help="Compare the text and speech branch of a unified encoder.")(branches.branches)
app.command(short_help="Write a model for other programs to use.")(export.export)
app.command(short_help="Serve OpenAI's audio API and a page, requests in batches.")(serve.serve)
app.command(short_help="Say what works on this machine, and how to mend the rest.")(doctor.doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: runs the app and turns every mistake of the user into one line and an exit code."""
    if COMPLETE in os.environ:  # set by the shell when Tab is pressed
        from melcli.cli import complete

        complete.install(app)
    try:
        with interrupts.listening():
            code = app(args=None if arguments is None else list(arguments), prog_name="melcli", standalone_mode=False) or 0
            sys.stdout.flush()
    except MelcliError as error:
        console.error(_message(error))
        code = error.exit_code
    except typer.BadParameter.__mro__[1] as error:  # typer's UsageError, which it does not export
        console.error(mistakes.message(error))
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
