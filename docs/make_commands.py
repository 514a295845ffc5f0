"""Writes docs/commands.md, the reference of all commands, out of the app itself: `python docs/make_commands.py`. A test compares the two."""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from melcli import cli

PAGE = Path(__file__).with_name("commands.md")
HEAD = """\
# All commands

Made from the app by `python docs/make_commands.py`; `melcli COMMAND --help` says the same. Results go to stdout, everything else to stderr.
The exit code is 0 when all was done, 1 when some inputs failed (the rest is done, and a list says which), 2 for a mistake in the command or in a
configuration, 130 and 143 when it was interrupted, by Ctrl-C and by SIGTERM. `melcli --version` prints versions;
`melcli --install-completion` lets Tab complete commands, options and names.
"""
COMMON = ("device", "dtype", "offline", "quiet", "verbose")
"""Options that most commands share, in a table of their own."""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "\n".join(_common())]
    parts += ["\n".join(_command(name, callback)) for name, callback in commands(cli.app, "melcli")]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def commands(app: typer.Typer, prefix: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command with its whole name, in the order of --help."""
    for info in app.registered_commands:
        assert info.callback is not None
        yield f"{prefix} {info.name or info.callback.__name__.replace('_', '-')}", info.callback
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from commands(group.typer_instance, f"{prefix} {group.name}")


def _command(name: str, callback: Callable[..., Any]) -> Iterator[str]:
    said, examples = _help(callback)
    yield f"## {name}\n"
    yield f"{said}\n"
    if examples:
        yield "```bash\n" + "\n".join(examples) + "\n```\n"
    given = list(parameters(callback))
    arguments = [row for row in given if isinstance(row[1], ArgumentInfo)]
    common = dict(_shared())
    shared = [row for row in given if common.get(row[0]) == row[1].help]
    options = [row for row in given if isinstance(row[1], OptionInfo) and row not in shared]
    if arguments or options:
        yield "| | |\n| --- | --- |"
        yield from (_row(*row) for row in (*arguments, *options))
    if shared:
        also = ", ".join(f"`{_flags(name, info)[0]}`" for name, info, *_ in shared)
        yield f"\n{'Also' if arguments or options else 'Takes'} {also} ([above](#options-that-most-commands-have))."


def _common() -> Iterator[str]:
    yield "## Options that most commands have\n\n| | |\n| --- | --- |"
    yield from (_row(*row) for row in parameters(_most()) if row[0] in COMMON)


def _shared() -> Iterator[tuple[str, str | None]]:
    """Name and help of the options that most commands have; one of the same name that means something else is not among them."""
    yield from ((name, info.help) for name, info, *_ in parameters(_most()) if name in COMMON)


def _most() -> Callable[..., Any]:
    """A command that has all of these."""
    return next(callback for name, callback in commands(cli.app, "melcli") if name == "melcli transcribe")


def parameters(callback: Callable[..., Any]) -> Iterator[tuple[str, OptionInfo | ArgumentInfo, Any, Any]]:
    """Name, what Typer was told, type and default of each parameter of a command."""
    for name, parameter in inspect.signature(callback, eval_str=True).parameters.items():
        told = [info for info in getattr(parameter.annotation, "__metadata__", ()) if isinstance(info, OptionInfo | ArgumentInfo)]
        if told:
            yield name, told[0], get_args(parameter.annotation)[0], parameter.default


def _row(name: str, info: OptionInfo | ArgumentInfo, hint: Any, default: Any) -> str:
    said = " ".join((info.help or "").split()).replace("|", "\\|")
    choices = _choices(hint)
    if choices:
        said += f" One of `{'`, `'.join(choices)}`."
    flags = _flags(name, info)
    two_ways = isinstance(default, bool) and any(flag.startswith("--no-") for flag in flags)
    if two_ways or default not in (None, False, inspect.Parameter.empty):
        said += "" if "[default" in said else f" Default: `{flags[not default] if isinstance(default, bool) else default}`."
    said = re.sub(r"\s*\[default(.*?)\]", r" Default\1.", said)
    return f"| {_written(name, info, hint)} | {said} |"


def _written(name: str, info: OptionInfo | ArgumentInfo, hint: Any = None) -> str:
    """How a parameter is written in a command line."""
    if isinstance(info, ArgumentInfo):
        return f"`{info.metavar or name.upper()}`"
    bare = {part for part in _parts(hint) if part is not type(None)}
    value = "" if bare <= {bool} else f" {_value(info, bare, hint)}"
    return ", ".join(f"`{flag}{value}`".replace("|", "\\|") for flag in _flags(name, info))


def _flags(name: str, info: OptionInfo | ArgumentInfo) -> list[str]:
    """--out and -o. Inside Annotated Typer keeps the first of them where a default would be."""
    given = [flag for flag in (info.default, *(info.param_decls or ())) if isinstance(flag, str) and flag.startswith("-")]
    return [flag for part in given or [f"--{name.replace('_', '-')}"] for flag in part.split("/")]


def _value(info: OptionInfo, bare: set[Any], hint: Any) -> str:
    if info.metavar:
        return info.metavar
    if _choices(hint):
        return "NAME"
    kinds = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT"}
    return next((word for kind, word in kinds.items() if kind in bare), "VALUE")


def _parts(hint: Any) -> list[Any]:
    """The plain types in a hint: str and NoneType of `list[str] | None`."""
    if get_origin(hint) in (Union, types.UnionType, list, tuple):
        return [part for inner in get_args(hint) for part in _parts(inner)]
    return [hint]


def _choices(hint: Any) -> list[str]:
    return [str(choice) for part in _parts(hint) if get_origin(part) is Literal for choice in get_args(part)]


def _help(callback: Callable[..., Any]) -> tuple[str, list[str]]:
    """The text of a command's docstring, and its examples."""
    text = inspect.cleandoc(callback.__doc__ or "").replace("\f", "")
    said, _, examples = text.partition("\b\n")
    lines = [line.strip() for line in textwrap.dedent(examples).splitlines()]
    return said.strip().replace("|", "\\|"), [line for line in lines if line]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
