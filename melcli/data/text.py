"""Written English to words that can be spoken, and the transcript of what was spoken.

`speakable` turns figures (figures.py), abbreviations, addresses and symbols into words and keeps the punctuation (speech synthesisers pause on it);
`transcript` then drops the punctuation, which gives the style of the corpora: lower case words, apostrophes inside words, nothing else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from melcli.data.figures import figures, romans, telephones

ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "messrs": "messers", "dr": "doctor", "prof": "professor", "capt": "captain", "col": "colonel", "gen": "general",
    "lieut": "lieutenant", "lt": "lieutenant", "sgt": "sergeant", "gov": "governor", "sen": "senator", "rev": "reverend", "hon": "honorable",
    "jr": "junior", "sr": "senior", "vs": "versus", "etc": "et cetera", "viz": "namely", "esq": "esquire", "dept": "department", "govt": "government",
    "jan": "january", "feb": "february", "apr": "april", "aug": "august", "sept": "september", "oct": "october", "nov": "november", "dec": "december",
    "mt": "mount", "inc": "incorporated", "ltd": "limited", "corp": "corporation", "co": "company", "bros": "brothers", "approx": "approximately",
    "cf": "compare", "esp": "especially", "incl": "including", "tel": "telephone",
}  # fmt: skip
"""Written with a full stop; the titles also without one (see `_TITLE`)."""

REFERENCES = {"vol": "volume", "fig": "figure", "ch": "chapter", "p": "page", "pp": "pages", "sec": "section", "eq": "equation"}
"""Written with a full stop, before a figure."""

INITIALISMS = frozenset(
    """ac afc ai api atm bbc bbq cd ceo cfo cgi cia cpu cto dc diy dj dna dvd edm eta eu faq fbi fm fyi gm gop gpu hbo hiv ibm id io ip iq irs lcd mba
    mc mit mlb mls mri mtv mvp nba nfc nfl ngo nhl nhs nyu oecd pc ps qb rna roi rpm sf suv tba tv uae ufo ui uk un ups url us usa usb ussr uv ux vhs
    vip vr""".split()
)
"""Written in capitals and spoken letter by letter, as capitals without a vowel always are, but for `_SOUNDS`."""

_SOUNDS = frozenset("brr hm hmm mm mr mrs nth psst sh shh tsk".split())
_QUOTES = str.maketrans({"‘": "'", "’": "'", "ʼ": "'", "´": "'", "`": "'", "“": '"', "”": '"', "–": "-", "\ufeff": "", "\u200b": "", "\xa0": " "})
_COMPOSED = str.maketrans(
    {one: " " + unicodedata.normalize("NFKC", one).replace("\N{FRACTION SLASH}", "/") for one in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
    | {"²": " squared", "³": " cubed", "™": "", "®": "", "©": " copyright "}
)
_TITLE = re.compile(r"\b(Mr|Mrs|Dr|Prof|Capt|Lt|Sgt|Jr|Sr|vs|MR|MRS|DR)\b(?!\.)")
_DOTTED = re.compile(r"\b(" + "|".join(ABBREVIATIONS) + r")\.", re.IGNORECASE)
_REFERENCE = re.compile(r"\b(" + "|".join(REFERENCES) + r")\.\s*(?=\d)", re.IGNORECASE)
_MS = re.compile(r"\bMs\.?(?=\s+[A-Z])")
_SAINT = re.compile(r"\bSt\.?(?=\s+[A-Z])")
_STREET = re.compile(r"(\b[A-Z][a-z]+|\d(?:st|nd|rd|th))\s+(St|Ave|Rd|Blvd)\b\.?")  # a St before a name is a saint
_STREETS = {"St": "street", "Ave": "avenue", "Rd": "road", "Blvd": "boulevard"}
_WORDS = (
    (re.compile(r"\b(?:OK|O\.K\.)(?!\w)"), "okay"), (re.compile(r"\bPh\.? ?D\b\.?"), "p h d"), (re.compile(r"\bWW ?(?=I{1,2}\b)"), "World War "),
    (re.compile(r"\bWar I\b"), "war one"), (re.compile(r"\bw/o\b"), "without"), (re.compile(r"\bw/(?=\s)"), "with"),
    (re.compile(r"(?<=s)/(?=(?:second|minute|hour|day|week|month|year|person)\b)"), " per "), (re.compile(r"#(?=[A-Za-z])"), "hashtag "),
)  # fmt: skip
_HALF_DAY = re.compile(r"\b([ap])\.\s?m\.", re.IGNORECASE)
_DOTTED_LETTERS = re.compile(r"\b(?:[A-Za-z]\.){2,}|\b(?:[A-Z]\. ){2,}")
_CAPITALS = re.compile(r"\b([A-Z]{2,6})(s?)\b")
_NAMED_A = re.compile(r"(?<=\b(?:plan|team|type|side|part|note) )A\b|(?<=\b(?:vitamin|section|exhibit) )A\b|(?<=\b(?:grade|class|group|level) )A\b")
_A_M = re.compile(r"\ba m\b")
_DOMAINS = "com|org|net|edu|gov|info|app|dev|io|ai|co|uk|de"
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(rf"(?:https?://|\bwww\.)[^\s<>\"]+|\b[a-z\d-]+(?:\.[a-z\d-]+)*\.(?:{_DOMAINS})\b(?![@.]\w)(?:/[\w./~%?=&#-]*)?", re.IGNORECASE)
_FILE = re.compile(r"(?<=\w)\.(pdf|txt|jpe?g|png|py|js|html|csv|jsonl?|wav|mp3|zip|docx?|xml|md|ya?ml)\b", re.IGNORECASE)
_ADDRESS_SIGNS = {".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", "@": " at ", "+": " plus ", ":": " colon ", "~": " tilde "}
_SYMBOLS = {"&c": "et cetera", "&": " and ", "%": " percent", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees ", "÷": " divided by ",
    "×": " times ", "±": " plus or minus ", "≈": " about ", "~": " about ", "§": " section ", "•": ", ", "·": ", ", "|": ", ", "/": " "}  # fmt: skip


def _letters(found: re.Match[str]) -> str:
    """ "U.S.A." -> "u s a ", "e.g." -> "for example"."""
    letters = re.sub(r"[^a-z]", "", found[0].lower())
    return {"eg": "for example", "ie": "that is", "am": "a m", "pm": "p m"}.get(letters, " ".join(letters)) + " "


def _spelled(letters: str) -> bool:
    """Whether capitals are said one by one: no vowel makes a word of them, nor are they a number."""
    return letters in INITIALISMS or not (set(letters) & set("aeiouy") or set(letters) <= set("ivxlcdm") or letters in _SOUNDS)


def _initialism(found: re.Match[str]) -> str:
    """ "TV" -> "t v", "CDs" -> "c d's", "HTTP" -> "h t t p"; capitals that make a word, such as NASA, stay."""
    letters, plural = found[1].lower(), found[2]
    return " ".join(letters) + ("'s" if plural else "") if _spelled(letters) else found[0]


def _renamed(spelled: str | Callable[[re.Match[str]], str], letter_a: str) -> Callable[[re.Match[str]], str]:
    """The replacement, with the letter a called so."""
    return lambda found: re.sub(r"\ba\b", letter_a, spelled if isinstance(spelled, str) else spelled(found))


def _shouted(found: re.Match[str]) -> str:
    """Among capitals only: "TV" -> "t v", while US may be the word."""
    return found[0] if set(found[1]) & set("AEIOUY") else _initialism(found)


def _address(found: re.Match[str]) -> str:
    """ "https://www.bbc.co.uk/news?page=2" -> "WWW dot BBC dot co dot UK slash news": no scheme, no query."""
    written = found[0].rstrip(".,;:!?'")
    after = found[0][len(written) :]
    bare = re.split(r"[?#]", re.sub(r"^https?://", "", written, flags=re.IGNORECASE))[0].rstrip("/")
    said = "".join(_ADDRESS_SIGNS.get(part, part) for part in re.split(r"([^A-Za-z\d])", bare))
    return re.sub(r"\b[a-z]{2,5}\b", lambda word: word[0].upper() if _spelled(word[0]) else word[0], said) + after


def speakable(text: str, letter_a: str = "a") -> str:
    """The text with everything written in figures, symbols, abbreviations or addresses turned into words. Case and sentence punctuation stay.

    letter_a: how the letter's name is written where letters are said one by one, for a reader to whom `a` is the article.

    >>> speakable("Dr. Who paid $3.50 at 5:05 p.m. on May 2nd, 1905 (20%).")
    'doctor Who paid three dollars and fifty cents at five oh five p m on May second, nineteen oh five, twenty percent.'
    """
    text = unicodedata.normalize("NFKC", text.translate(_QUOTES).translate(_COMPOSED))
    text = _URL.sub(_address, _EMAIL.sub(_address, text))
    text = _FILE.sub(lambda found: f" dot {found[1].upper() if _spelled(found[1].lower()) else found[1]}", text)
    text = telephones(text)
    text = re.sub(r"\s*(?:—|--+|…|\.\.\.+)\s*", ", ", text)
    text = re.sub(r"[_*]", "", text)
    text = re.sub(r"\s*[()\[\]{}]\s*", ", ", text)
    text = _TITLE.sub(lambda found: ABBREVIATIONS[found[1].lower()], text)
    text = _MS.sub("miss", text)
    text = _SAINT.sub("saint", text)
    text = _STREET.sub(lambda found: f"{found[1]} {_STREETS[found[2]]}", text)
    for written, words in _WORDS:
        text = written.sub(words, text)
    text = _DOTTED.sub(lambda found: ABBREVIATIONS[found[1].lower()], text)
    text = _REFERENCE.sub(lambda found: REFERENCES[found[1].lower()] + " ", text)
    text = romans(text)
    if any(letter.isdigit() for letter in text):
        text = figures(text)
    text = _HALF_DAY.sub(lambda found: f"{found[1].lower()} m", text)
    capitals = _shouted if text.isupper() and text.count(" ") > 2 else _initialism
    for pattern, spelled in ((_DOTTED_LETTERS, _letters), (_CAPITALS, capitals), (_NAMED_A, "a"), (_A_M, "a m")):
        text = pattern.sub(_renamed(spelled, letter_a), text)
    for symbol, words in _SYMBOLS.items():
        text = text.replace(symbol, words)
    text = re.sub(r"\s+-+(?=\s)", ",", re.sub(r"\s+", " ", text)).strip()
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    return re.sub(r"([,;:])[,;:]*(?=[,.;:!?])|^[,;:.\s]+|(?<=[.!?])[,;:]+", "", text).strip()


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
