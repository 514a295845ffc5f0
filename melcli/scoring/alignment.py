"""Words of a reference beside the words heard: how many edits lie between them, and which word stands for which.

`rapidfuzz` finds plain alignments, as jiwer has it do. `kaldialign` finds those that may merge compounds: neighbouring words of one side that
spell a single word of the other when written together ("white paper", "whitepaper") cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[str | None, str | None]
"""A word of the reference and the word heard in its place; None where there is none. Compounds that were merged hold spaces."""
Edits = tuple[int, int, int]
"""How many words were replaced, missed and invented."""

_ABSENT = ""  # no word is empty


def edits(reference: Sequence[str], hypothesis: Sequence[str], merge_compounds: bool = False) -> Edits:
    """The fewest edits that make the reference the hypothesis."""
    if reference == hypothesis:
        return 0, 0, 0
    if merge_compounds:
        from kaldialign import edit_distance

        counts = edit_distance(reference, hypothesis, merge_compounds=True)
        return counts["sub"], counts["del"], counts["ins"]
    from rapidfuzz.distance import Levenshtein

    kinds = [edit.tag for edit in Levenshtein.editops(reference, hypothesis)]
    return kinds.count("replace"), kinds.count("delete"), kinds.count("insert")


def pairs(reference: Sequence[str], hypothesis: Sequence[str], merge_compounds: bool = False) -> list[Pair]:
    """The words side by side, in an alignment with as many edits as `edits` counts."""
    if merge_compounds:
        from kaldialign import align

        return [(said or None, heard or None) for said, heard in align(reference, hypothesis, _ABSENT, merge_compounds=True)]
    from rapidfuzz.distance import Levenshtein

    found: list[Pair] = []
    for tag, i, i_end, j, j_end in Levenshtein.opcodes(reference, hypothesis):
        if tag == "delete":
            found += [(word, None) for word in reference[i:i_end]]
        elif tag == "insert":
            found += [(None, word) for word in hypothesis[j:j_end]]
        else:
            found += zip(reference[i:i_end], hypothesis[j:j_end], strict=True)
    return found
