"""`melcli export`: a model as others want it, read again and compared before it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from transformers.utils import logging

from melcli import __version__, console, hub
from melcli.errors import UsageError
from melcli.exporting import place, probes, source
from melcli.exporting.probes import Compared
from melcli.exporting.source import Source


class Target(Protocol):
    """A module of melcli.exporting: `write` makes the folder, `check` reads it again and compares; both raise a MelcliError for what cannot be."""

    write: Callable[[Source, Path], None]
    check: Callable[[Source, Path], list[Compared]]


EIGHT_BITS = ("hf", "onnx")


@dataclass(frozen=True)
class Exported:
    """Where the export is, its size in bytes and what was compared.

    changed: how much of what the model wrote before its weights were changed it still writes, in words; "" where they were not or it cannot hear.
    url: of the commit on the hub, where it was pushed.
    """

    folder: Path
    size: int
    compared: list[Compared]
    changed: str = ""
    url: str | None = None


def export(
    model: str,
    out: Path,
    to: str = "hf",
    *,
    merge_lora: bool = False,
    average: int | None = None,
    int8: bool = False,
    push: str | None = None,
    offline: bool = False,
) -> Exported:
    """Write a model to a folder in another form.

    model: a name, folder (of a run, too) or hub id. to: the name of a `Target`. average: take the mean of a run's weights at its latest so many
    evaluations. merge_lora: add adapters to the weights. int8: matrices of eight bits. push: the repository on the hub that the folder goes to, made
    private where there is none.
    Nothing is there until it was read again and gave the same. Raises MelcliError, one line.
    """
    _check(to, int8, push, offline)
    logging.disable_progress_bar()  # of reading and writing files: our own lines say what goes on
    target: Target = import_module(f"melcli.exporting.{to}")
    place.check(out)
    read = source.read(model, offline=offline)
    if read.folder.resolve() == out.resolve():
        raise UsageError(f"-o {out}: is the model itself; give another folder")
    changed = _change(read, merge_lora, average, int8)
    facts = read.facts()
    changes = {"changed": "; ".join(read.changes)} if read.changes else {}
    console.decided({"model": f"{model}: {facts['parameters'] / 1e6:.1f} M parameters, {facts['dtype']}", "to": to, **changes})
    if changed:
        console.note(f"after these changes: {changed}")
    with place.building(out) as folder:
        target.write(read, folder)
        compared = [one.all_or_raise(to) for one in target.check(read, folder)]
        place.write_facts(folder, {"melcli": __version__, "target": to, **facts, "compared": [one.as_dict() for one in compared]})
    console.note(f"read again: {'; '.join(map(str, compared))}")
    url = None
    if push is not None:
        from melcli.exporting.push import push as upload

        url = upload(out, push)
    return Exported(out, place.size(out), compared, changed, url)


def _check(to: str, int8: bool, push: str | None, offline: bool) -> None:
    if int8 and to not in EIGHT_BITS:
        raise UsageError(f"--int8: is for --to {' and '.join(EIGHT_BITS)}; what reads a {to} export has formats of its own")
    if push is not None and (not hub.is_repository(push) or "@" in push):
        raise UsageError(f"--push {push}: is no repository; write OWNER/NAME")
    if push is not None and offline:
        raise UsageError("--push and --offline contradict each other.")


def _change(read: Source, merge_lora: bool, average: int | None, int8: bool) -> str:
    """Change the weights as asked; how much of what is heard stays the same, in words."""
    waves = probes.pieces(read.processor.spec.rate, read.model.config.max_seconds) if probes.hears(read.model) else []
    asked = merge_lora or average is not None or int8
    before = probes.tokens(read.model, read.processor, waves) if asked and waves else []
    if average is not None:
        source.average(read, average)
    if merge_lora:
        source.merge(read)
    if int8:
        source.pack(read)
    if asked:
        source.round_weights(read)
    return probes.agreement(before, probes.tokens(read.model, read.processor, waves)) if before else ""
