"""What the user sees besides results: decisions, progress, tables and errors, all on stderr. Results belong to stdout and to the commands.

rich is imported when something is shown, so that importing this costs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL
MOST = 900  # characters of a message: what it quotes may be megabytes


def set_level(level: int) -> None:
    """QUIET shows errors only, VERBOSE adds what `detail` says."""
    global _level
    _level = level


def level() -> int:
    """The level that is set: QUIET, NORMAL or VERBOSE."""
    return _level


def decided(decisions: Mapping[str, str] | Iterable[tuple[str, str]], title: str = "") -> None:
    """Say once what was decided and why, a line each: `device  cpu: no accelerator found`."""
    rows = list(decisions.items() if isinstance(decisions, Mapping) else decisions)
    if _level < NORMAL or not rows:
        return
    if title:
        _line(f"{title}:")
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _line(f"  {name:<{width}}  {value}")


def note(message: str) -> None:
    """One line of progress; nothing when quiet."""
    if _level >= NORMAL:
        _line(message)


def detail(message: str) -> None:
    """One line for those who asked for more with -v."""
    if _level >= VERBOSE:
        _line(message)


def warn(message: str) -> None:
    """One line that is shown even when quiet: something may not be as the user thinks."""
    _line(f"warning: {one_line(message)}")


def error(message: str) -> None:
    """One line that says what is wrong. The exit code is the caller's."""
    _line(f"error: {one_line(message)}")


def one_line(message: str) -> str:
    """A message on one line, whatever names of files and pieces of them it quotes: no line breaks, nothing that a terminal would act on, and of more
    than MOST characters the middle left out."""
    text = " ".join(str(message).split())
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= MOST else f"{text[: MOST * 3 // 4]} … {text[-MOST // 4 + 3 :]}"


def failures(failed: Sequence[tuple[str, str]], total: int) -> None:
    """Which inputs failed and why, a line each: shown whatever the level, since the exit code is 1 because of it."""
    lines = [one_line(reason if reason.startswith(f"{name}:") else f"{name}: {reason}") for name, reason in failed]
    if lines and total == 1:
        error(lines[0])
    elif lines:
        _line(f"{len(lines)} of {total} failed:")
        for line in lines:
            _line(f"  {line}")


def histogram(title: str, labels: Sequence[str], counts: Sequence[int]) -> None:
    """Bars of text, a line a bin; bins with nothing in them at either end are left out."""
    filled = [position for position, count in enumerate(counts) if count]
    if _level < NORMAL or not filled:
        return
    shown = range(filled[0], filled[-1] + 1)
    widths = max(len(labels[i]) for i in shown), max(len(f"{counts[i]:,}") for i in shown)
    _line(title)
    for i in shown:
        _line(f"  {labels[i]:>{widths[0]}}  {counts[i]:>{widths[1]},}  {'#' * -(-40 * counts[i] // max(counts))}")


class Progress:
    """A bar on a terminal; elsewhere nothing but what the command says itself."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def expect(self, total: float) -> None:
        """Say how much there is to do, where it is known only now."""
        if self._bar is not None:
            self._bar.update(self._task, total=total)

    def advance(self, amount: float = 1, message: str | None = None) -> None:
        """Move on by `amount` of the total, and show `message` behind the bar."""
        if self._bar is not None:
            self._bar.update(self._task, advance=amount, **({} if message is None else {"message": message}))


@contextmanager
def progress(description: str, total: float | None) -> Iterator[Progress]:
    """A progress bar with time passed and time left; invisible when quiet and where stderr is not a terminal."""
    if _level < NORMAL or not sys.stderr.isatty():
        yield Progress(None, None)
        return
    from rich import progress as bars

    times = (bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    columns = ("{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), *times, "{task.fields[message]}")
    with bars.Progress(*columns, console=_console(sys.stderr), transient=True) as bar:
        yield Progress(bar, bar.add_task(description, total=total, message=""))


TURNED = 6  # rows of a table that may stand side by side


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, stdout: bool = False) -> None:
    """A table; `stdout` where it is the command's result. Columns of numbers are aligned to the right; nothing is cut off.

    A few rows that a terminal is too narrow for stand side by side, a line a column; off a terminal a row is a line.
    """
    if _level < NORMAL and not stdout:
        return
    rows = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    stream = sys.stdout if stdout else sys.stderr
    if stream.isatty() and 0 < len(rows) <= TURNED and _width([columns, *rows]) > width(stdout):
        first, *lines = zip(columns, *rows, strict=True)
        shown = _table(first, lines, title, turned=True)
    else:
        shown = _table(columns, rows, title)
    _console(stream, width(stdout) if stream.isatty() else None).print(shown)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None, turned: bool = False) -> RichTable:
    from rich.table import Table

    shown = Table(title=title, box=None, title_justify="left", pad_edge=False)
    for position, name in enumerate(columns):
        cells = [row[position] for row in rows if row[position]]
        numeric = (turned and position > 0) or (bool(cells) and all(map(_is_number, cells)))
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def _width(lines: Sequence[Sequence[str]]) -> int:
    """Of a table of these lines with two spaces between its columns."""
    from rich.cells import cell_len

    return sum(max(map(cell_len, cells)) + 2 for cells in zip(*lines, strict=True)) - 2


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").replace(",", "").lstrip("-").isdigit() or cell == "-"


STYLES = {"sub": "yellow", "del": "red", "ins": "cyan", "left out": "dim"}


def spans(title: str, lines: Iterable[Iterable[tuple[str, str]]], *, stdout: bool = False) -> None:
    """Lines of (text, kind), coloured by STYLES on a terminal; `stdout` where they are the command's result."""
    from rich.text import Text

    if _level < NORMAL and not stdout:
        return
    shown = _console(sys.stdout if stdout else sys.stderr)
    shown.print(Text(title, style="bold"))
    for line in lines:
        text = Text.assemble(*((part, STYLES.get(kind, "")) for part, kind in line))
        text.rstrip()
        shown.print(text, soft_wrap=True)


def width(stdout: bool) -> int:
    """Columns of the terminal, 100 where the stream is none."""
    stream = sys.stdout if stdout else sys.stderr
    if not stream.isatty():
        return 100
    told = os.environ.get("COLUMNS", "")
    return (int(told) if told.isdecimal() else 0) or os.get_terminal_size(stream.fileno()).columns or 100


def _line(text: str) -> None:
    """Plain text: a path or a message is never read as markup, never wrapped."""
    print(text, file=sys.stderr, flush=True)


def _console(stream: TextIO, columns: int | None = None) -> Console:
    from rich.console import Console

    # Off a terminal rich assumes 80 columns and would fold; with room for any table a row stays one line, for grep.
    return Console(file=stream, highlight=False, markup=False, width=columns if stream.isatty() else 1000)
