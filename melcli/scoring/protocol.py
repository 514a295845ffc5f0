"""Protocols: everything that decides an error rate besides the texts, under one name.

A protocol fixes how texts are normalised, which pairs are left out, and how words are aligned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from melcli import registry
from melcli.scoring import wer
from melcli.scoring.wer import ErrorCounts

Pair = tuple[str | None, str | None]
"""A word of the reference and the word heard in its place; None where there is none. Compounds that were merged hold spaces."""


def _nothing(reference: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Protocol:
    """How references and hypotheses become error counts.

    normalise: a text to the form that is compared. merge_compounds: whether "white paper" for "whitepaper" costs nothing.
    drops: whether a pair with this normalised reference is left out.
    """

    name: str
    version: str
    normalise: Callable[[str], str]
    merge_compounds: bool = False
    drops: Callable[[str], bool] = _nothing

    def score_each(self, references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts | None]:
        """The errors of each raw hypothesis against its raw reference; None where the pair is left out."""
        found: list[ErrorCounts | None] = []
        for reference, hypothesis in zip(references, hypotheses, strict=True):
            reference = self.normalise(reference)
            found.append(None if self.drops(reference) else wer.score([reference], [self.normalise(hypothesis)]))
        return found

    def align(self, reference: str, hypothesis: str) -> list[Pair]:
        """The normalised words of a raw pair side by side."""
        raise NotImplementedError


def get(name: str) -> Protocol:
    """A protocol by name. Raises RegistryError saying which exist."""
    return registry.get("protocol", name).load()
