"""The protocol by which speech is compared with its text: both in the words that are said, so that "$5", "5 dollars" and "five dollars" agree."""

from __future__ import annotations

from melcli.data.text import speakable, transcript
from melcli.scoring.protocol import Protocol


def said(text: str) -> str:
    """English as it is spoken: figures and abbreviations in words, lower case, no punctuation but apostrophes inside words."""
    return transcript(speakable(text))


SPOKEN = Protocol("spoken", "1", said, libraries=("rapidfuzz", "num2words"))
