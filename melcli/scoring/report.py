"""A report of scored runs in a folder: report.html to look at and listen to, report.md to paste, summary.json to compute with.

The page needs nothing but itself: styles, script, plots and recordings are inside, and its content policy forbids every request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melcli.files import write_text
from melcli.scoring.clips import as_data_address, read_clip
from melcli.scoring.diff import lines, pieces
from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run
from melcli.scoring.summary import summarise

CLIP_SECONDS = 30
CLIP_BYTES = 6_000_000  # of all clips of a page, as they are written
MARKDOWN_WIDTH = 100


def write(folder: Path, runs: Sequence[Run], protocol: Protocol) -> list[Path]:
    """Write the three files, making the folder, and return their paths. Raises WriteError."""
    summary = summarise(runs, protocol)
    texts = {
        "summary.json": json.dumps(summary, ensure_ascii=False, indent=1) + "\n",
        "report.md": markdown(summary),
        "report.html": page(summary, runs),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def page(summary: dict[str, Any], runs: Sequence[Run]) -> str:
    """report.html of what `summarise` returns of runs. Every text in it is escaped."""
    clips = _clips(summary["worst"], runs)
    return _templates(autoescape=True).get_template("report.html").render(summary=summary, clips=clips, lists=_lists(summary))


def markdown(summary: dict[str, Any]) -> str:
    """report.md of what `summarise` returns."""
    diffs = [[_plain_diff(reading["pairs"]) for reading in one["readings"]] for one in summary["worst"]]
    return _templates(autoescape=False).get_template("report.md").render(summary=summary, diffs=diffs, lists=_lists(summary))


def _templates(autoescape: bool) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("melcli.scoring", "templates")
    found = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"number": _number, "interval": _interval, "pieces": pieces, "cell": _cell, "scale": _scale}
    return found


def _number(value: float | None, places: int = 2) -> str:
    """1,234.50, or a dash for what is not known."""
    return "–" if value is None else f"{value:,.{places}f}"


def _interval(value: Sequence[float] | None) -> str:
    return "" if value is None else f"{value[0]:.2f} to {value[1]:.2f}"


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table: no sign in it means anything."""
    text = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\|`*_[]<>#~" else c for c in text)


def _scale(rows: Sequence[dict[str, Any]]) -> float:
    """The value at the end of a chart's bars: the largest rate, or the end of its interval where that is not much longer."""
    tops = [row["wer"] for row in rows if row["wer"] is not None]
    ends = [row["wer_interval"][1] for row in rows if row["wer_interval"]]
    return max(1.0, min(max([*tops, *ends], default=1.0), 1.5 * max(tops, default=1.0)))


def _lists(summary: dict[str, Any]) -> dict[str, Any]:
    """The charts that both pages show, with a heading and an explanation each; those nothing is known for are left out."""
    charts = {
        "duration": ("Duration", "seconds of audio"),
        "speaking_rate": ("Speaking rate", "reference words per second, pauses included"),
        "snr": ("Noise", "estimated signal-to-noise ratio in dB; less is noisier"),
    }
    found = {}
    for name, (title, unit) in charts.items():
        labels = list(dict.fromkeys(b["label"] for system in summary["systems"] for b in system["bins"][name]))
        if labels:
            of_label = [{b["label"]: b for b in system["bins"][name]} for system in summary["systems"]]
            labels.sort(key=_low)
            found[name] = {"title": title, "unit": unit, "rows": [(label, [bins.get(label) for bins in of_label]) for label in labels]}
    return found


def _low(label: str) -> float:
    return float("-inf") if label.startswith("<") else float(label.replace("+", "").partition("-")[0])


def _clips(worst: Sequence[dict[str, Any]], runs: Sequence[Run]) -> list[str | None]:
    """The recording of each of the worst utterances as a data: address, as long as CLIP_BYTES allow."""
    found: list[str | None] = []
    used = 0
    for one in worst:
        run = next(run for run in runs if run.set_name == one["set"] and run.system == one["readings"][0]["system"])
        wave_S = read_clip(run, ResultRow(one["name"], one["duration"], None, "", ""))
        address = None if wave_S is None else as_data_address(wave_S, CLIP_SECONDS)
        if address is not None and used + len(address) > CLIP_BYTES:
            address = None
        used += len(address or "")
        found.append(address)
    return found


def _plain_diff(pairs: Sequence[Sequence[str | None]]) -> str:
    """The three lines a row of words, without colour."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines(pieces([(pair[0], pair[1]) for pair in pairs]), MARKDOWN_WIDTH))
