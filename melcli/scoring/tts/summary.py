"""What a voice scored on a set, from its result rows: words, likeness, distortion, lengths, silences, and what went wrong.

Means over utterances have bootstrap intervals beside them, drawn as those of the WER are (scoring/bootstrap.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from melcli.scoring import bootstrap
from melcli.scoring.protocol import Protocol
from melcli.scoring.results import ResultRow
from melcli.scoring.run import Run
from melcli.scoring.tally import Report, cell
from melcli.scoring.tts.measures import length_ratio, looped, stopped_early

MEANS = ("sim_prompt", "sim_reference", "mcd")
COLUMNS = (
    "model",
    "set",
    "WER %",
    "95 %",
    "CER %",
    "words",
    "SIM prompt",
    "SIM ref",
    "MCD dB",
    "MOS",
    "length",
    "lead s",
    "tail s",
    "pause s",
    "silence %",
    "loops",
    "cut off",
    "utterances",
    "audio s",
    "RTFx",
)


def as_dict(report: Report) -> dict[str, Any]:
    """The object of `score --task tts -f json`: that of any score, with `speech` in each set."""
    found = report.as_dict()
    for name, run in report.sets.items():
        found["sets"][name]["speech"] = of_run(run, report.protocol)
    return found


def of_run(run: Run, protocol: Protocol) -> dict[str, Any]:
    """The measures of a set. What no utterance has is null.

    length: median over utterances of the length of speech by the expected one, and `against` what that is. lead, tail: median seconds. longest_pause:
    of the whole set. silence: share of all audio, in percent. loops, cut_off: utterances; their rates in percent.
    """
    rows = [row for row in run.rows if row.speech is not None]
    speeches = [row.speech or {} for row in rows]
    drawn = bootstrap.blocks(run.rows)
    found: dict[str, Any] = {"utterances": len(rows)}
    for name in MEANS:
        found[name], found[f"{name}_interval"] = _mean([(row.speech or {}).get(name) for row in run.rows], drawn)
    for name in sorted({name for speech in speeches for name in speech.get("mos", {})}):
        found.setdefault("mos", {})[name], _ = _mean([(row.speech or {}).get("mos", {}).get(name) for row in run.rows], drawn)
    found["length"] = _median([length_ratio(speech) for speech in speeches])
    found["against"] = " and ".join(sorted({speech["against"] for speech in speeches if "against" in speech})) or None
    found["characters_per_second"] = _rate(rows, lambda row, speech: (len(protocol.normalise(row.text)), speech.get("speech", 0.0)))
    found["lead"], found["tail"] = (_median([speech.get(key) for speech in speeches]) for key in ("lead", "tail"))
    found["longest_pause"] = max((speech["longest_pause"] for speech in speeches if "longest_pause" in speech), default=None)
    silent = _rate(rows, lambda row, speech: (speech.get("silence", 0.0) * (row.duration or 0.0), row.duration or 0.0))
    found["silence"] = None if silent is None else round(100 * silent, 2)
    loops = sum(looped(speech) for speech in speeches)
    cut = sum(stopped_early(row.speech or {}, protocol.align(row.text, row.pred_text)) for row in rows)
    for name, count in (("loops", loops), ("cut_off", cut)):
        found[name], found[f"{name}_rate"] = count, round(100 * count / len(rows), 2) if rows else None
    return found


def table(objects: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows that COLUMNS heads, of what `as_dict` gives: one a voice and set."""
    rows = []
    for one in objects:
        for name, s in one["sets"].items():
            speech = s["speech"]
            mos = None if "mos" not in speech else " ".join(f"{key} {value:.2f}" for key, value in speech["mos"].items())
            cells = [*(s[key] for key in ("wer", "wer_interval", "cer", "words")), speech["sim_prompt"], speech["sim_reference"], speech["mcd"]]
            cells += [mos, speech["length"]]
            cells += [speech[key] for key in ("lead", "tail", "longest_pause", "silence", "loops", "cut_off")]
            rows.append([one["model"] or "-", name, *map(cell, [*cells, s["utterances"], s["audio_seconds"], s["rtfx"]])])
    return rows


def to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """The rows of `table` as Markdown, without the columns that are empty."""
    kept = [i for i in range(len(COLUMNS)) if any(row[i] != "-" for row in rows)]
    lines = [[COLUMNS[i] for i in kept], ["---"] * len(kept), *([row[i].replace("|", "\\|") for i in kept] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _mean(values: Sequence[float | None], drawn: bootstrap.Blocks) -> tuple[float | None, list[float] | None]:
    """The mean over the utterances that have a value, and its interval; None where none has, or there is too little to draw from."""
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    mean = round(statistics.fmean(known), 3)
    if drawn.count < 2:
        return mean, None
    table_UK = np.array([(0.0, 0.0) if value is None else (value, 1.0) for value in values])
    sums_D, counts_D = bootstrap.draw_sums(table_UK, drawn).T
    between = bootstrap.interval(np.divide(sums_D, counts_D, out=np.full_like(sums_D, np.nan), where=counts_D > 0))
    return mean, None if between is None else [round(between.low, 3), round(between.high, 3)]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 3) if known else None


def _rate(rows: Sequence[ResultRow], pair: Callable[[ResultRow, Mapping[str, Any]], tuple[float, float]]) -> float | None:
    """The sum of the first by the sum of the second."""
    parts = [pair(row, row.speech or {}) for row in rows]
    below = sum(part[1] for part in parts)
    return round(sum(part[0] for part in parts) / below, 4) if below else None
