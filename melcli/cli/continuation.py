"""`melcli synthesize --continue`: what somebody began to say, said on by a model, in its text and in its speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from melcli.cli.reply import Asked, Done, run
from melcli.errors import UsageError

Continue = Annotated[
    list[str] | None,
    typer.Option("--continue", metavar="PROMPT", help="Say on what is said in a recording, a folder, pattern or manifest of them; may repeat."),
]
WithPrompt = Annotated[
    bool | None, typer.Option("--prompt/--no-prompt", help="With --continue: begin the audio with the prompt itself.  [default: --prompt]")
]


def check(model: str | None, out: Path | None, others: Mapping[str, Any]) -> str:
    """The model, where the options of the command go together. others: by flag, what is for texts alone. Raises UsageError."""
    wrong = [flag for flag, value in others.items() if value]
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: {'does' if len(wrong) == 1 else 'do'} not go with --continue, which says on what is in a recording.")
    if model is None:
        raise UsageError("--continue needs a model that was trained to continue speech: give --model, a folder or hub id (recipe spectron).")
    if out is None:
        raise UsageError("say where the audio goes: -o FILE.wav for one recording, -o DIR for several, or -o - for a pipe.")
    return model


def go_on(
    prompts: Sequence[str],
    model: str,
    out: Path,
    with_prompt: bool | None,
    plot: Path | None,
    recursive: bool,
    skip_existing: bool,
    voice: dict[str, Any],
) -> Done:
    """Continue every recording. plot: a picture, of one. voice: see `Responder.load`."""
    asked = {"paths": prompts, "task": "continue", "model": model, "out": out, "recursive": recursive, "skip_existing": skip_existing}
    return run(Asked(**asked, with_prompt=with_prompt is not False, plot=plot, voice=voice))
