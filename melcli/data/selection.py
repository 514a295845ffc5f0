"""The `?key=value&key=value` behind a source: which of its utterances are kept.

    librispeech:dev-clean?without=1272,1673      every speaker but two
    digits:strings?count=2000&seed=1             options of the corpus itself go to the corpus
    talks/dev.jsonl?limit=100&seed=0             100 utterances drawn with seed 0
    speechocean762:train?words=zero,one,two      utterances that hold no other words
    robotutor:stories?fold=1-19/20               nineteen of twenty parts by what is said: no text is in two of them

Without a seed `limit` keeps the first utterances; with one it draws them, in the order of the source, so that the sample spreads over speakers.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, nearest

KEYS = ("speakers", "without", "words", "fold", "limit", "seed")


def parse(text: str, source: str, extra_keys: Iterable[str] = ()) -> dict[str, str]:
    """'a=1&b=2' as a dictionary. ManifestError for a key that is neither one of KEYS nor of `extra_keys`, or for one given twice."""
    valid = (*KEYS, *extra_keys)
    options: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise ManifestError(f"{source}: option '{part}' has no value, write {key}=VALUE")
        if key not in valid:
            raise ManifestError(f"{source}: no option '{key}', valid: {', '.join(valid)}.{nearest(key, valid)}")
        if key in options:
            raise ManifestError(f"{source}: option '{key}' is given twice")
        options[key] = unquote_plus(value)
    return options


def number(options: dict[str, str], key: str, source: str, default: int, least: int = 0) -> int:
    """A whole number out of the options, `default` where it is not given, ManifestError where it is not one or is below `least`."""
    if key not in options:
        return default
    try:
        value = int(options[key])
    except ValueError:
        value = least - 1
    if value < least:
        raise ManifestError(f"{source}: {key}={options[key]} is not a whole number of at least {least}")
    return value


def names(options: dict[str, str], key: str) -> set[str] | None:
    """The comma-separated names of an option, None where it is not given."""
    return {name.strip() for name in options[key].split(",") if name.strip()} if key in options else None


def by_speaker(utterances: list[Utterance], options: dict[str, str], source: str) -> list[Utterance]:
    """What `speakers` and `without` keep.

    A speaker that the source does not have is a ManifestError: a mistyped speaker must not slip from a test set into a training set.
    """
    keep, drop = names(options, "speakers"), names(options, "without")
    if keep is None and drop is None:
        return utterances
    known = {utterance.speaker for utterance in utterances if utterance.speaker is not None}
    for speaker in sorted((keep or set()) | (drop or set())):
        if speaker not in known:
            some = sorted(known)
            listed = ", ".join(some[:12]) + (f" and {len(some) - 12} more" if len(some) > 12 else "") if some else "not named in this source"
            raise ManifestError(f"{source}: no utterance of speaker '{speaker}'; its speakers are {listed}.{nearest(speaker, known)}")
    return [u for u in utterances if (keep is None or u.speaker in keep) and (drop is None or u.speaker not in drop)]


def by_words(utterances: list[Utterance], options: dict[str, str]) -> list[Utterance]:
    """Utterances with a text whose words are all among `words`."""
    allowed = names(options, "words")
    if allowed is None:
        return utterances
    return [u for u in utterances if u.text and set(u.text.lower().split()) <= allowed]


def by_fold(utterances: list[Utterance], options: dict[str, str], source: str) -> list[Utterance]:
    """Utterances whose text falls, by its hash, into the folds `A/N` or `A-B/N`, counted from 0: the same text always into the same one."""
    if "fold" not in options:
        return utterances
    found = re.fullmatch(r"(\d+)(?:-(\d+))?/(\d+)", options["fold"])
    first, last, count = (int(found[1]), int(found[2] or found[1]), int(found[3])) if found else (0, 0, 0)
    if not first <= last < count:
        raise ManifestError(f"{source}: fold={options['fold']} is neither A/N nor A-B/N with A <= B < N")

    def fold(text: str) -> int:
        return int.from_bytes(hashlib.blake2b(" ".join(text.lower().split()).encode(), digest_size=8).digest(), "big") % count

    return [u for u in utterances if first <= fold(u.text or u.id) <= last]


def limited(utterances: list[Utterance], options: dict[str, str], source: str) -> list[Utterance]:
    """What `limit` and `seed` keep, in the order of the source."""
    limit = number(options, "limit", source, len(utterances), least=1)
    if limit >= len(utterances):
        return utterances
    if "seed" not in options:
        return utterances[:limit]
    seed = number(options, "seed", source, 0)
    chosen = sorted(random.Random(seed).sample(range(len(utterances)), limit))
    return [utterances[index] for index in chosen]


def select(utterances: list[Utterance], options: dict[str, str], source: str) -> list[Utterance]:
    """The utterances that all the options of a source keep. ManifestError where nothing is left."""
    kept = by_words(by_speaker(utterances, options, source), options)
    kept = limited(by_fold(kept, options, source), options, source)
    if utterances and not kept:
        raise ManifestError(f"{source}: the options leave no utterance of {len(utterances)}")
    return kept
