"""English texts made comparable: Whisper's rules, with what a protocol adds to them.

The rules and the table of British spellings are Whisper's own, through `transformers` and `whisper-normalizer` (Radford et al. 2022, appendix C).
What this module adds is speed. A text of which every word means the same in any company is put together from words seen before. In any other
text, passes that cannot change anything are left out. The outcome equals that of all passes one after another (tests/scoring/test_english.py).
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby, pairwise
from typing import Any

from melcli.scoring import openasr_tables

KEPT_SIGNS = ".%$¢€£"
"""Signs that may belong to a number; all others become spaces."""
MOST_WORDS = 100_000
"""Words that are remembered, at most."""

_BRACKETS = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESES = re.compile(r"\([^)]+?\)")
_BEFORE_APOSTROPHE = re.compile(r"\s+'")
_COMMA_IN_NUMBER = re.compile(r"(\d),(\d)")
_FULL_STOP = re.compile(r"\.([^0-9]|$)")
_SIGN_WITHOUT_NUMBER = re.compile(r"[.$¢€£]([^0-9])")
_PERCENT_WITHOUT_NUMBER = re.compile(r"([^0-9])%")
_DIGIT = re.compile(r"\d")
_SIGN = re.compile(r"[.$¢€£]")
_PRICE_OR_ONE = re.compile(r"[1¢$€£]")
_LONE_WORD = re.compile(r"([a-z]+)(?:'[a-z]+)?[.,?!;:]?")
_SHORT_RUN = re.compile(r"\b[ai] [ai] [ai]\b")

_BOUND_WORDS = {"half", "been", "done", "gone", "got"}
"""Words of rules that span several words: "and a half", "'s been"."""
_HARMLESS_NUMBER_WORDS = {"and", "per", "percent", "pound", "pounds", "euro", "euros", "dollar", "dollars", "cent", "cents"}
"""Words of the number rules that stay as they are where no number is near."""


@dataclass(frozen=True)
class Additions:
    """What a protocol adds to Whisper's rules, or puts in their place.

    fillers: words left out, instead of Whisper's six. expanded_before_s: the only words after which 's becomes "is"; none: all words.
    compounds: one word for each pair of words. spellings, names: word for word, in this order, over Whisper's table less `left_out`.
    acronyms: whether spelled letters and digits are joined, "b b c" to "bbc".
    """

    fillers: Sequence[str] = ()
    expanded_before_s: Sequence[str] = ()
    compounds: Mapping[str, str] = field(default_factory=dict)
    spellings: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    acronyms: bool = False


OPENASR_2026 = Additions(
    fillers=openasr_tables.FILLERS,
    expanded_before_s=openasr_tables.EXPANDED_BEFORE_S,
    compounds={pair: word for word, pairs in openasr_tables.COMPOUNDS.items() for pair in pairs},
    spellings=openasr_tables.SPELLINGS,
    left_out=openasr_tables.SPELLINGS_LEFT_OUT,
    names={variant: name for name, variants in openasr_tables.NAMES.items() for variant in variants.split()},
    acronyms=True,
)


class English:
    """Normalises English text: `English(additions)("Mr. Smith's 2 dogs")` is "mister smith is 2 dogs" without additions."""

    def __init__(self, additions: Additions = Additions()) -> None:
        whisper = _whisper()
        self._numbers = whisper.standardize_numbers
        self._acronyms = additions.acronyms
        fillers = rf"\b({'|'.join(additions.fillers)})\b" if additions.fillers else whisper.ignore_patterns
        replacers = dict(whisper.replacers)
        if additions.expanded_before_s:
            only = rf"\b({'|'.join(additions.expanded_before_s)})'s\b"
            replacers = {(only if old == r"'s\b" else old): (r"\1 is" if old == r"'s\b" else new) for old, new in replacers.items()}
        table = {old: new for old, new in whisper.standardize_spellings.mapping.items() if old not in additions.left_out} | additions.spellings
        self.rules = {"fillers": fillers, "replacers": replacers, "spellings": table, "names": additions.names, "compounds": additions.compounds}
        self.rules["acronyms"] = additions.acronyms

        self._fillers = re.compile(fillers)
        self._replacers = [(_literal(pattern), re.compile(pattern), by) for pattern, by in replacers.items()]
        self._words = {old: additions.names.get(new, new) for old, new in table.items()}
        self._words |= {old: new for old, new in additions.names.items() if old not in table}
        self._compounds = additions.compounds
        alternatives = "|".join(pair.replace(" ", r"\s+") for pair in additions.compounds)
        self._compound = re.compile(rf"\b(?:{alternatives})\b") if alternatives else None
        self._signs = _Signs()
        self._run = functools.lru_cache(maxsize=4096)(self._number_run)
        self._bound = (self._numbers.words - _HARMLESS_NUMBER_WORDS) | _BOUND_WORDS | {pair.split()[1] for pair in additions.compounds}
        self._lone: dict[str, str | None] = {}

    def __call__(self, text: str) -> str:
        """The text in the form that is compared, with single spaces."""
        text = text.lower()
        words = [self._lone[word] if word in self._lone else self._alone(word) for word in text.split()]
        if None not in words:
            joined = " ".join(filter(None, words))
            if not (self._acronyms and _SHORT_RUN.search(joined)):
                return joined
        return self._in_full(text)

    def _alone(self, token: str) -> str | None:
        """What a word becomes whatever stands around it, as long as all words around it are such too; None where that depends on them."""
        match = _LONE_WORD.fullmatch(token)
        found = None
        joins = "'" in token and match is not None and self._fillers.fullmatch(match[1])  # without "um", "um's" joins the word before it
        if match and match[1] not in self._bound and not joins:
            form = self._in_full(token)
            if all(word.isalpha() and word not in self._bound and (len(word) > 1 or word in "ai") for word in form.split()):
                found = form
        if len(self._lone) < MOST_WORDS:
            self._lone[token] = found
        return found

    def _in_full(self, text: str) -> str:
        """All rules in Whisper's order, on text in lower case."""
        if "[" in text or "<" in text:
            text = _BRACKETS.sub("", text)
        if "(" in text:
            text = _PARENTHESES.sub("", text)
        text = self._fillers.sub("", text)
        if "'" in text:
            text = _BEFORE_APOSTROPHE.sub("'", text)
        for literal, pattern, by in self._replacers:
            if literal in text:
                text = pattern.sub(by, text)
        if "," in text:
            text = _COMMA_IN_NUMBER.sub(r"\1\2", text)
        if "." in text:
            text = _FULL_STOP.sub(r" \1", text)
        text = (text if text.isascii() else unicodedata.normalize("NFKD", text)).translate(self._signs)
        if self._compound:
            text = self._compound.sub(lambda match: self._compounds[" ".join(match[0].split())], text)
        words = [self._words.get(word, word) for word in self._with_numbers(text)]
        if self._acronyms and any(len(a) == 1 == len(b) for a, b in pairwise(words)):
            words = _join_spelled(words)
        text = " ".join(words)
        if _SIGN.search(text):
            text = _SIGN_WITHOUT_NUMBER.sub(r" \1", text)
        if "%" in text:
            text = _PERCENT_WITHOUT_NUMBER.sub(r"\1 ", text)
        return " ".join(text.split())

    def _with_numbers(self, text: str) -> list[str]:
        """The words of a text, numbers in digits. Other words end a number, so only runs of words that may belong to one are looked at."""
        digits = _DIGIT.search(text) is not None
        if digits or "half" in text:
            text = self._numbers.preprocess(text)
        words = text.split()
        if not digits and self._numbers.words.isdisjoint(words):
            return words
        found: list[str] = []
        for numeric, group in groupby(words, key=lambda word: word in self._numbers.words or (digits and _DIGIT.search(word) is not None)):
            run = tuple(group)
            found += self._run(run) if numeric else run
        text = " ".join(found)
        return self._numbers.postprocess(text).split() if _PRICE_OR_ONE.search(text) else found

    def _number_run(self, run: tuple[str, ...]) -> tuple[str, ...]:
        """A run of words with its numbers in digits. One of more digits than Python reads, such as a model in a loop writes, stays as it is."""
        try:
            return tuple(word for word in self._numbers.process_words(list(run)) if word is not None)
        except ValueError:
            return run


class _Signs(dict):
    """For `str.translate`: every sign but KEPT_SIGNS is a space, marks over letters go, and letters of their own like ø get a plain form."""

    def __missing__(self, code: int) -> str:
        from transformers.models.whisper.english_normalizer import remove_symbols_and_diacritics

        return self.setdefault(code, remove_symbols_and_diacritics(chr(code), keep=KEPT_SIGNS))


def _join_spelled(words: Sequence[str]) -> list[str]:
    """Join runs of single letters and digits; a run with "a" or "i", which are words too, only from three on."""
    found: list[str] = []
    for single, group in groupby(words, key=lambda word: len(word) == 1 and word.isalnum()):
        run = list(group)
        spelled = single and len(run) >= (3 if "a" in run or "i" in run else 2)
        found += ["".join(run)] if spelled else run
    return found


def _literal(pattern: str) -> str:
    """A text that every match of a replacer's pattern holds."""
    return "'s" if "(" in pattern else pattern.replace(r"\b", "")


@functools.cache
def _whisper() -> Any:
    """Whisper's normaliser by transformers, with Whisper's table, which transformers does not carry."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    table = files("whisper_normalizer").joinpath("normalizers/english.json").read_text(encoding="utf-8")
    return EnglishTextNormalizer(json.loads(table))
