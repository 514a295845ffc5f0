"""What a training source is made of, in a few words for a model card: the corpus behind feature shards, its licence, hours and copies."""

from __future__ import annotations

import math
import os
from pathlib import Path

from melcli.data.corpora import CORPORA
from melcli.data.shards import SUMMARY
from melcli.untrusted import parse_json


def origin(source: str) -> str | None:
    """Such as "`librispeech:train-clean-100`, licence: CC BY 4.0, 11.8 h, 10 augmented copies of each together".

    None where no more is known than the name.
    source: as in a recipe, where it lies. Of shards only those of a corpus that melcli knows are told: paths are nobody's business.
    """
    try:
        about = dict(parse_json(Path(source, SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return _licence(source)
    name, hours, copies = about.get("source"), about.get("hours"), about.get("copies")
    licence = _licence(name) if isinstance(name, str) else None
    facts = [f"`{name}`", licence] if licence else []
    if isinstance(hours, float) and math.isfinite(hours):
        facts.append(f"{hours:.1f} h")
    if about.get("augment"):
        facts.append(f"{copies} augmented copies of each together" if isinstance(copies, int) and copies > 1 else "augmented")
    return ", ".join(facts) or None


def _licence(source: str) -> str | None:
    base = source.partition("?")[0]
    corpus = None if os.path.exists(base) else CORPORA.get(base.partition(":")[0])  # a file or folder goes before a corpus of its name
    return f"licence: {corpus.licence}" if corpus else None
