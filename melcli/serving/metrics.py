"""Counts for `/metrics`, in Prometheus' text format.

They are few and simple, so that they are kept here and not by another package.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import accumulate

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PIECES = (1, 2, 4, 8, 16, 32, 64, 128)

COUNTERS = {
    "melcli_requests_total": "Requests answered, by endpoint and status; 499 is a client that went away.",
    "melcli_audio_seconds_total": "Seconds of audio: heard, and spoken.",
    "melcli_busy_seconds_total": "Seconds that a model was at work.",
}
HISTOGRAMS = {
    "melcli_request_seconds": ("Seconds from the head of a request to the end of its answer.", SECONDS),
    "melcli_batch_pieces": ("Stretches of speech, or passages of text, that a model was given at once.", PIECES),
}
GAUGES = {
    "melcli_ready": "1 when models are loaded and requests are taken.",
    "melcli_requests_under_way": "Requests that are uploaded, wait, are worked on or are answered.",
}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Safe to use from any thread. gauges: how to find the value of each, when it is asked for."""

    def __init__(self) -> None:
        self.gauges: dict[str, Callable[[], float]] = {}
        self._counts: dict[tuple[str, Labels], float] = {}
        self._observed: dict[tuple[str, Labels], list[float]] = {}  # per bucket, the last without limit; then the sum
        self._lock = threading.Lock()

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Count on."""
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0.0) + amount

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put a value into its bucket."""
        bounds = HISTOGRAMS[name][1]
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            row = self._observed.setdefault(key, [0.0] * (len(bounds) + 2))
            row[next((i for i, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
            row[-1] += value

    def text(self) -> str:
        """The page that Prometheus reads."""
        with self._lock:
            return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        for name, what in GAUGES.items():
            yield from (f"# HELP {name} {what}", f"# TYPE {name} gauge", f"{name} {self.gauges[name]():g}")
        for name, what in COUNTERS.items():
            yield from (f"# HELP {name} {what}", f"# TYPE {name} counter")
            yield from (f"{name}{_shown(labels)} {value:.10g}" for (found, labels), value in sorted(self._counts.items()) if found == name)
        for name, (what, bounds) in HISTOGRAMS.items():
            yield from (f"# HELP {name} {what}", f"# TYPE {name} histogram")
            for (found, labels), (*buckets, total) in sorted(self._observed.items()):
                if found == name:
                    heights = list(accumulate(buckets))
                    for bound, height in zip((*bounds, "+Inf"), heights, strict=True):
                        yield f"{name}_bucket{_shown((*labels, ('le', str(bound))))} {height:g}"
                    yield f"{name}_sum{_shown(labels)} {total:.10g}"
                    yield f"{name}_count{_shown(labels)} {heights[-1]:g}"


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
