"""Tables: whole on any terminal, a line a row elsewhere."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios

import pytest

from melcli import console

COLUMNS = ["model", "set", *(f"measure {i}" for i in range(10))]
ROWS = [[name, "digits:test", *(f"{i}.25" for i in range(10))] for name in ("recordings", "runs/digits-spectron")]


def on_terminal(columns: int, rows: list[list[str]]) -> list[str]:
    """What a terminal of so many columns shows of a table."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(theirs, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.delenv("COLUMNS", raising=False)
        console.table(COLUMNS, rows, stdout=True)
        stream.flush()
        shown = os.read(mine, 100_000).decode()
    os.close(mine)
    return [line.rstrip() for line in re.sub(r"\x1b\[\d*m", "", shown).splitlines()]


def test_a_table_that_is_too_wide_is_turned() -> None:
    shown = on_terminal(80, ROWS)
    assert len(shown) == len(COLUMNS) and all(len(line) <= 80 for line in shown)
    assert shown[1].split() == ["set", "digits:test", "digits:test"] and shown[-1].split() == ["measure", "9", "9.25", "9.25"]


def test_a_row_is_a_line_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(on_terminal(200, ROWS)) == 3
    assert len(on_terminal(80, ROWS * 4)) > 3  # of many rows none would find its place beside the others
    console.table(COLUMNS, ROWS, stdout=True)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_of_a_long_message_beginning_and_remedy_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("notes.yaml: model_type " + "x" * 100_000 + "\n is unknown; valid: llama")
    said = capsys.readouterr().err.rstrip("\n")
    assert len(said) <= console.MOST + len("error: ")
    assert said.startswith("error: notes.yaml: model_type xxx") and said.endswith("xxx is unknown; valid: llama")
    assert console.one_line("y" * console.MOST) == "y" * console.MOST
