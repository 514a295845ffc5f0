"""What came out of a sweep: sweep.md, sweep.csv and sweep.json in its folder, and means over seeds."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melcli import config
from melcli.errors import ConfigError
from melcli.files import write_text
from melcli.recipe import TRAINING, Recipe, digest
from melcli.sweep import Member
from melcli.training import measures
from melcli.untrusted import parse_json

SEED = "seed"  # the axis over which means are taken
MEASURES = ("steps", "tokens", "seconds", "tokens_per_second", "parameters", "trained_parameters")


@dataclass(frozen=True)
class Outcome:
    """How far a member is. state: done, begun, new, failed, or other for a folder that holds a training by another recipe.

    rates: by evaluation set, whose name has its measure (training/measures.py).
    took: steps, tokens, seconds, parameters; both only of a member that is done.
    """

    member: Member
    state: str
    rates: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def status(self) -> str:
        """The state in words."""
        return f"failed: {self.error}" if self.error else {"new": "to do"}.get(self.state, self.state)

    def as_dict(self) -> dict[str, Any]:
        """What sweep.json says of a member."""
        return {
            "label": self.member.label,
            "values": self.member.values,
            "state": self.state,
            "error": self.error,
            "rates": self.rates,
            **{name: self.took.get(name) for name in MEASURES},
            "digest": digest(self.member.recipe),
        }


def outcome(member: Member, folder: Path, error: str | None = None) -> Outcome:
    """What a member's folder says. error: why its training failed just now."""
    took = _json(folder / "model" / TRAINING)
    wanted = digest(member.recipe)
    if took and took["digest"] == wanted and took["steps"] >= took["of"]:
        took["tokens_per_second"] = round(took["tokens"] / took["seconds"], 1) if took["seconds"] else None
        return Outcome(member, "done", _json(folder / "model" / "evaluation.json") or {}, took)
    begun = took is not None or (folder / "checkpoints").exists()
    if begun and (took["digest"] if took else _recipe_digest(folder / "recipe.yaml")) != wanted:
        return Outcome(member, "other", error=error)
    return Outcome(member, "failed" if error else "begun" if begun else "new", error=error)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _recipe_digest(path: Path) -> str | None:
    try:
        return digest(config.validate(Recipe, config.load_tree(path)))
    except ConfigError:
        return None


def write_tables(members: Sequence[Member], out: Path, failures: Mapping[str, str], *, draw: bool = False) -> list[Outcome]:
    """Read what the members' folders hold and write the tables; with `draw` sweep.png too, where matplotlib is installed."""
    found = [outcome(member, out / member.label, failures.get(member.label)) for member in members]
    means = summary(found)
    write_text(out / "sweep.json", json.dumps({"members": [one.as_dict() for one in found], "means": means}, indent=2) + "\n")
    columns, rows = table(found)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(out / "sweep.csv", text.getvalue())
    parts = [markdown(*readable(columns, rows))]
    if means:
        parts.append(f"Over seeds, mean ± standard deviation of a sample:\n\n{markdown(*mean_table(means))}")
    write_text(out / "sweep.md", "\n\n".join(parts) + "\n")
    if draw:
        from melcli.sweeping.plot import plot_sweep

        plot_sweep(found, out / "sweep.png")
    return found


def sets(found: Sequence[Outcome]) -> list[str]:
    """The evaluation sets' names, in the recipes' order."""
    recipes = [one.member.recipe for one in found]
    named = (measures.named(e.source, e.task or r.data.task, r.model.speech_output is not None) for r in recipes for e in r.data.eval)
    return list(dict.fromkeys(name for names in named for name in names))


def _heading(name: str) -> str:
    """The column of an evaluation set: its measure and its source."""
    source, measure, unit = measures.split(name)
    return f"{measure} {source}" if unit == "%" else f"{measure} {unit} {source}"


def table(found: Sequence[Outcome]) -> tuple[list[str], list[list[Any]]]:
    """A row a member: its values, its state, its rates, what it took, the digest of its recipe; None where it is not known."""
    names = sets(found)
    columns = [*found[0].member.values, "state", *(_heading(name) for name in names), *MEASURES, "recipe"]
    rows = [
        [
            *one.member.values.values(),
            one.status,
            *(one.rates.get(name) for name in names),
            *(one.took.get(name) for name in MEASURES),
            digest(one.member.recipe),
        ]
        for one in found
    ]
    return columns, rows


def readable(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[list[str], list[list[str]]]:
    """The same for people: thousands set apart, rates with two places."""

    def cell(column: str, value: Any) -> str:
        if value is None:
            return ""
        if column == "seconds":
            return f"{value:,.1f}"
        if column in MEASURES:
            return f"{value:,.0f}"
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    return [name.replace("_", " ") for name in columns], [[cell(c, v) for c, v in zip(columns, row, strict=True)] for row in rows]


def summary(found: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Mean and standard deviation of the rates over seeds, for each combination of the other values; empty where no seed is swept."""
    if not found or SEED not in found[0].member.values:
        return []
    groups: dict[tuple[tuple[str, str], ...], list[Outcome]] = {}
    for one in found:
        groups.setdefault(tuple((k, v) for k, v in one.member.values.items() if k != SEED), []).append(one)
    means = []
    for values, ones in groups.items():
        done = [one for one in ones if one.state == "done"]
        rates = {name: [one.rates[name] for one in done if name in one.rates] for name in sets(found)}
        spread = {
            name: {"mean": round(statistics.fmean(r), 4), "sd": round(statistics.stdev(r), 4) if len(r) > 1 else None}
            for name, r in rates.items()
            if r
        }
        means.append({"values": dict(values), "seeds": len(done), "rates": spread})
    return means


def mean_table(means: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """`summary` as a table."""
    names = list(dict.fromkeys(name for one in means for name in one["rates"]))

    def cell(rate: Mapping[str, float | None] | None) -> str:
        return "" if rate is None else f"{rate['mean']:.2f}" + ("" if rate["sd"] is None else f" ± {rate['sd']:.2f}")

    rows = [[*one["values"].values(), str(one["seeds"]), *(cell(one["rates"].get(name)) for name in names)] for one in means]
    return [*means[0]["values"], "seeds", *(_heading(name) for name in names)], rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
