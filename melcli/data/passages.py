"""A text cut into passages to be spoken one after the other: a sentence each, or a part of one that is too long, with the silence after it.

Abbreviations, initials, decimal points and addresses end no sentence. The rules are few because a wrong cut costs only a pause in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from melcli.data.figures import UNITS
from melcli.data.text import ABBREVIATIONS, REFERENCES

LONGEST = 180
"""Characters of a passage, said out: about twelve seconds. Longer ones are not what models are trained on."""

PAUSES = {"paragraph": 0.6, "sentence": 0.3, "clause": 0.12, "word": 0.0}
"""Seconds of silence after a passage, by what ends with it."""

_PARAGRAPH = re.compile(r"\s*\n(?:[^\S\n]*\n)+\s*")
_END = re.compile(r"([.!?…]+)([\"')\]»”’]*)\s+")
_SPREAD_DOTS = re.compile(r"\.(?: \.)+")
_LAST_WORD = re.compile(r"[^\s\"'(\[“‘«—–]*$")
_OPENING = re.compile(r"[\"'(\[«“‘]*")
_DOTTED = re.compile(r"(?:[A-Za-z]\.)*[A-Za-z]$")
_NEVER = frozenset("mr mrs ms messrs dr prof capt col gen lieut lt sgt gov sen rev hon vs viz mt cf fr fig figs vol vols approx incl esp".split())
_BEFORE_FIGURES = frozenset([*REFERENCES, "no", "nos", *"jan feb mar apr jun jul aug sep sept oct nov dec tel art ed".split()])
_MAYBE = frozenset([*ABBREVIATIONS, *(unit.lower() for unit in UNITS if unit.isalpha()), *"st ave rd blvd al ph ph.d tbsp tsp est".split()])
_BEGINNINGS = frozenset(
    """a after all although an and another are as at because before but by can come could did do does each even every everyone everything few first
    for from go had has have he hello her here hers his how however i if in is it its last let many may maybe me meanwhile more most my never
    next no nobody none not nothing now of oh on once one only or other others our perhaps please she should since so some somebody someone
    something soon still such suddenly take than thank that the their them then there therefore these they this those though thus to today
    tomorrow two under until up was we well were what when where whether which while who whose why will with without would yes yesterday yet you
    your""".split()
)
"""Words that begin sentences: after "U.S." or "p.m." one with a capital tells a new sentence from a name."""
_BREAKS = (
    ("clause", re.compile(r"[;:]\s+")),
    ("clause", re.compile(r",\s+")),
    ("word", re.compile(r"\s+(?=(?:and|but|or|nor|because|which|who|that|when|where|while|if|with)\s)")),
    ("word", re.compile(r"\s+")),
)


@dataclass(frozen=True, slots=True)
class Passage:
    """text: as written. end: what ends with it, a key of PAUSES."""

    text: str
    end: str

    @property
    def pause(self) -> float:
        """Seconds of silence after it."""
        return PAUSES[self.end]


def paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """The paragraphs of a text that comes in lines, such as an open file: what blank lines separate."""
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        elif held:
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)


def sentences(text: str) -> Iterator[Passage]:
    """The sentences of a text, each once and in order.

    >>> [passage.text for passage in sentences("Dr. No paid $3.50. He left at 5 p.m. Then it rained.")]
    ['Dr. No paid $3.50.', 'He left at 5 p.m.', 'Then it rained.']
    """
    for paragraph in _PARAGRAPH.split(text.strip()):
        start = 0
        paragraph = _SPREAD_DOTS.sub("...", " ".join(paragraph.split()))
        for found in _END.finditer(paragraph):
            if _ends(paragraph[start : found.start()], found[1], found[2], paragraph[found.end() : found.end() + 80]):
                yield Passage(paragraph[start : found.end()].strip(), "sentence")
                start = found.end()
        if rest := paragraph[start:].strip():
            yield Passage(rest, "paragraph")


def _ends(before: str, signs: str, closing: str, after: str) -> bool:
    """Whether a sentence ends at `signs`, which stand between the sentence so far and what follows."""
    after = after[_OPENING.match(after).end() :]
    following = re.match(r"[\w'’]*", after)[0]
    goes_on = following[:1].islower()
    if not following:
        return bool(after)
    if "!" in signs or "?" in signs:
        return not (goes_on and closing)  # "Stop!" he cried
    if len(signs) > 1 or "…" in signs:
        return not goes_on
    word = _LAST_WORD.search(before)[0].lower()
    if not word or (word.isdigit() and not before[: -len(word)].strip()):
        return False  # 1. the number of a list
    if word in _NEVER or (word in _BEFORE_FIGURES and following[:1].isdigit()):
        return False
    if _DOTTED.match(word) or word in _MAYBE:
        return following[:1].isupper() and following.partition("'")[0].partition("’")[0].lower() in _BEGINNINGS
    return True


def cut(text: str, longest: int = LONGEST) -> Iterator[tuple[str, str]]:
    """(part, what ends with it) of a sentence in parts of at most `longest` characters: at clauses where there are some, else between words.

    The last part's end is the sentence's own, an empty string here.
    """
    while len(text) > longest:
        window = text[: longest + 1]
        places = [(end, [found.end() for found in pattern.finditer(window) if found.end() > longest // 3]) for end, pattern in _BREAKS]
        end, (*_, last) = next((place for place in places if place[1]), ("word", [longest]))  # else one endless word
        yield text[:last].strip(), end
        text = text[last:].strip()
    if text:
        yield text, ""
