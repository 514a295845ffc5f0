"""What Tab offers: names out of the registry, and the shell's own files where a path belongs. Nothing here imports torch."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import typer
from typer.models import ParameterInfo

from melcli import registry

KIND_OF = {
    "model": "model",
    "start": "model",
    "check_with": "model",
    "recogniser": "recogniser",
    "recipe": "recipe",
    "sets": "score-set",
    "manifest": "corpus",
    "source": "corpus",
    "sources": "corpus",
    "mel": "mel",
    "vocoder": "vocoder",
    "protocol": "protocol",
}
"""Parameter, as the commands' functions call it: the kind whose names it takes."""

WIDEST = 72  # letters of a summary: Typer breaks lines at 80, and a shell takes the second for another name


def install(app: typer.Typer) -> None:
    """Say of every parameter of an app which values there are. Only a shell that asks needs this, so only then it is done.

    Typer answers for a parameter of type Path with what is typed already, which keeps the shell from offering files; an empty list lets it.
    """
    for group in app.registered_groups:
        install(group.typer_instance)
    for command in app.registered_commands:
        signature = inspect.signature(command.callback, eval_str=True)
        for name, parameter in signature.parameters.items():
            for info in getattr(parameter.annotation, "__metadata__", ()):
                if isinstance(info, ParameterInfo) and info.autocompletion is None:
                    info.autocompletion = _completer(name, parameter.annotation, command.callback.__name__)
        command.callback.__signature__ = signature  # evaluated once: another evaluation would make new parameters


def _completer(parameter: str, hint: Any, command: str) -> Callable[..., Iterable[tuple[str, str]]] | None:
    if parameter == "kind":
        return lambda incomplete: _beginning([(kind, "") for kind in registry.KINDS], incomplete)
    if parameter == "name" and command == "models_show":
        return _of_the_kind_given
    kind = "recipe" if parameter == "name" else KIND_OF.get(parameter)
    if kind is not None:
        return lambda incomplete: _names(kind, incomplete)
    return (lambda incomplete: []) if Path in _types(hint) else None


def _of_the_kind_given(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    kind = ctx.params.get("kind")
    return _names(kind if kind in registry.KINDS else "model", incomplete)


def _names(kind: str, typed: str) -> list[tuple[str, str]]:
    return _beginning([(entry.name, entry.summary) for entry in registry.entries(kind)], typed)


def _beginning(names: Iterable[tuple[str, str]], typed: str) -> list[tuple[str, str]]:
    return [(name, textwrap.shorten(summary, WIDEST, placeholder=" …")) for name, summary in names if name.startswith(typed)]


def _types(hint: Any) -> set[Any]:
    """A type hint and all that it is made of: Path of `Annotated[list[Path] | None, ...]`."""
    return {hint}.union(*(_types(part) for part in get_args(hint) if isinstance(part, type) or get_args(part)))
