"""Word and character errors between references and hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from melcli.scoring.alignment import edits


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors summed over utterances, so that counts of parts can be added to counts of the whole.

    words, sub, del_, ins: reference words, and how many were replaced, missed, invented. chars, char_errors: the same over characters, spaces
    between words included. Rates are in percent; None where the references hold nothing to divide by.
    """

    utterances: int = 0
    words: int = 0
    sub: int = 0
    del_: int = 0
    ins: int = 0
    chars: int = 0
    char_errors: int = 0

    @property
    def wer(self) -> float | None:
        """Word error rate in percent; over 100 where more was invented than said."""
        return 100 * ((self.sub + self.del_ + self.ins) / self.words) if self.words else None  # multiplied last, so that it rounds as others' do

    @property
    def cer(self) -> float | None:
        """Character error rate in percent."""
        return 100 * (self.char_errors / self.chars) if self.chars else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def score_pair(reference: str, hypothesis: str, merge_compounds: bool = False) -> ErrorCounts:
    """The errors of one hypothesis against its reference; both normalised already.

    An utterance whose reference is empty counts too: whatever was transcribed there was invented. Characters are compared with one space between
    words, and a space too many is an error even where a compound was merged.
    """
    from rapidfuzz.distance import Levenshtein

    said, heard = reference.split(), hypothesis.split()
    if said == heard:
        return ErrorCounts(utterances=1, words=len(said), chars=_length(said))
    distance = Levenshtein.distance(" ".join(said), " ".join(heard))
    return ErrorCounts(1, len(said), *edits(said, heard, merge_compounds), _length(said), distance)


def score(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Sum the errors of each hypothesis against its reference; both normalised already. Raises ValueError where their numbers differ."""
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses")
    return sum(map(score_pair, references, hypotheses), ErrorCounts())


def _length(words: Sequence[str]) -> int:
    """Characters of the words with one space between each two."""
    return sum(map(len, words)) + max(0, len(words) - 1)
