"""Seconds of audio, read from file headers, for utterances whose source does not say them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from melcli.data.embedded import EMBEDDED, load_bytes
from melcli.data.utterance import Utterance
from melcli.errors import MelcliError


def _header_seconds(address: str) -> float | None:
    from melcli.audio.io import probe

    if address.startswith("synth:"):
        return None
    if address.startswith(EMBEDDED):
        return probe(io.BytesIO(load_bytes(address))).duration
    return probe(address).duration


def probe_utterance(utterance: Utterance) -> float | None:
    """Seconds that the headers of an utterance's files promise, after cuts and joins.

    None for synthetic speech, for a file that cannot be read (whoever loads it reports it) and where only decoding would tell.
    """
    whole = 0.0
    for address in utterance.audio:
        try:
            seconds = _header_seconds(address)
        except MelcliError:
            return None
        if seconds is None:
            return None
        whole += seconds
    if utterance.start is not None or utterance.end is not None:
        whole = min(whole, utterance.end if utterance.end is not None else whole) - (utterance.start or 0.0)
    return round(whole + utterance.gap * (len(utterance.audio) - 1), 4) if whole > 0 else None


def fill_durations(utterances: Sequence[Utterance], threads: int = 4) -> list[Utterance]:
    """The same utterances with `duration` filled in where it was None and can be known without decoding (about 0.2 ms a file)."""
    unknown = [index for index, utterance in enumerate(utterances) if utterance.duration is None]
    filled = list(utterances)
    if unknown:
        with ThreadPoolExecutor(threads) as pool:
            for index, seconds in zip(unknown, pool.map(lambda index: probe_utterance(utterances[index]), unknown), strict=True):
                filled[index] = replace(filled[index], duration=seconds)
    return filled
