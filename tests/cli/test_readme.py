"""Every command line that README.md and the commands' own help show is one that melcli understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from melcli import cli

ROOT = Path(__file__).resolve().parents[2]
GROUP = typer.main.get_command(cli.app)


def shown() -> list[str]:
    texts = [(ROOT / "README.md").read_text(encoding="utf-8"), *(command.help or "" for command in GROUP.commands.values())]
    return sorted({line.partition("#")[0].strip() for text in texts for line in text.splitlines() if re.match(r"\s*melcli \w", line)})


@pytest.mark.parametrize("line", shown())
def test_it_parses(line: str) -> None:
    command, words = GROUP, shlex.split(line)[1:]
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, line
        command = command.commands[name]
    command.make_context(command.name, words)


def test_there_are_some() -> None:
    assert len(shown()) > 10
