"""What is measured of one spoken text besides its words: the `speech` field of a result row.

    audio          where it is, relative to the result file; absent where it was not kept
    lead, tail     seconds of silence before and after the speech
    longest_pause  seconds of the longest silence inside it
    silence        share of the recording that is silent, 0 to 1
    speech         seconds between its ends
    expected       what these are in the reference recording (`against`: "reference"), or CHARACTERS_PER_SECOND lets expect ("text")
    mcd            mel-cepstral distortion against the reference, dB
    sim_prompt, sim_reference   cosine of speaker embeddings with the voice prompt, and with the reference
    mos            what a predictor of opinions says, by name
    stopped        why the voice stopped, where it was made here: stop, length, silence or repetition

Shapes: S samples at RATE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from melcli.scoring.alignment import Pair
from melcli.scoring.breakdown import kind_of
from melcli.scoring.tts import cepstra, pauses
from melcli.scoring.tts.words import said

RATE = cepstra.SPEC.rate
CHARACTERS_PER_SECOND = 15.0  # of the text in words, spaces included, between the ends of the speech: 15.4 in LibriSpeech dev-clean, 5 % below 10
LOOPS = ("length", "silence", "repetition")  # reasons to stop a voice that would go on
TOO_LONG, TOO_SHORT = 2.0, 0.5  # times the expected length
CUT_WORDS = 3  # last words of a text that nobody heard


def measure(spoken_S: Tensor, text: str, reference_S: Tensor | None = None) -> dict[str, Any]:
    """The measures that need no model, of one recording at RATE."""
    silence = pauses.measure(spoken_S, RATE)
    found: dict[str, Any] = {"lead": silence.lead, "tail": silence.tail, "longest_pause": silence.longest, "silence": silence.share}
    found["speech"] = silence.speech
    if reference_S is None:
        found |= {"expected": len(said(text)) / CHARACTERS_PER_SECOND, "against": "text"}
    else:
        found |= {"expected": pauses.measure(reference_S, RATE).speech, "against": "reference"}
        distortion = cepstra.mel_cepstral_distortion(spoken_S, reference_S)
        found |= {} if distortion is None else {"mcd": distortion}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


def length_ratio(speech: Mapping[str, Any]) -> float | None:
    """Seconds of speech by those expected; None where nothing was to be said."""
    return speech["speech"] / speech["expected"] if speech.get("expected") else None


def looped(speech: Mapping[str, Any]) -> bool:
    """Whether the voice went on and on: it had to be stopped, or speaks TOO_LONG times as long as expected."""
    return speech.get("stopped") in LOOPS or (length_ratio(speech) or 0.0) > TOO_LONG


def stopped_early(speech: Mapping[str, Any], pairs: Sequence[Pair]) -> bool:
    """Whether the end is missing: less than TOO_SHORT of the expected length, or nothing heard in place of the last CUT_WORDS words.

    pairs: words of the text beside words heard.
    """
    ratio = length_ratio(speech)
    unheard = {kind_of(pair) for pair in pairs[-CUT_WORDS:]} == {"del"}
    return unheard or (ratio is not None and ratio < TOO_SHORT)
