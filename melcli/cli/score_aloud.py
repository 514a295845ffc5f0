"""What the tasks of `melcli score` share in which speech is made or replied to (tts, answer, continue): options, and how it is shown.

torch is imported inside.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from melcli import console
from melcli.errors import UsageError

if TYPE_CHECKING:
    from melcli.models.voiceprint import Voiceprint
    from melcli.scoring.protocol import Protocol
    from melcli.scoring.tally import Report

RECOGNISER = "pocketsphinx"
PROTOCOL = "spoken"  # that is counted by unless told otherwise

Task = Annotated[
    Literal["asr", "tts", "answer", "continue"] | None,
    typer.Option(
        help="asr: how well a model hears; tts: how well a voice speaks; answer: how many questions a model answers; continue: how well it says on "
        "what somebody began.  [default: that of the sets, else asr]",
        show_default=False,
    ),
]
Spoken = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="tts, answer: speech that is there already, a folder or manifest, called by the ids of the texts or questions; may repeat with tts.",
    ),
]
Recogniser = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help=f"Who listens to speech that is made, by name, folder or hub id; with answer only where it is given.  [default: {RECOGNISER}]",
        show_default=False,
    ),
]
Similarity = Annotated[
    str | None, typer.Option(metavar="MODEL", help="tts, continue: also compare voices by this speaker model, such as microsoft/wavlm-base-plus-sv.")
]
Vocoder = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What turns a model's spectrograms into sound.  [default: auto]", show_default=False),
]
Temperature = Annotated[
    float | None, typer.Option(min=0, max=10, help="tts, answer, continue: of a model's latents.  [default: its own]", show_default=False)
]
Seed = Annotated[int | None, typer.Option(help="tts, answer, continue: what prompts and speech are drawn from.  [default: 0]", show_default=False)]


def refuse(task: str, given: dict[str, tuple[Any, tuple[str, ...]]]) -> None:
    """Raises UsageError where an option was given that is of other tasks. given: by flag, what it was given and the tasks that it is for."""
    wrong = {flag: tasks for flag, (value, tasks) in given.items() if value and task not in tasks}
    if wrong:
        parts = [f"{flag} is for --task {_listed(tasks)}" for flag, tasks in wrong.items()]
        raise UsageError(f"{'; '.join(parts)}; this is --task {task}.")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was asked for; None where an option was not given. A folder in place of --csv's file is refused."""

    models: Sequence[str]
    spoken: Sequence[str]
    hypotheses: Sequence[Path]
    recogniser: str | None
    similarity: str | None
    vocoder: str | None
    temperature: float | None
    seed: int | None
    protocol: str | None
    limit: int | None
    output: Path | None
    overwrite: bool
    csv: Path | None
    report: Path | None
    worst: int
    format: str
    device: str
    dtype: str
    root: Path | None
    offline: bool

    def __post_init__(self) -> None:
        if self.csv is not None and self.csv.is_dir():
            raise UsageError(f"--csv {self.csv}: is a folder, and --csv takes a file.")

    @property
    def machine(self) -> dict[str, Any]:
        """Where and how models compute."""
        return {"device": self.device, "dtype": self.dtype, "offline": self.offline}

    @property
    def voicing(self) -> dict[str, Any]:
        """How a model speaks."""
        return {"vocoder": self.vocoder or "auto", "temperature": self.temperature, "seed": self.seed or 0}

    @property
    def where(self) -> dict[str, Any]:
        """Where sources are looked up."""
        return {"root": self.root, "offline": self.offline}

    def rules(self, what: str) -> tuple[Protocol, str]:
        """The protocol to count by, and why; what: that it is the default for."""
        from melcli.score import choose_protocol

        protocol, why = choose_protocol(self.protocol or PROTOCOL, [])
        return protocol, why if self.protocol else why.replace("as asked", f"the default for {what}")

    def voiceprint(self) -> tuple[Voiceprint | None, dict[str, str]]:
        """What compares voices, and what it is; None where that is not asked for."""
        if self.similarity is None:
            return None, {}
        from melcli.models.voiceprint import Voiceprint

        found, about = Voiceprint.load(self.similarity, device=self.device, offline=self.offline)
        return found, {"similarity": about}


def show(
    asked: Asked, name: str, objects: Sequence[dict[str, Any]], head: Sequence[str], rows: Sequence[Sequence[str]], reports: Sequence[Report]
) -> None:
    """Print what was scored, and write it where that is asked for. name: of the JSON file in --report. objects: those of `-f json`."""
    from melcli.files import write_text
    from melcli.score.explain import explain, runs_of

    if asked.format == "json":
        print(json.dumps(objects if len(objects) > 1 else objects[0]))
    else:
        console.table(head, rows, stdout=True)
    if asked.csv is not None:
        file = io.StringIO()
        csv.writer(file, lineterminator="\n").writerows([head, *([["" if cell == "-" else cell for cell in row] for row in rows])])
        write_text(asked.csv, file.getvalue())
    if asked.report is not None:
        write_text(asked.report / f"{name}.json", json.dumps(objects, indent=1) + "\n")
    if asked.report is not None or asked.worst:
        explain(runs_of(reports), reports[0].protocol, asked.report, asked.worst, stdout=asked.format == "table")
