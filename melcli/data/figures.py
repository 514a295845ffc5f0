"""Figures as the words that are said for them: money, times, dates, fractions, telephone numbers, units, years and plain numbers.

Spoken the American way without "and" (nineteen oh five, two thousand nine, three hundred twelve; 3/4/2009 is in March), as LibriSpeech's readers do.
The words are num2words'; the rules here say which of its forms a figure wants.
"""

from __future__ import annotations

import re
from functools import lru_cache

from num2words import num2words

UNITS = {
    "km": "kilometers", "cm": "centimeters", "mm": "millimeters", "mi": "miles", "ft": "feet", "kg": "kilograms", "mg": "milligrams", "lb": "pounds",
    "lbs": "pounds", "oz": "ounces", "ml": "milliliters", "km/h": "kilometers per hour", "kph": "kilometers per hour", "mph": "miles per hour",
    "m/s": "meters per second", "hrs": "hours", "hr": "hours", "mins": "minutes", "min": "minutes", "secs": "seconds", "sec": "seconds",
    "ms": "milliseconds", "yrs": "years", "yr": "years", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "kB": "kilobytes",
    "KB": "kilobytes", "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes", "kW": "kilowatts", "kWh": "kilowatt hours", "dB": "decibels",
    "°C": "degrees celsius", "°F": "degrees fahrenheit", "°": "degrees", "k": "thousand", "m": "million", "bn": "billion",
}  # fmt: skip
"""After a figure."""

APART = {"m": "meters", "g": "grams", "l": "liters", "L": "liters"}
"""Of one letter, and units only with a blank before them: 5 m is a distance, 5m an amount."""

MONTHS = "january february march april may june july august september october november december".split()

KINGS = frozenset(
    "alexander benedict catherine charles clement edward elizabeth ferdinand francis frederick george gregory henry innocent james john leo leopold "
    "louis mary napoleon nicholas paul peter philip pius ramesses ramses richard sixtus urban victor wilhelm william".split()
)
"""Names whose roman numeral is an ordinal: Henry VIII is Henry the eighth, while Apollo XI is Apollo eleven."""

_CURRENCY = {
    "$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"), "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"), "₹": ("rupee", "rupees", "paisa", "paise"),
}  # fmt: skip
_SIGNS = "".join(_CURRENCY)
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SHORT_MONTHS = {name[:length].title(): name for name in MONTHS for length in (3, 4) if name != "may" and (length == 3 or name == "september")}
_NAMED_MONTH = "|".join([*(name for name in MONTHS if name not in ("may", "march")), *(name.title() for name in MONTHS), *_SHORT_MONTHS])
_NUMERO = re.compile(r"\bNos?\.\s*(?=\d)|№\s*(?=\d)")
_MONEY_RANGE = re.compile(rf"([{_SIGNS}])\s?({_NUMBER})\s?-\s?\1?(?={_NUMBER})")
_MONEY = re.compile(rf"([{_SIGNS}])\s?({_NUMBER})(?:\s?(hundred|thousand|million|billion|trillion|k|m|bn)\b)?", re.IGNORECASE)
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b")
_SLASHED_DATE = re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b")
_MONTH_DAY = re.compile(rf"\b({_NAMED_MONTH})\s+(\d{{1,2}})\b(?![.,]?\d|:|%|-)")
_DAY_MONTH = re.compile(rf"\b(\d{{1,2}})\s+({_NAMED_MONTH})\b")
_TELEPHONE = re.compile(r"(?<![\w-])(?:\+?(\d{1,3})[ .-]?)?(?:\((\d{3})\)\s?|(\d{3})[ .-])(\d{3})[.-](\d{4})(?![\w-])")
_SHORT_TELEPHONE = re.compile(r"\b(?:(?<=call )|(?<=phone )|(?<=dial )|(?<=tel )|(?<=tel\. )|(?=555))(\d{3})[.-](\d{4})(?![\w-])", re.IGNORECASE)
_DURATION = re.compile(r"(?<![\d:])(\d{1,3}):([0-5]\d):([0-5]\d)(?![\d:])")
_TIME = re.compile(r"\b(\d{1,2}):(\d{2})(?![\d:])(?:\s?([ap])\.?\s?m\b\.?)?", re.IGNORECASE)
_HOUR = re.compile(r"\b(\d{1,2})\s?([ap])\.?m\b\.?", re.IGNORECASE)
_DECADE = re.compile(r"(?<!\d)'?(\d{2}|1\d{3}|20\d{2})'?s\b")
_ORDINAL = re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_FRACTION = re.compile(r"(?:(?<![\d/.,])(\d+)\s+)?(?<![\d/.,])(\d{1,3})/(\d{1,4})(?![\d/]|[.,]\d)")
_DENOMINATORS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth", 10: "tenth", 16: "sixteenth",
    100: "hundredth", 1000: "thousandth"}  # fmt: skip
_MINUS = re.compile(rf"(?<![\w.,)\]%{_SIGNS}-])-(?=[{_SIGNS}]?\.?\d)")
_RANGE = re.compile(r"(?<=\d)\s?-\s?(?=\d)")
_VERSION = re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}(?!\d)")
_YEAR = re.compile(r"(?<![\d.,$])(1[1-9]\d{2}|20\d{2})(?![\d]|[.,]\d|%)")
_TIMES = re.compile(r"(?<=\d)\s?[x×]\s?(?=\d)")
_LONGEST_FIRST = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_UNIT = re.compile(rf"(\d)(?: ({'|'.join(APART)})|\s?({_LONGEST_FIRST}))(?!\w)(?:/([a-z]+)\b)?")
_PER = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour"}
_LEADING_POINT = re.compile(r"(?<![\w.])\.(?=\d)")
_FEET_INCHES = re.compile(r"(?<![\w'])(\d)'(\d{1,2})(?:\"|(?![\w']))")
_PLAIN = re.compile(_NUMBER)
_SIGNS_BETWEEN = re.compile(r"(?<=\d)\s?([:/^])\s?(?=\d)")
_PART = re.compile(r"\b((?i:chapter|part|volume|book|act|scene|canto)) ([VX]|[IVXL]{2,}|I(?=\s*(?:[^\w\s]|$|of\b|[A-Z])))(?![\w'])")
_ROMAN = re.compile(
    rf"\b([A-Z][a-z]+|[Ww]ar) ((?=[IVX]{{2}})X{{0,2}}(?:IX|IV|V?I{{0,3}}))(?![\w'])|\b({'|'.join(sorted(map(str.title, KINGS)))}) ([VX])(?![\w'])"
)
_CENTS = re.compile(rf"({_NUMBER})\s?¢")


@lru_cache(maxsize=16384)
def cardinal(figures: str) -> str:
    """ "1,250" -> "one thousand two hundred fifty"; "3.14" -> "three point one four"; long or zero-led figures one by one."""
    digits = figures.replace(",", "")
    if (digits.startswith("0") and digits.isdigit() and len(digits) > 1) or len(digits.split(".")[0]) > 12:
        return one_by_one(digits)
    if "." in digits:
        whole, fraction = digits.split(".")
        return f"{cardinal(whole)} point {one_by_one(fraction)}"
    return _words(num2words(int(digits)))


def one_by_one(figures: str) -> str:
    """ "007" -> "zero zero seven"."""
    return " ".join(num2words(int(digit)) for digit in figures if digit.isdigit())


def ordinal(figures: str) -> str:
    """ "21" -> "twenty-first"; of figures too long to count with the cardinal's words."""
    digits = figures.replace(",", "")
    return cardinal(digits) if len(digits) > 12 else _words(num2words(int(digits), to="ordinal"))


def _words(spelled: str) -> str:
    """num2words' British joints taken out: "one thousand, two hundred and fifty-six" -> "one thousand two hundred fifty-six"."""
    return spelled.replace(",", "").replace(" and ", " ")


def _year(figures: str) -> str:
    """ "1905" -> "nineteen oh five", "2009" -> "two thousand nine"."""
    return _words(num2words(int(figures), to="year")).replace("oh-", "oh ")


def _money(found: re.Match[str]) -> str:
    one, many, cent, cents = _CURRENCY[found[1]]
    amount, scale = found[2], found[3]
    if scale:
        return f"{cardinal(amount)} {UNITS.get(scale.lower(), scale.lower())} {many}"
    whole, _, fraction = amount.partition(".")
    unit = one if whole == "1" else many
    if len(fraction) != 2 or not int(fraction):
        return f"{cardinal(whole if not fraction or not int(fraction) else amount)} {unit}"
    small = f"{cardinal(str(int(fraction)))} {cent if int(fraction) == 1 else cents}"
    return f"{cardinal(whole)} {unit} and {small}" if int(whole.replace(",", "")) else small


def _clock(found: re.Match[str]) -> str:
    hour, minute = int(found[1]), found[2]
    if hour > 24 or int(minute) > 59:
        return f"{cardinal(found[1])} {cardinal(minute)}"
    half = f" {found[3].lower()} m" if found[3] else ""
    if minute == "00":
        return f"{cardinal(str(hour))}{half or ' o' + chr(39) + 'clock'}"
    return f"{cardinal(str(hour))} {'oh ' if minute[0] == '0' else ''}{cardinal(str(int(minute)))}{half}"


def _duration(found: re.Match[str]) -> str:
    """ "3:45:12" -> "three forty-five twelve", "1:05:00" -> "one oh five zero"."""
    said = [f"oh {cardinal(part[1])}" if part[0] == "0" and part != "00" else cardinal(str(int(part))) for part in found.groups()[1:]]
    return " ".join([cardinal(str(int(found[1]))), *said])


def _decade(found: re.Match[str]) -> str:
    figures = found[1]
    if not figures.endswith("0"):
        return found[0]
    words = "two thousand" if figures == "2000" else _year(figures) if len(figures) == 4 else cardinal(figures)
    return (words[:-1] + "ies") if words.endswith("y") else words + "s"


def _date(year: str, month: str, day: str, written: str) -> str:
    """ "2024", "3", "15" -> "march fifteenth, twenty twenty-four"; what is no date stays as it was."""
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return written
    said = _year(year) if 1100 <= int(year) < 2100 else cardinal(year)
    return f"{MONTHS[int(month) - 1]} {ordinal(day)}, {said}"


def _slashed_date(found: re.Match[str]) -> str:
    month, day, year = found.groups()
    return _date(year, day, month, found[0]) if int(month) > 12 else _date(year, month, day, found[0])


def _month_day(found: re.Match[str]) -> str:
    return f"{_SHORT_MONTHS.get(found[1], found[1])} {ordinal(found[2])}" if 1 <= int(found[2]) <= 31 else found[0]


def _day_month(found: re.Match[str]) -> str:
    return f"the {ordinal(found[1])} of {_SHORT_MONTHS.get(found[2], found[2])}" if 1 <= int(found[1]) <= 31 else found[0]


def _fraction(found: re.Match[str]) -> str:
    whole, above, below = found[1], int(found[2]), int(found[3])
    if not 0 < above < below or below not in _DENOMINATORS:
        return f"{whole + ' ' if whole else ''}{found[2]} {found[3]}"  # 24/7, 9/11
    part = _DENOMINATORS[below] if above == 1 else "halves" if below == 2 else _DENOMINATORS[below] + "s"
    return f"{cardinal(whole)} and {'a' if above == 1 else cardinal(str(above))} {part}" if whole else f"{cardinal(str(above))} {part}"


def _unit(found: re.Match[str]) -> str:
    words, per = APART[found[2]] if found[2] else UNITS[found[3]], found[4]
    before = found.string[: found.start(1)]
    if found[1] == "1" and not re.search(r"[\d.,/]$", before):
        head, *rest = words.split(" ")
        words = " ".join([{"feet": "foot"}.get(head, head.removesuffix("s") if head != "celsius" else head), *rest])
    return f"{found[1]} {words}" + (f" per {_PER.get(per, per)}" if per else "")


def _roman(letters: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}[letter] for letter in letters.upper()]
    return sum(-value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True))


def _numeral(found: re.Match[str]) -> str:
    name, number = found[1] or found[3], str(_roman(found[2] or found[4]))
    return f"{name} the {ordinal(number)}" if name.lower() in KINGS else f"{name} {cardinal(number)}"


def romans(text: str) -> str:
    """Roman numerals after a name or the word for a part of a book: "Henry VIII" -> "Henry the eighth", "chapter IV" -> "chapter four"."""
    text = _PART.sub(lambda found: f"{found[1]} {cardinal(str(_roman(found[2])))}", text)
    return _ROMAN.sub(_numeral, text)


def _apart(words: str, found: re.Match[str]) -> str:
    """The words with a blank on a side where a letter or another word of a number stands close: "MP3" -> "MP three"."""
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return " " * before.isalnum() + words + " " * after.isalnum()


def telephones(text: str) -> str:
    """Telephone numbers figure by figure: "(800) 555-0199" -> "eight zero zero, five five five, zero one nine nine"."""
    text = _TELEPHONE.sub(lambda found: ", ".join(one_by_one(part) for part in found.groups() if part), text)
    return _SHORT_TELEPHONE.sub(lambda found: f"{one_by_one(found[1])}, {one_by_one(found[2])}", text)


def figures(text: str) -> str:
    """Every figure in its context, from the most particular (dates, money, times) to the plain number."""
    text = _NUMERO.sub("number ", text)
    text = _ISO_DATE.sub(lambda found: _date(found[1], found[2], found[3], found[0]), text)
    text = _SLASHED_DATE.sub(_slashed_date, text)
    text = _MINUS.sub("minus ", text)
    text = _MONEY_RANGE.sub(r"\2 to \1", text)
    text = _MONEY.sub(_money, text)
    text = _CENTS.sub(lambda found: f"{cardinal(found[1])} cent{'' if found[1] == '1' else 's'}", text)
    text = _DURATION.sub(_duration, text)
    text = _TIME.sub(_clock, text)
    text = _HOUR.sub(lambda found: f"{cardinal(found[1])} {found[2].lower()} m", text)
    text = _DECADE.sub(_decade, text)
    text = _ORDINAL.sub(lambda found: ordinal(found[1]), text)
    text = _MONTH_DAY.sub(_month_day, text)
    text = _DAY_MONTH.sub(_day_month, text)
    text = _VERSION.sub(lambda found: _apart(" point ".join(cardinal(part) for part in found[0].split(".")), found), text)
    text = _FEET_INCHES.sub(r"\1 foot \2", text)
    text = _FRACTION.sub(_fraction, text)
    text = _RANGE.sub(" to ", text)
    text = _TIMES.sub(" times ", text)
    text = _UNIT.sub(_unit, text)
    text = _YEAR.sub(lambda found: _year(found[1]), text)
    text = _SIGNS_BETWEEN.sub(lambda found: {":": " to ", "/": " ", "^": " to the power of "}[found[1]], text)
    text = re.sub(r"#(?=\d)", "number ", text)
    text = _LEADING_POINT.sub("point ", text)
    return _PLAIN.sub(lambda found: _apart(cardinal(found[0]), found), text)
