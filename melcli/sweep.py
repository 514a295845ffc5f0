"""Sweeps: the trainings that one recipe with a `sweep:` stands for, each an ordinary recipe with a readable label.

    sweep:
      grid: {seed: [1, 2, 3], train.lr: [1e-3, 3e-3]}       # dotted keys, the values each takes
      cases: {random: {}, text-lm: {model.init: runs/lm}}   # named sets of dotted keys; of several groups each stands in `axes` under its name

is twelve members: `text-lm,seed=1,lr=0.001` and so on. A value takes the place of all that the recipe had at its key, as on the command line.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melcli import config
from melcli.errors import ConfigError
from melcli.recipe import Recipe, SweepSection

LONGEST = 100  # characters of a label, which is a folder's name
CASE = "case"  # what the group is called that `cases` holds


@dataclass(frozen=True)
class Choice:
    """One value of an axis. name: in labels and tables; settings: dotted keys and their values; marks: where each is written."""

    name: str
    settings: dict[str, Any]
    marks: dict[str, str]


@dataclass(frozen=True)
class Member:
    """One training of a sweep. values: by axis, what labels and tables call them."""

    label: str
    values: dict[str, str]
    recipe: Recipe


def members(tree: config.Tree) -> list[Member]:
    """All trainings of a recipe that has a `sweep`, checked. Raises ConfigError with the place of what is wrong in any of them."""
    axes = _axes(tree)
    base = config.Tree({k: v for k, v in tree.data.items() if k != "sweep"}, {k: m for k, m in tree.marks.items() if k[:1] != ("sweep",)}, tree.name)
    short = _short(list(axes))
    found: dict[str, Member] = {}
    for chosen in itertools.product(*axes.values()):
        one = base
        for choice in chosen:
            for key, value in choice.settings.items():
                one = config.assign(one, key, value, choice.marks[key])
        values = {axis: choice.name for axis, choice in zip(axes, chosen, strict=True)}
        label = _label([name if axis == CASE else f"{short[axis]}={name}" for axis, name in values.items()])
        recipe = config.validate(Recipe, config.assign(one, "name", f"{one.data.get('name')}/{label}", tree.where(("name",))))
        found[label] = Member(label, values, recipe)
    return list(found.values())


def _axes(tree: config.Tree) -> dict[str, list[Choice]]:
    """The choices by axis: groups of cases first, then the grid. Raises ConfigError."""
    section = config.validate(Recipe, tree).sweep or SweepSection()
    groups = [(CASE, ("sweep", "cases"), section.cases)] if section.cases else []
    axes: dict[str, list[Choice]] = {}
    for axis, place, cases in (*groups, *((_word(axis), ("sweep", "axes", axis), cases) for axis, cases in section.axes.items())):
        if axis in axes or axis in section.grid or not cases:
            raise ConfigError(f"{tree.where(place)}: {'.'.join(place)} {'is called as another axis is' if cases else 'holds no cases'}.")
        names = zip(_unlike([_word(name) for name in cases]), cases.items(), strict=True)
        axes[axis] = [Choice(name, s or {}, {key: tree.where((*place, case, key)) for key in s or {}}) for name, (case, s) in names]
    for key, values in section.grid.items():
        mark = tree.where(("sweep", "grid", key))
        if not values:
            raise ConfigError(f"{mark}: sweep.grid.{key} holds no values.")
        if len(set(map(repr, values))) < len(values):
            raise ConfigError(f"{mark}: sweep.grid.{key} holds a value twice.")
        axes[key] = [Choice(name, {key: value}, {key: mark}) for name, value in zip(_unlike([_word(v) for v in values]), values, strict=True)]
    if not axes:
        raise ConfigError(f"{tree.where(('sweep',))}: sweep needs grid, cases or axes: dotted keys with lists of values, or named sets of them.")
    _check(axes, tree)
    return axes


def _check(axes: Mapping[str, list[Choice]], tree: config.Tree) -> None:
    """No two axes may set the same key, or one above it: which of them counted would depend on their order. Nor may the command line set it."""
    setters: dict[str, tuple[str, str]] = {}
    for axis, choices in axes.items():
        for key, mark in (pair for choice in choices for pair in choice.marks.items()):
            parts = tuple(key.split("."))
            if not all(parts) or parts[0] in ("sweep", "name"):
                raise ConfigError(f"{mark}: '{key}' cannot be swept; valid are the dotted keys of a recipe, such as train.lr.")
            for other, (theirs, place) in setters.items():
                if theirs != axis and (key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")):
                    raise ConfigError(f"{mark}: '{key}' is set at {place} too, where {theirs} is swept; join the two to one group of cases.")
            if given := next((m for k, m in tree.marks.items() if k[: len(parts)] == parts and m.startswith("setting ")), None):
                raise ConfigError(f"{given}: the recipe sweeps over '{key}'; set {'sweep.grid.' + key if axis == key else 'sweep'} to change that.")
            setters.setdefault(key, (axis, mark))


def _word(value: Any) -> str:
    """A value in few characters that may stand in a folder's name."""
    if isinstance(value, dict):
        text = "-".join(_word(v) for v in value.values())
    elif isinstance(value, list):
        text = "+".join(_word(v) for v in value)
    else:
        text = {None: "none", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else str(value)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-.") or "empty"


def _unlike(names: list[str]) -> list[str]:
    """Names that look alike are numbered."""
    return [f"{name}-{names[:i].count(name) + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _short(axes: list[str]) -> dict[str, str]:
    """Each axis by as much of the end of its dotted key as tells it from the others."""
    short = {}
    for axis in axes:
        parts = axis.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
        short[axis] = next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in axes) == 1), axis)
    return short


def _label(parts: list[str]) -> str:
    label = ",".join(parts)
    return label if len(label) <= LONGEST else f"{label[: LONGEST - 9]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
