"""How well speech was continued, from result rows: how likely its words are, whose voice it is, whether it says what was written.

A row's `text` is what the model wrote as its continuation, `pred_text` what a recogniser heard in the speech; `reply` holds

    heard          what the model wrote for the prompt
    reason         why its text ended: eos, length or repetition
    stopped        why its voice ended: stop, length, silence or repetition
    seconds        of speech, the prompt not counted
    sim_prompt     cosine of speaker embeddings of the speech and of the prompt, where somebody could tell
    voice, prompt_voice   of the speech and of the prompt: pitch (median, Hz), voiced (share of what is not silent), silence (share), level (dB)
    semitones, ltas       the speech's pitch above the prompt's; distance of their long-term average spectra in dB; see audio/timbre.py
    semitones_other, ltas_other   the same from another speaker's prompt, the control
    audio          where the speech is, relative to the result file, where it was kept
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from melcli.scoring import bootstrap
from melcli.scoring.results import ResultRow

LOOPS = ("length", "silence", "repetition")  # reasons to stop a voice that would go on


def of_rows(rows: Sequence[ResultRow], nats: Sequence[tuple[float, int]] | None = None) -> dict[str, Any]:
    """The measures of a set. What no row has is null.

    nats: (-log p, tokens) of what was heard in each. log_perplexity: the sum of the first by that of the second; per_word: by the words heard.
    silent: rows in whose speech no word was heard, which have no part in these. sim_prompt: the mean. Each has its 95 % bootstrap interval beside it.
    seconds: the median. voice: see `voices`.
    """
    words = [len(row.pred_text.split()) for row in rows]
    found: dict[str, Any] = {"continuations": len(rows)}
    for name, pairs in (
        ("log_perplexity", nats or []),
        ("per_word", [(loss, float(count)) for (loss, _), count in zip(nats or [], words, strict=False)]),
        ("sim_prompt", [(0.0, 0.0) if value is None else (value, 1.0) for value in ((row.reply or {}).get("sim_prompt") for row in rows)]),
    ):
        found[name], found[f"{name}_interval"] = _ratio(pairs, rows)
    seconds = [(row.reply or {}).get("seconds") for row in rows]
    known = [value for value in seconds if value is not None]
    found["seconds"] = round(statistics.median(known), 2) if known else None
    found["silent"] = sum(not count for count in words)
    found["loops"] = sum((row.reply or {}).get("stopped") in LOOPS for row in rows)
    return found | {"voice": voices(rows)}


def voices(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """How far the voice went from that of the prompt.

    pitch, prompt_pitch: medians in Hz. semitones, ltas: mean absolute difference of pitch and mean distance of spectra, `_other` the same from
    another speaker's prompt, each with its 95 % bootstrap interval. voiced, silence, level and those of the prompt: means, shares in percent.
    """
    replies = [row.reply or {} for row in rows]
    found: dict[str, Any] = {}
    for prefix, key in (("", "voice"), ("prompt_", "prompt_voice")):
        for name, scale in (("pitch", 1.0), ("voiced", 100.0), ("silence", 100.0), ("level", 1.0)):
            known = [value for value in ((reply.get(key) or {}).get(name) for reply in replies) if value is not None]
            middle = statistics.median if name == "pitch" else statistics.fmean
            found[prefix + name] = round(scale * middle(known), 1) if known else None
    for name in ("semitones", "semitones_other", "ltas", "ltas_other"):
        pairs = [(0.0, 0.0) if value is None else (abs(value), 1.0) for value in (reply.get(name) for reply in replies)]
        found[name], found[f"{name}_interval"] = _ratio(pairs, rows)
    return found


def _ratio(pairs: Sequence[tuple[float, float]], rows: Sequence[ResultRow]) -> tuple[float | None, list[float] | None]:
    """The sum of the first by the sum of the second, and its interval, drawn from the rows that have something; None where none has."""
    kept = [(pair, row) for pair, row in zip(pairs, rows, strict=False) if pair[1]]
    if not kept:
        return None, None
    table_UK, drawn = np.array([pair for pair, _ in kept], dtype=float), bootstrap.blocks([row for _, row in kept])
    above, below = table_UK.sum(0)
    if drawn.count < 2:
        return round(float(above / below), 3), None
    sums_D, counts_D = bootstrap.draw_sums(table_UK, drawn).T
    between = bootstrap.interval(sums_D / counts_D)
    return round(float(above / below), 3), None if between is None else [round(between.low, 3), round(between.high, 3)]
