"""Layers of a language model as people write them: `0-3`, `8`."""

from __future__ import annotations

import re


def layer_range(part: str) -> range | None:
    """The layers of one number or range, both ends included; None where it is neither."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
    span = range(int(found[1]), int(found[2] or found[1]) + 1) if found else None
    return span or None
