"""How often an epoch goes through each of several sources, so that each gets its share of the speech heard.

An epoch stays as long as all sources together: of a source with the share p of an epoch and h of all H hours, each utterance is drawn p H / h
times. The batch plan draws fractions anew each epoch (data/packing.py).
"""

from __future__ import annotations

from collections.abc import Sequence


def repeats(hours: Sequence[float], weights: Sequence[float] | None = None, temperature: float = 1.0) -> list[float]:
    """How often an epoch draws each utterance of each source.

    weights: shares of the sources, in any unit. Without them a source's share is its hours to the power of 1 / temperature, as multilingual
    models mix their languages (Arivazhagan et al., 2019, arXiv 1907.05019): at 1 each utterance is drawn once, the higher the temperature, the
    more alike the shares.
    """
    wanted = [h ** (1 / temperature) for h in hours] if weights is None else list(weights)
    whole = sum(wanted)
    return [w / whole * sum(hours) / h for w, h in zip(wanted, hours, strict=True)]
