"""Text made comparable before it is scored. Each normaliser is a function from text to text, and applying one twice changes nothing."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from melcli import registry

Normaliser = Callable[[str], str]

_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ‛′´`＇", "'"))
_EDGE_APOSTROPHE = re.compile(r"(?<!\w)'+|'+(?!\w)|(?<=')'+")


def plain(text: str) -> str:
    """Lower case, no punctuation, single spaces: "Don’t STOP -- he said, 'now'." becomes "don't stop he said now".

    Apostrophes inside a word stay, since they make another word of it; those at its edges are quotation marks. Letters with accents, digits
    and every script's letters stay; all other signs separate words, except a comma between digits, which is dropped (1,000 is 1000).
    """
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).lower()
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = "".join(c if c == "'" or unicodedata.category(c)[0] in "LNM" else " " for c in text)
    return " ".join(_EDGE_APOSTROPHE.sub(" ", text).split())


def none(text: str) -> str:
    """The text as it is; only runs of white space become one space, since words are counted between spaces."""
    return " ".join(text.split())


def get(name: str) -> Normaliser:
    """A normaliser by name. Raises RegistryError saying which exist."""
    return registry.get("normaliser", name).load()
