"""A text as a voice can say it: figures and abbreviations in words, letters that the voice never saw folded, the rest named.

The alphabet is what the voice's tokenizer saw in training. Signs that only make a pause are replaced by one that it knows, silently.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from melcli.data.passages import LONGEST, Passage, cut, sentences
from melcli.data.text import speakable

LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "th", "þ": "th", "ł": "l", "ı": "i", "ħ": "h", "ŋ": "ng"}
"""Latin letters that are no letter with an accent, as English writes them."""

NEXT_BEST = {";": ",", ":": ",", "!": ".", "?": ".", ".": ",", "-": " ", '"': "", "'": "", "’": "'", "…": ","}
"""What stands for a sign that the voice does not know."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A passage for the voice: its text in the voice's letters, the seconds of silence after it, and what was left out of it."""

    text: str
    pause: float
    left_out: tuple[str, ...] = ()


def passages(text: str, alphabet: str, longest: int = LONGEST) -> Iterator[Piece]:
    """What the voice is to say, sentence by sentence; a sentence in which nothing can be said comes with an empty text.

    alphabet: the characters the voice knows. longest: characters of a passage.
    """
    for passage in sentences(text):
        said, left_out = fit(_closed(passage, alphabet), alphabet)
        parts = list(cut(said, longest)) if any(letter.isalnum() for letter in said) else []
        for number, (part, end) in enumerate(parts):
            pause = Passage(part, end or passage.end).pause
            yield Piece(part, pause, left_out if number == 0 else ())
        if not parts:
            yield Piece("", 0.0, left_out)


def _closed(passage: Passage, alphabet: str) -> str:
    """In words, with the stop that an abbreviation at the end took with it, or that a heading has none of.

    A voice without capitals would say the article for the letter a, so that is spelled as synthesisers are given it (data/text.py).
    """
    said = speakable(passage.text, letter_a="A" if "A" in alphabet and "a" in alphabet else "eigh")
    return said if not said or not (said[-1].isalnum() or said[-1] in ",;:") else said.rstrip(",;:") + "."


def fit(text: str, alphabet: str) -> tuple[str, tuple[str, ...]]:
    """The text in the letters of the alphabet, and the words and signs that had to be left out, each once.

    >>> fit("Café déjà vu: 你好 😀!", "abcdefghijklmnopqrstuvwxyz ,.")
    ('cafe deja vu.', ('你好', '😀'))
    """
    known = frozenset(alphabet)
    fitted: list[str] = []
    left_out: list[str] = []
    joined = False
    for character in unicodedata.normalize("NFC", text):
        found = _known(character, known)
        if found is not None:
            fitted.append(found)
            joined = False
        elif joined and _is_joint(character):
            left_out[-1] += character
        elif _is_sign(character):
            fitted.append("" if _is_joint(character) else " ")
            joined = False
        elif joined:
            left_out[-1] += character
        else:
            left_out.append(character)
            fitted.append(" ")
            joined = True
    said = " ".join("".join(fitted).split())
    said = re.sub(r"[,;:]+(?=[,.;:!?])", "", re.sub(r" (?=[,.;:!?])", "", said))
    return said.lstrip(",.;:!? "), tuple(dict.fromkeys(left_out))


def _known(character: str, known: frozenset[str]) -> str | None:
    """The character or what says the same: the other case, the letter without its accent, the next best sign. None where nothing does."""
    for same in (character, character.lower(), character.upper()):
        if same and set(same) <= known:
            return same
    if (other := NEXT_BEST.get(character)) is not None:
        return other if set(other) <= known else _known(other, known) if other in NEXT_BEST else " "
    plain = LETTERS.get(character.lower()) or "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    if plain and plain != character:
        parts = [_known(one, known) for one in plain]
        return None if None in parts else "".join(part for part in parts if part)
    return None


def _is_sign(character: str) -> bool:
    """Whether leaving a character out loses nothing that is said: punctuation, blanks, control characters, marks on letters."""
    return unicodedata.category(character)[0] in "PZCM"


def _is_joint(character: str) -> bool:
    """Whether a character belongs to the one before it: accents, and what puts emoji together."""
    return unicodedata.category(character)[0] == "M" or unicodedata.category(character) == "Cf"
