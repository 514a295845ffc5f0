"""A reference and a hypothesis side by side, as lines of text that can be read without colour too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from melcli.scoring.breakdown import kind_of
from melcli.scoring.protocol import Pair

CONTEXT = 10  # right words kept on each side of an error
LONG = 4 * CONTEXT  # right words in a row, over which some are left out
MOST_PIECES = 600  # of one utterance that are shown; a call of an hour may be wrong in thousands of places

Span = tuple[str, str]
"""Text and what it is: "sub", "del", "ins", "left out" or "" for what is right."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A word of an alignment, or words left out. kind: as in Span. said, heard: the words, empty where there is none."""

    kind: str
    said: str
    heard: str


def pieces(pairs: Sequence[Pair]) -> list[Piece]:
    """An alignment with its long right passages, and what is over MOST_PIECES, left out; how many words were is said in their place."""
    found: list[Piece] = []
    for right, group in groupby(pairs, lambda pair: kind_of(pair) == ""):
        words = [Piece(kind_of(pair), pair[0] or "", pair[1] or "") for pair in group]
        if right and len(words) > LONG:
            words = [*words[:CONTEXT], _left_out(len(words) - 2 * CONTEXT, "right"), *words[-CONTEXT:]]
        found += words
    rest = len(found) - MOST_PIECES
    return found if rest <= 0 else [*found[:MOST_PIECES], _left_out(rest, "more")]


def _left_out(count: int, what: str) -> Piece:
    text = f"… {count} {what} …"
    return Piece("left out", text, text)


def lines(shown: Sequence[Piece], width: int) -> Iterator[list[Span]]:
    """Three lines a row of words, as sclite writes them: what was said, what was heard, and S, D or I under each error.

    Wrong words are in capitals, a word that is not there is a row of stars. width: columns that a line may take.
    """
    row: list[Piece] = []
    used = 0
    for piece in shown:
        taken = max(len(piece.said), len(piece.heard)) + 1
        if row and 5 + used + taken > width:
            yield from _row(row)
            row, used = [], 0
        row.append(piece)
        used += taken
    if row:
        yield from _row(row)


def _row(row: Sequence[Piece]) -> Iterator[list[Span]]:
    wide = [max(len(p.said), len(p.heard)) for p in row]
    for head, words in (("REF", [p.said for p in row]), ("HYP", [p.heard for p in row])):
        texts = [_word(word, p.kind, size).ljust(size + 1) for word, p, size in zip(words, row, wide, strict=True)]
        yield [(f"{head}: ", ""), *((text, p.kind) for text, p in zip(texts, row, strict=True))]
    marks = {"sub": "S", "del": "D", "ins": "I"}
    yield [("     ", ""), *((marks.get(p.kind, "").ljust(size + 1), p.kind) for p, size in zip(row, wide, strict=True))]


def _word(word: str, kind: str, size: int) -> str:
    return word if kind in ("", "left out") else (word.upper() or "*" * size)
