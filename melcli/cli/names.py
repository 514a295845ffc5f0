"""`melcli models` and `melcli recipes`: the registry on the command line. Nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from melcli import console
from melcli.errors import UsageError

models_app = typer.Typer(
    help="What has a name here: models, and with --kind inputs, mel presets, corpora and the rest.",
    short_help="List and show models, and all else that has a name.",
    rich_markup_mode=None,
)
recipes_app = typer.Typer(help="The recipes that ship with melcli.", rich_markup_mode=None)

Kind = Annotated[str, typer.Option(help="What to look at instead of models: speech-input, mel, task, corpus, protocol, ...")]


@models_app.command("ls")
def models_ls(kind: Kind = "model") -> None:
    """List the names of a kind with a line on each."""
    from melcli import registry

    rows = [(entry.name, entry.summary, entry.licence) for entry in registry.entries(kind)]
    console.table((kind, "what it is", "licence"), rows, stdout=True)


@models_app.command("show")
def models_show(name: Annotated[str, typer.Argument(help="A name, or a model's folder.")], kind: Kind = "model") -> None:
    """Say all there is to know about one name without loading it."""
    from melcli import registry
    from melcli.describe import describe

    if kind == "model" and os.path.isdir(name):
        rows = describe(Path(name))
    else:
        entry = registry.get(kind, name)
        rows = [("name", entry.name), ("kind", entry.kind), ("what it is", entry.summary), ("target", entry.target)]
        rows += [(label, value) for label, value in (("licence", entry.licence), ("sha256", entry.sha256)) if value]
        rows += describe(entry.path()) if kind == "model" else []
    console.table(("property", "value"), rows, stdout=True)


@recipes_app.command("ls")
def recipes_ls() -> None:
    """List the recipes with a line on each."""
    models_ls("recipe")


@recipes_app.command("show")
def recipes_show(name: Annotated[str, typer.Argument(help="A recipe's name.")]) -> None:
    """Print a recipe as it is written."""
    from melcli import registry

    print(registry.get("recipe", name).path().read_text(encoding="utf-8"), end="")


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="A recipe's name.")],
    to: Annotated[Path | None, typer.Argument(help="File or folder; the default is NAME.yaml here.")] = None,
) -> None:
    """Copy a recipe to change it. A file that exists is never overwritten."""
    from melcli import registry

    text = registry.get("recipe", name).path().read_text(encoding="utf-8")
    file = f"{name.rpartition('/')[2]}.yaml"
    target = Path(file) if to is None else to / file if to.is_dir() else to
    if target.exists():
        raise UsageError(f"{target} exists already; give another name.")
    target.write_text(text, encoding="utf-8")
    print(target)
