"""Written English to words that can be spoken, and the transcript of what was spoken.

`speakable` turns figures, money, dates, times, abbreviations and symbols into words and keeps the punctuation (speech synthesisers pause on it);
`transcript` then drops the punctuation, which gives the style of the corpora: lower case words, apostrophes inside words, nothing else.
Figures are spoken the American way without "and" (nineteen oh five, two thousand nine, three hundred twelve), as LibriSpeech's readers do.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from num2words import num2words

ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "messrs": "messers", "dr": "doctor", "prof": "professor", "capt": "captain", "col": "colonel", "gen": "general",
    "lieut": "lieutenant", "lt": "lieutenant", "sgt": "sergeant", "gov": "governor", "sen": "senator", "rev": "reverend", "hon": "honorable",
    "jr": "junior", "sr": "senior", "vs": "versus", "etc": "et cetera", "viz": "namely", "esq": "esquire", "dept": "department", "govt": "government",
    "jan": "january", "feb": "february", "aug": "august", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
}  # fmt: skip
"""Written with a full stop; the titles also without one (see `_TITLE`)."""

UNITS = {
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "kg": "kilograms", "lb": "pounds", "lbs": "pounds", "oz": "ounces", "ft": "feet",
    "mph": "miles per hour", "hrs": "hours", "mins": "minutes", "yrs": "years", "min": "minutes", "k": "thousand", "m": "million", "bn": "billion",
}  # fmt: skip
"""After a figure."""

INITIALISMS = frozenset(
    "ac afc bbc cd cgi cia dc dj dna dvd edm fbi fm gm hbo mc mlb mls mtv mvp nba nfc nfl nhl pc ps qb rpm sf tv uk us usa vhs vip vr".split()
)
"""Written in capitals and spoken letter by letter."""

_CURRENCY = {"$": ("dollar", "dollars", "cents"), "£": ("pound", "pounds", "pence"), "€": ("euro", "euros", "cents")}
_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "´": "'", "`": "'", "“": '"', "”": '"', "–": "-", "\ufeff": "", "\u200b": "", "\xa0": " "})
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_TITLE = re.compile(r"\b(Mr|Mrs|Dr|Prof|Capt|Lt|Sgt|Jr|Sr|vs)\b(?!\.)")
_DOTTED = re.compile(r"\b(" + "|".join(ABBREVIATIONS) + r")\.(?=(\s+[A-Z])?)", re.IGNORECASE)
_MS = re.compile(r"\bMs\.?(?=\s+[A-Z])")
_SAINT = re.compile(r"\bSt\.?(?=\s+[A-Z])")
_STREET = re.compile(r"(?<=[a-z])\s+(St|Ave|Rd|Blvd)\.")
_STREETS = {"St": "street", "Ave": "avenue", "Rd": "road", "Blvd": "boulevard"}
_NUMERO = re.compile(r"\bNos?\.\s*(?=\d)")
_MONEY = re.compile(r"([$£€])\s?(" + _NUMBER + r")(?:\s?(hundred|thousand|million|billion|trillion|k|m|bn)\b)?", re.IGNORECASE)
_TIME = re.compile(r"\b(\d{1,2}):(\d{2})\b(?:\s?([ap])\.?\s?m\b\.?)?", re.IGNORECASE)
_HOUR = re.compile(r"\b(\d{1,2})\s?([ap])\.?m\b\.?", re.IGNORECASE)
_HALF_DAY = re.compile(r"\b([ap])\.\s?m\.", re.IGNORECASE)
_DECADE = re.compile(r"(?<!\d)'?(\d{2}|1\d{3}|20\d{2})'?s\b")
_ORDINAL = re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_RANGE = re.compile(r"(?<=\d)\s?-\s?(?=\d)")
_YEAR = re.compile(r"(?<![\d.,$])(1[1-9]\d{2}|20\d{2})(?![\d]|[.,]\d|%)")
_UNIT = re.compile(r"(?<=\d)\s?(" + "|".join(UNITS) + r")\b")
_PLAIN = re.compile(_NUMBER)
_DOTTED_LETTERS = re.compile(r"\b(?:[A-Za-z]\.){2,}|\b(?:[A-Z]\. ){2,}")
_CAPITALS = re.compile(r"\b([A-Z]{2,4})(s?)\b")
_SYMBOLS = {"&c": "et cetera", "&": " and ", "%": " percent", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees "}


@lru_cache(maxsize=16384)
def _cardinal(figures: str) -> str:
    """ "1,250" -> "one thousand two hundred fifty"; "3.14" -> "three point one four"; long or zero-led figures one by one."""
    digits = figures.replace(",", "")
    if (digits.startswith("0") and digits.isdigit() and len(digits) > 1) or len(digits.split(".")[0]) > 12:
        return " ".join(num2words(int(digit)) for digit in digits if digit.isdigit())
    if "." in digits:
        whole, fraction = digits.split(".")
        return f"{_cardinal(whole)} point " + " ".join(num2words(int(digit)) for digit in fraction)
    return _words(num2words(int(digits)))


def _words(spelled: str) -> str:
    """num2words' British joints taken out: "one thousand, two hundred and fifty-six" -> "one thousand two hundred fifty-six"."""
    return spelled.replace(",", "").replace(" and ", " ")


def _year(figures: str) -> str:
    """ "1905" -> "nineteen oh five", "2009" -> "two thousand nine"."""
    return _words(num2words(int(figures), to="year")).replace("oh-", "oh ")


def _money(found: re.Match[str]) -> str:
    one, many, cents = _CURRENCY[found[1]]
    amount, scale = found[2], found[3]
    if scale:
        return f"{_cardinal(amount)} {UNITS.get(scale.lower(), scale.lower())} {many}"
    whole, _, fraction = amount.partition(".")
    unit = one if whole == "1" else many
    if len(fraction) == 2 and int(fraction):
        return (
            f"{_cardinal(whole)} {unit} and {_cardinal(str(int(fraction)))} {cents}"
            if int(whole.replace(",", ""))
            else f"{_cardinal(str(int(fraction)))} {cents}"
        )
    return f"{_cardinal(whole if not fraction or not int(fraction) else amount)} {unit}"


def _clock(found: re.Match[str]) -> str:
    hour, minute = int(found[1]), found[2]
    if hour > 24 or int(minute) > 59:
        return f"{_cardinal(found[1])} {_cardinal(minute)}"
    half = f" {found[3].lower()} m" if found[3] else ""
    if minute == "00":
        return f"{_cardinal(str(hour))}{half or ' o' + chr(39) + 'clock'}"
    return f"{_cardinal(str(hour))} {'oh ' if minute[0] == '0' else ''}{_cardinal(str(int(minute)))}{half}"


def _decade(found: re.Match[str]) -> str:
    figures = found[1]
    if not figures.endswith("0"):
        return found[0]
    words = "two thousand" if figures == "2000" else _year(figures) if len(figures) == 4 else _cardinal(figures)
    return (words[:-1] + "ies") if words.endswith("y") else words + "s"


def _letters(found: re.Match[str]) -> str:
    """ "U.S.A." -> "u s a ", "e.g." -> "for example"."""
    letters = re.sub(r"[^a-z]", "", found[0].lower())
    return {"eg": "for example", "ie": "that is", "am": "a m", "pm": "p m"}.get(letters, " ".join(letters)) + " "


def _initialism(found: re.Match[str]) -> str:
    """ "TV" -> "t v", "CDs" -> "c d's"; other capitals stay."""
    letters, plural = found[1].lower(), found[2]
    return " ".join(letters) + ("'s" if plural else "") if letters in INITIALISMS else found[0]


def speakable(text: str) -> str:
    """The text with everything written in figures, symbols or abbreviations turned into words. Case and sentence punctuation stay.

    >>> speakable("Dr. Who paid $3.50 at 5:05 p.m. on May 2nd, 1905 (20%).")
    'doctor Who paid three dollars and fifty cents at five oh five p m on May second, nineteen oh five, twenty percent.'
    """
    text = unicodedata.normalize("NFC", text).translate(_QUOTES)
    text = re.sub(r"\s*(?:—|--+|…|\.\.\.+)\s*", ", ", text)
    text = re.sub(r"[_*]", "", text)
    text = re.sub(r"\s*[()\[\]{}]\s*", ", ", text)
    text = _TITLE.sub(lambda found: ABBREVIATIONS[found[1].lower()], text)
    text = _MS.sub("miss", text)
    text = _STREET.sub(lambda found: " " + _STREETS[found[1]], text)
    text = _SAINT.sub("saint", text)
    text = re.sub(r"\b(?:OK|O\.K\.)(?!\w)", "okay", text)
    text = _DOTTED.sub(lambda found: ABBREVIATIONS[found[1].lower()], text)
    if any(letter.isdigit() for letter in text):
        text = _figures(text)
    text = _HALF_DAY.sub(lambda found: f"{found[1].lower()} m", text)
    text = _DOTTED_LETTERS.sub(_letters, text)
    text = _CAPITALS.sub(_initialism, text)
    for symbol, words in _SYMBOLS.items():
        text = text.replace(symbol, words)
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    return re.sub(r"([,;:])[,;:]*(?=[,.;:!?])|^[,;:.\s]+|(?<=[.!?])[,;:]+", "", text).strip()


def _figures(text: str) -> str:
    """Every figure in its context, from the most particular (money, times) to the plain number."""
    text = _NUMERO.sub("number ", text)
    text = _MONEY.sub(_money, text)
    text = _TIME.sub(_clock, text)
    text = _HOUR.sub(lambda found: f"{_cardinal(found[1])} {found[2].lower()} m", text)
    text = _DECADE.sub(_decade, text)
    text = _ORDINAL.sub(lambda found: _words(num2words(int(found[1].replace(",", "")), to="ordinal")), text)
    text = _RANGE.sub(" to ", text)
    text = _YEAR.sub(lambda found: _year(found[1]), text)
    text = _UNIT.sub(lambda found: " " + UNITS[found[1]], text)
    text = re.sub(r"#(?=\d)", "number ", text)
    text = _PLAIN.sub(lambda found: f" {_cardinal(found[0])} ", text)
    return re.sub(r" +", " ", text)


_APOSTROPHES = frozenset(["'tis", "'twas", "'twere", "'twill", "'twould", "'em", "o'"])


def transcript(text: str) -> str:
    """Lower-case words of `speakable` text: apostrophes inside words kept, hyphens split, no other punctuation.

    >>> transcript("'Tis Tom's well-known book!")
    "'tis tom's well known book"
    """
    plain = unicodedata.normalize("NFKD", text.translate(_QUOTES)).lower()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    words = re.sub(r"[^a-z' ]+", " ", plain).split()
    kept = (word if word in _APOSTROPHES else word.strip("'") for word in words)
    return " ".join(word for word in kept if word)


_LETTER_A = re.compile(r"(?<= [b-z] [b-z] )a\b|(?<= [b-hj-z] )a(?= [b-z]\b| ?[,.;:!?]|$)|(?<= )a(?= [b-hj-z],? [b-z]\b)")
"""The letter a among other single letters, in a text that begins with a blank."""


def prompt(text: str) -> str:
    """`speakable` text as it is handed to a synthesiser: lower case, quotation marks gone, commas and stops kept.

    Lower case keeps the programs from spelling out capitals and from reading roman numerals. The letter a, alone between other single letters,
    becomes "eigh", which all of them say as the letter's name (a lone "a" is spoken as the article).
    """
    plain = unicodedata.normalize("NFKD", text.translate(_QUOTES)).lower()
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    plain = re.sub(r"(?<![a-z])'(?!(?:tis|twas|twere|twill|twould|em)\b)|'(?![a-z])", "", plain)
    plain = re.sub(r"[^a-z' ,.;:!?]+", " ", plain)
    plain = _LETTER_A.sub("eigh", " " + plain)
    return re.sub(r"\s+", " ", plain).strip()
