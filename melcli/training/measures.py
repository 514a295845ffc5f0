"""What evaluations during training measure, and how one number is made of it to choose weights by.

What is transcribed is measured by its WER in percent. Speech that is said is measured as the model is taught: mel frames predicted one patch at a
time from the true ones before, the mean distance of all bins in dB. A set's name carries its measure, so that numbers keep it wherever they go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

MEL = " [mel dB]"


def named(source: str, task: str) -> str:
    """The name of an evaluation set: its source, with its measure where that is not WER."""
    return source + MEL if task == "tts" else f"{source} [{task}]" if task in ("repeat", "instruct") else source


def split(name: str) -> tuple[str, str, str]:
    """(source, measure, unit) of an evaluation set's name."""
    return (name.removesuffix(MEL), "mel distance", "dB") if name.endswith(MEL) else (name, "WER", "%")


def said(name: str, value: float) -> str:
    """A measurement in words."""
    source, measure, unit = split(name)
    return f"{source} {measure} {value:.2f} {unit}"


def means(rates: Mapping[str, float]) -> dict[str, float]:
    """The mean over sets of each measure that there is, as `wer` and `mel_db`."""
    kinds = {"wer": [v for name, v in rates.items() if not name.endswith(MEL)], "mel_db": [v for name, v in rates.items() if name.endswith(MEL)]}
    return {kind: sum(values) / len(values) for kind, values in kinds.items() if values}


def overall(rates: Mapping[str, float]) -> float:
    """What weights are chosen by, the lower the better: the mean of the measure, or of two measures the geometric mean, which no unit can tilt."""
    found = list(means(rates).values())
    if len(found) < 2:
        return found[0] if found else 0.0
    return math.exp(sum(math.log(max(value, 1e-3)) for value in found) / len(found))


def logged(rates: Mapping[str, float]) -> dict[str, float]:
    """Entries of the training's log: means as `eval_wer` and `eval_mel_db`, sets as `eval_wer/SOURCE` and `eval_mel_db/SOURCE`."""
    entries = {f"eval_{kind}": value for kind, value in means(rates).items()}
    for name, value in rates.items():
        entries[(_LOGGED_MEL if name.endswith(MEL) else _LOGGED_WER) + split(name)[0]] = value
    return entries


def found(logs: Mapping[str, float]) -> dict[str, float]:
    """The evaluation sets of such entries, sorted by name."""
    rates = {key.removeprefix(_LOGGED_WER): value for key, value in logs.items() if key.startswith(_LOGGED_WER)}
    rates |= {key.removeprefix(_LOGGED_MEL) + MEL: value for key, value in logs.items() if key.startswith(_LOGGED_MEL)}
    return dict(sorted(rates.items()))


_LOGGED_WER, _LOGGED_MEL = "eval_wer/", "eval_mel_db/"
