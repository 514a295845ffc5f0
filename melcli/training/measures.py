"""What evaluations during training measure, and how one number is made of it to choose weights by.

What is transcribed is measured by its WER in percent. Speech that is said is measured as the model is taught: mel frames predicted one patch at a
time from the true ones before, the mean distance of all bins in dB. So is text that may as well be another, the reply to speech: by the mean cross
entropy of its tokens after the true ones before. A set's name carries its measure, so that numbers keep it wherever they go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

MEL, NATS = " [mel dB]", " [nats]"
SUFFIXES = {MEL: ("mel_db", "mel distance", "dB"), NATS: ("nats", "text cross entropy", "nats"), "": ("wer", "WER", "%")}


def named(source: str, task: str, speaks: bool = True) -> list[str]:
    """The names of evaluation sets of a source: with their measure where that is not WER. speaks: whether replies are said aloud."""
    if task in ("continue", "answer"):
        return [source + NATS, *([source + MEL] if speaks else [])]
    return [source + MEL if task == "tts" else f"{source} [{task}]" if task in ("repeat", "instruct") else source]


def _suffix(name: str) -> str:
    return next(suffix for suffix in SUFFIXES if name.endswith(suffix))


def split(name: str) -> tuple[str, str, str]:
    """(source, measure, unit) of an evaluation set's name."""
    suffix = _suffix(name)
    return name.removesuffix(suffix), *SUFFIXES[suffix][1:]


def said(name: str, value: float) -> str:
    """A measurement in words."""
    source, measure, unit = split(name)
    return f"{source} {measure} {value:.2f} {unit}"


def means(rates: Mapping[str, float]) -> dict[str, float]:
    """The mean over sets of each measure that there is, as `wer`, `mel_db` and `nats`."""
    kinds: dict[str, list[float]] = {kind: [] for kind in ("wer", "mel_db", "nats")}
    for name, value in rates.items():
        kinds[SUFFIXES[_suffix(name)][0]].append(value)
    return {kind: sum(values) / len(values) for kind, values in kinds.items() if values}


def overall(rates: Mapping[str, float]) -> float:
    """What weights are chosen by, the lower the better: the mean of the measure, or of several the geometric mean, which no unit can tilt."""
    found = list(means(rates).values())
    if len(found) < 2:
        return found[0] if found else 0.0
    return math.exp(sum(math.log(max(value, 1e-3)) for value in found) / len(found))


def logged(rates: Mapping[str, float]) -> dict[str, float]:
    """Entries of the training's log: means as `eval_wer`, `eval_mel_db` and `eval_nats`, sets as `eval_wer/SOURCE` and so on."""
    entries = {f"eval_{kind}": value for kind, value in means(rates).items()}
    for name, value in rates.items():
        entries[f"eval_{SUFFIXES[_suffix(name)][0]}/{split(name)[0]}"] = value
    return entries


def found(logs: Mapping[str, float]) -> dict[str, float]:
    """The evaluation sets of such entries, sorted by name."""
    rates = {}
    for suffix, (kind, _, _) in SUFFIXES.items():
        rates |= {key.removeprefix(f"eval_{kind}/") + suffix: value for key, value in logs.items() if key.startswith(f"eval_{kind}/")}
    return dict(sorted(rates.items()))
