"""Strategies: what becomes of a valid file in hostile hands."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

EXTREMES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q", "<d")
HEAD = 256
"""Bytes in which most headers are: damage there counts for more."""

NAMES = (
    "../../x", "/etc/passwd", "..", ".", "", "\0", "a\0b", "x" * 300, "CON", "aux.txt", "a:b", "C:\\x", "..\\..\\x", "~", "~root", "$HOME", "a\nb",
    "\x1b[2J", "é", "e\u0301", "A", "a", "\ud800", "-", "--help", "http://x/y", "file:///etc/passwd", "synth:", "hf:", "parquet:x#0", "parquet:x",
    "hf:a:b", "?limit=1", " ", "\u202e", "\ufeff", "mic", "*", "{}", "%s", "/dev/null", "/dev/zero", "/",
)  # fmt: skip
NUMBERS = (0, -1, 1, 0.5, -0.0, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), 10**400, 2**31, 2**63, 2**64, 1e-320, True, False)


@st.composite
def damaged(draw: st.DrawFn, valid: SearchStrategy[bytes], most: int = 4) -> bytes:
    """Bytes of a valid file, with bits flipped, fields at their extremes, stretches cut out, doubled, moved or overwritten."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, most))):
        if not data:
            break
        near = draw(st.booleans())
        at = draw(st.integers(0, min(HEAD, len(data)) - 1 if near else len(data) - 1))
        kind = draw(st.sampled_from(("bit", "byte", "field", "cut", "end", "double", "splice", "noise")))
        length = draw(st.integers(1, 64))
        if kind == "bit":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte":
            data[at] = draw(st.integers(0, 255))
        elif kind == "field":
            form = draw(st.sampled_from(FORMATS))
            value = draw(st.sampled_from(NUMBERS[:10])) if form.endswith("d") else draw(st.sampled_from(EXTREMES)) % (1 << 8 * struct.calcsize(form))
            field = struct.pack(form, float(value)) if form.endswith("d") else struct.pack(form, value)
            data[at : at + len(field)] = field
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "end":
            del data[at:]
        elif kind == "double":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 4))
        elif kind == "splice":
            other = draw(st.integers(0, len(data) - 1))
            data[at : at + length] = data[other : other + length]
        else:
            data[at : at + length] = draw(st.binary(min_size=1, max_size=64))
    return bytes(data)


def values() -> SearchStrategy[Any]:
    """JSON values that nobody expects, nested ones too."""
    leaves = st.one_of(st.none(), st.sampled_from(NUMBERS), st.sampled_from(NAMES), st.text(max_size=20), st.integers(), st.floats())
    return st.recursive(
        leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)), max_leaves=6
    )


@st.composite
def upset(draw: st.DrawFn, valid: SearchStrategy[Any], most: int = 3) -> Any:
    """A valid JSON value in which some values, at any depth, are others, missing, or under another key."""
    whole = json.loads(json.dumps(draw(valid)))
    for _ in range(draw(st.integers(1, most))):
        holder: Any = None
        here: Any = whole
        key: Any = None
        while isinstance(here, dict | list) and here and (holder is None or draw(st.integers(0, 3))):
            holder, key = here, draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
            here = holder[key]
        if holder is None:
            return draw(values())
        kind = draw(st.sampled_from(("value", "value", "value", "gone", "key", "double")))
        if kind == "value":
            holder[key] = draw(values())
        elif kind == "gone":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(here)
        elif kind == "key":
            holder[draw(st.one_of(st.sampled_from(NAMES), st.text(max_size=8)))] = holder.pop(key)
        else:
            holder[key] = [here, here]
    return whole


def dumps(value: Any) -> bytes:
    """JSON as bytes; half characters are kept as escapes."""
    return json.dumps(value).encode()


def lines(rows: Sequence[SearchStrategy[Any]]) -> SearchStrategy[bytes]:
    """JSON lines of a few rows, each valid or upset, the whole perhaps damaged."""
    row = st.one_of(*[one for valid in rows for one in (valid, upset(valid), upset(valid))])
    whole = st.lists(row, min_size=1, max_size=4).map(lambda found: b"\n".join(dumps(one) for one in found) + b"\n")
    return st.one_of(whole, whole, damaged(whole))
