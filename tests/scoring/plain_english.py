"""The English rules one after another, with nothing left out and nothing remembered: what `melcli.scoring.english` must equal."""

from __future__ import annotations

import re

from transformers.models.whisper.english_normalizer import remove_symbols_and_diacritics

from melcli.scoring.english import Additions, _whisper


def plain_english(text: str, extra: Additions) -> str:
    """`English(extra)(text)`, slowly."""
    whisper = _whisper()
    text = text.lower()
    text = re.sub(r"[<\[][^>\]]*[>\]]", "", text)
    text = re.sub(r"\(([^)]+?)\)", "", text)
    text = re.sub(r"\b(" + "|".join(extra.fillers) + r")\b" if extra.fillers else whisper.ignore_patterns, "", text)
    text = re.sub(r"\s+'", "'", text)
    for pattern, by in whisper.replacers.items():
        if pattern == r"'s\b" and extra.expanded_before_s:
            text = re.sub(r"\b(" + "|".join(extra.expanded_before_s) + r")'s\b", r"\1 is", text)
        else:
            text = re.sub(pattern, by, text)
    text = re.sub(r"(\d),(\d)", r"\1\2", text)
    text = re.sub(r"\.([^0-9]|$)", r" \1", text)
    text = remove_symbols_and_diacritics(text, keep=".%$¢€£")
    for pair, word in extra.compounds.items():
        text = re.sub(r"\b" + pair.replace(" ", r"\s+") + r"\b", word, text)
    text = whisper.standardize_numbers(text)
    spellings = {**whisper.standardize_spellings.mapping, **extra.spellings}
    text = " ".join(word if word in extra.left_out else spellings.get(word, word) for word in text.split())
    text = " ".join(extra.names.get(word, word) for word in text.split())
    if extra.acronyms:
        text = spelled_joined(text)
    text = re.sub(r"[.$¢€£]([^0-9])", r" \1", text)
    text = re.sub(r"([^0-9])%", r"\1 ", text)
    return " ".join(text.split())


def spelled_joined(text: str) -> str:
    """Runs of single letters and digits written together."""
    words, out, i = text.split(), [], 0
    while i < len(words):
        j = i
        while j < len(words) and len(words[j]) == 1 and words[j].isalnum():
            j += 1
        least = 3 if {"a", "i"} & set(words[i:j]) else 2
        out += ["".join(words[i:j])] if j - i >= least else words[i : max(j, i + 1)]
        i = max(j, i + 1)
    return " ".join(out)
