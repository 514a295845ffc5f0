"""The protocols of the OpenASR leaderboard (huggingface/open_asr_leaderboard).

openasr-classic: Whisper's English rules and plain word errors, as from 2023 to March 2026. openasr-2026: more rules, and compounds may merge, as the
public scorer stood in August 2026. openasr-ml: text in any language, by the leaderboard's basic multilingual rules.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping

from melcli.scoring.english import OPENASR_2026, English
from melcli.scoring.protocol import Protocol

UNSCORED = "ignore time segment in scoring"
"""What stands for the reference of a segment that does not count (TED-LIUM)."""


def left_out(reference: str) -> bool:
    """Whether the leaderboard leaves a pair with this normalised reference out."""
    return reference.strip() in ("", UNSCORED)


@functools.cache
def _classic() -> English:
    return English()


@functools.cache
def _english_2026() -> English:
    return English(OPENASR_2026)


def classic(text: str) -> str:
    """Whisper's English normalisation."""
    return _classic()(text)


def english_2026(text: str) -> str:
    """Whisper's English normalisation with the leaderboard's additions of 2026."""
    return _english_2026()(text)


def classic_rules() -> Mapping[str, object]:
    """Patterns and tables of `classic`."""
    return _classic().rules


def english_2026_rules() -> Mapping[str, object]:
    """Patterns and tables of `english_2026`."""
    return _english_2026().rules


def multilingual(text: str) -> str:
    """Lower case without signs and without what stands in brackets; letters of every script stay, with their marks.

    The leaderboard also writes digits in words where it knows the language. A protocol sees only the text, so here they stay digits.
    """
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text.lower())
    text = re.sub(r"\([^)]+?\)", "", text)
    return " ".join(unicodedata.normalize("NFKC", text).translate(_SIGNS).lower().split())


class _Signs(dict):
    """For `str.translate`: signs become spaces, and what is no letter, mark, number or space goes."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)[0]
        return self.setdefault(code, " " if kind in "SP" else char if kind in "LMN" or char.isspace() else "")


_SIGNS = _Signs()

CLASSIC = Protocol(
    "openasr-classic",
    "1",
    classic,
    drops=left_out,
    rules=classic_rules,
    libraries=("transformers", "whisper-normalizer", "rapidfuzz"),
)
OPENASR = Protocol(
    "openasr-2026",
    "1",
    english_2026,
    merge_compounds=True,
    drops=left_out,
    rules=english_2026_rules,
    libraries=("transformers", "whisper-normalizer", "rapidfuzz", "kaldialign"),
)
MULTILINGUAL = Protocol("openasr-ml", "1", multilingual, merge_compounds=True, drops=left_out, libraries=("rapidfuzz", "kaldialign"))
