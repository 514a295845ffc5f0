"""A picture of a sweep: rates over the values of its first axis, a panel an evaluation set, a line (or group of bars) a combination of the rest."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from melcli import console
from melcli.sweeping.table import SEED, Outcome, sets
from melcli.training import measures


def plot_sweep(found: Sequence[Outcome], path: Path) -> None:
    """Draw the members that are done: every seed a point, their mean a line where the values are numbers, else a bar."""
    done = [one for one in found if one.state == "done" and one.rates]
    if not done:
        return
    if importlib.util.find_spec("matplotlib") is None:
        console.note("no sweep.png: it needs matplotlib, pip install 'melcli[plot]'")
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = [axis for axis in found[0].member.values if axis != SEED] or [SEED]
    across, rest = axes[0], axes[1:]
    values = list(dict.fromkeys(one.member.values[across] for one in found))
    numbers = [_number(value) for value in values]
    places = dict(zip(values, numbers if None not in numbers else range(len(values)), strict=True))
    series = list(dict.fromkeys(tuple(one.member.values[axis] for axis in rest) for one in found))
    names = sets(done)
    figure = Figure(figsize=(1.5 + 4.5 * len(names), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for number, key in enumerate(series):
            ours = [one for one in done if tuple(one.member.values[a] for a in rest) == key and name in one.rates]
            means = {v: [one.rates[name] for one in ours if one.member.values[across] == v] for v in values}
            means = {v: sum(rates) / len(rates) for v, rates in means.items() if rates}
            colour, label = f"C{number % 10}", ", ".join(key)
            if None in numbers:
                width = 0.8 / len(series)
                shift = (number - (len(series) - 1) / 2) * width
                axis.bar([places[v] + shift for v in means], list(means.values()), width, color=colour, alpha=0.5, label=label)
            else:
                shift = 0.0
                points = sorted((places[v], mean) for v, mean in means.items())
                axis.plot([x for x, _ in points], [y for _, y in points], color=colour, label=label)
            dots = [(places[one.member.values[across]] + shift, one.rates[name]) for one in ours]
            axis.scatter([x for x, _ in dots], [y for _, y in dots], color=colour, s=14, zorder=3)
        if None in numbers:
            axis.set_xticks(range(len(values)), values, rotation=20 if max(map(len, values)) > 8 else 0)
        elif min(places.values()) > 0 and max(places.values()) / min(places.values()) >= 8:
            axis.set_xscale("log")
            axis.set_xticks(list(places.values()), values, minor=False)
            axis.minorticks_off()
        source, measure, unit = measures.split(name)
        axis.set_title(source, fontsize=9, parse_math=False)
        axis.set_xlabel(across)
        axis.set_ylabel(f"{measure} {unit}")
        axis.set_ylim(bottom=0)
    if rest:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, title=", ".join(rest), fontsize=8, loc="outside right upper")
    figure.savefig(path, dpi=120)


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
