"""Everything that a report says, as plain data: what summary.json holds and what the pages are made from. Rates in percent, unknown values None."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from melcli.scoring import bins, bootstrap
from melcli.scoring.bootstrap import DRAWS, LEVEL, Interval
from melcli.scoring.breakdown import LONG_RUN, TOO_LONG, Aligned, Breakdown, align, breakdown
from melcli.scoring.clips import RATE, read_clip
from melcli.scoring.compare import compare, same_utterances
from melcli.scoring.protocol import Protocol
from melcli.scoring.run import Run, rtfx
from melcli.scoring.snr import estimate_snr

WORST = 20
TOP_WORDS = 25
MOST_READ = 1000  # utterances of a set whose recordings are read for the noise
STAMPED = ("melcli", "numpy", "torch", "transformers", "rapidfuzz", "kaldialign")

Decibels = dict[tuple[str, tuple[str, int]], float | None]


def summarise(runs: Sequence[Run], protocol: Protocol, worst_count: int = WORST) -> dict[str, Any]:
    """The plain data of a report of runs: of one or several systems, on one or several sets."""
    systems = list(dict.fromkeys(run.system for run in runs))
    decibels = _decibels(runs)
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": {"name": protocol.name, "version": protocol.version, "digest": protocol.digest},
        "versions": {name: _version(name) for name in STAMPED},
        "bootstrap": {"draws": DRAWS, "level": LEVEL},
        "hallucination": {"long_run_words": LONG_RUN, "too_long_times": TOO_LONG},
        "sets": list(dict.fromkeys(run.set_name for run in runs)),
        "systems": [_system(name, [run for run in runs if run.system == name], protocol, decibels) for name in systems],
        "comparisons": _comparisons(runs, systems, protocol),
        "worst": _worst(runs, protocol, decibels, worst_count),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _system(name: str, runs: Sequence[Run], protocol: Protocol, decibels: Decibels) -> dict[str, Any]:
    sets, draws, together = {}, [], Breakdown()
    for seed, run in enumerate(runs):
        drawn = bootstrap.blocks(run.rows)
        wer_D, cer_D = bootstrap.rates(run.counts, drawn) if drawn.count > 1 else (np.array([]), np.array([]))
        draws.append(bootstrap.rates(run.counts, drawn, seed=seed)[0] if seed and drawn.count > 1 else wer_D)  # the average's sets are drawn apart
        sets[run.set_name] = _set(run, bootstrap.interval(wer_D), bootstrap.interval(cer_D)) | {"unit": drawn.unit, "blocks": drawn.count}
        sets[run.set_name] |= _kinds(found := breakdown(run, protocol), run)
        together += found
    average_D = np.mean(draws, axis=0) if all(len(wer_D) for wer_D in draws) else np.array([])
    return {
        "name": name,
        "about": dict(runs[0].about),
        "sets": sets,
        "average": {
            "wer": protocol.average([run.total.wer for run in runs]),
            "wer_interval": _pair(bootstrap.interval(average_D)),
            "rtfx": _round(rtfx(runs)),
        },
        "substitutions": [[*words, count] for words, count in together.substitutions.most_common(TOP_WORDS)],
        "deletions": [[word, count] for word, count in together.deletions.most_common(TOP_WORDS)],
        "insertions": [[word, count] for word, count in together.insertions.most_common(TOP_WORDS)],
        "bins": {
            "duration": _bins(bins.by_duration(runs)),
            "speaking_rate": _bins(bins.by_speaking_rate(runs)),
            "snr": _bins(bins.by_snr(runs, [[decibels.get((run.set_name, key)) for key in run.keys] for run in runs])),
        },
    }


def _set(run: Run, wer: Interval | None, cer: Interval | None) -> dict[str, Any]:
    c = run.total
    return {
        "wer": _round(c.wer),
        "wer_interval": _pair(wer),
        "cer": _round(c.cer),
        "cer_interval": _pair(cer),
        "sub": c.sub,
        "del": c.del_,
        "ins": c.ins,
        "words": c.words,
        "utterances": c.utterances,
        "left_out": run.left_out,
        "audio_seconds": _round(run.seconds),
        "rtfx": _round(rtfx([run])),
    }


def _kinds(found: Breakdown, run: Run) -> dict[str, Any]:
    words = run.total.words
    return {
        "deletion_rate": _round(100 * run.total.del_ / words if words else None),
        "insertion_rate": _round(100 * run.total.ins / words if words else None),
        "hallucination_rate": _round(found.hallucination_rate),
        "hallucinated": {"utterances": found.hallucinated, "silent": found.silent, "runs": found.runs, "too_long": found.too_long},
        "dropped": found.dropped,
        "empty": found.empty,
        "finish_reasons": dict(found.finish_reasons.most_common()),
    }


def _bins(found: Sequence[bins.Bin]) -> list[dict[str, Any]]:
    return [
        {"label": b.label, "wer": _round(b.counts.wer), "wer_interval": _pair(b.interval), "utterances": b.counts.utterances, "words": b.counts.words}
        for b in found
    ]


def _comparisons(runs: Sequence[Run], systems: Sequence[str], protocol: Protocol) -> list[dict[str, Any]]:
    """The first system against each other one, on the sets of which both hold the same utterances."""
    first = {run.set_name: run for run in runs if run.system == systems[0]}
    found = []
    for run in runs:
        base = first.get(run.set_name)
        if base is not None and run.system != base.system and base.total.words and same_utterances(base, run, protocol):
            found.append(compare(base, run, protocol).as_dict())
    return found


def _decibels(runs: Sequence[Run]) -> Decibels:
    """The estimated signal-to-noise ratio of up to MOST_READ utterances of each set, spread evenly over it."""
    found: Decibels = {}
    for run in runs:
        step = max(1, -(-len(run.rows) // MOST_READ))
        for row, key in list(zip(run.rows, run.keys, strict=True))[::step]:
            if (run.set_name, key) not in found:
                wave_S = read_clip(run, row)
                found[run.set_name, key] = None if wave_S is None else estimate_snr(wave_S, RATE)
    return found


def _worst(runs: Sequence[Run], protocol: Protocol, decibels: Decibels, count: int) -> list[dict[str, Any]]:
    """The utterances with the most errors of all systems together, each with what every system heard in it."""
    errors: Counter[tuple[str, tuple[str, int]]] = Counter()
    where: dict[tuple[str, tuple[str, int]], list[tuple[Run, int]]] = {}
    for run in runs:
        for position, (key, c) in enumerate(zip(run.keys, run.counts, strict=True)):
            errors[run.set_name, key] += c.sub + c.del_ + c.ins
            where.setdefault((run.set_name, key), []).append((run, position))
    found = []
    for (set_name, key), total in errors.most_common(count):
        if not total:
            break
        heard = [(run, align(run, protocol, position)) for run, position in where[set_name, key]]
        run, one = heard[0]
        about = {"set": set_name, "name": one.row.audio_filepath, "folder": str(run.folder or "."), "duration": _round(one.row.duration)}
        about |= {"speaker": one.row.speaker, "snr": _round(decibels.get((set_name, key))), "text": one.row.text, "errors": total}
        found.append(about | {"readings": [_reading(run.system, aligned) for run, aligned in heard]})
    return found


def _reading(system: str, one: Aligned) -> dict[str, Any]:
    c = one.counts
    heard = {"system": system, "text": one.row.pred_text, "wer": _round(c.wer), "sub": c.sub, "del": c.del_, "ins": c.ins, "words": c.words}
    return heard | {"finish_reason": one.row.finish_reason, "pairs": [list(pair) for pair in one.pairs]}


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [round(interval.low, 2), round(interval.high, 2)]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
