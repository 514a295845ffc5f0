"""What is said when a command line cannot be understood: what is wrong, the nearest that could be meant, and how to go on. One line each."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from melcli.errors import nearest

OTHER_WORDS = {
    "asr": "transcribe",
    "listen": "transcribe",
    "recognise": "transcribe",
    "recognize": "transcribe",
    "stt": "transcribe",
    "subtitle": "transcribe",
    "say": "synthesize",
    "speak": "synthesize",
    "synthesise": "synthesize",
    "tts": "synthesize",
    "ask": "answer",
    "chat": "answer",
    "bench": "score",
    "cer": "score",
    "eval": "score",
    "evaluate": "score",
    "wer": "score",
    "features": "featurize",
    "featurise": "featurize",
    "prepare": "featurize",
    "fit": "train",
    "tune": "finetune",
    "convert": "export",
    "push": "export",
    "check": "doctor",
    "info": "doctor",
    "help": "--help",
    "version": "--version",
    "list": "models ls",
    "ls": "models ls",
}
"""What other programs call it: what it is called here."""


def message(error: Any) -> str:
    """The line for a usage error of Typer's: its own words, what could be meant, and where to read on."""
    context = error.ctx
    command = "melcli" if context is None else context.command_path
    said = error.format_message().replace("Value error, ", "")
    below = {} if context is None else getattr(context.command, "commands", {})
    if hasattr(error, "option_name") and hasattr(error, "possibilities"):
        said = f"{error.message}.{_option(error, below)}"
    elif unknown := re.match(r"No such command (['\"])(.*?)\1\.", said):
        said = f"{unknown[0]}{_command(unknown[2], below, context.parent is None)}"
    elif below and said.startswith("Missing command"):
        return f"{command} needs one of: {', '.join(below)}. See {command} --help."
    elif said.startswith("Missing argument") and context is not None:
        example = next((line.strip() for line in (context.command.help or "").splitlines() if line.strip().startswith(f"{command} ")), None)
        said = f"{said.rstrip('.')}.{f' As in: {example}.' if example else ''}"
    return f"{said} See {command} --help."


def _option(error: Any, below: dict[str, Any]) -> str:
    """Which option was meant: the nearest of the command's, or where it belongs if only the commands below have it."""
    owners = [name for name, command in below.items() if any(error.option_name in parameter.opts for parameter in command.params)]
    if owners:
        return f" Options of a command stand behind its name: melcli {'transcribe' if 'transcribe' in owners else owners[0]} {error.option_name}."
    there = [] if error.ctx is None else [name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts if "-" in name[:1]]
    return nearest(error.option_name, there)


def _command(typed: str, below: dict[str, Any], first: bool) -> str:
    """Which command was meant: the nearest, the one that other programs call so, or, where a file was given, the one that hears it."""
    if first and typed in OTHER_WORDS:
        return f" Did you mean '{OTHER_WORDS[typed]}'?"
    if first and Path(typed).exists():
        return f" What is said in a recording: melcli transcribe {shlex.quote(typed)}."
    return nearest(typed, below)
