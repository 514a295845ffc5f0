"""Word and character errors between references and hypotheses, counted by jiwer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
        return 100 * (self.sub + self.del_ + self.ins) / self.words if self.words else None

    @property
    def cer(self) -> float | None:
        """Character error rate in percent."""
        return 100 * self.char_errors / self.chars if self.chars else None

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def score(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Count the errors of each hypothesis against its reference; both normalised already. Raises ValueError where their numbers differ.

    An utterance whose reference is empty counts too: whatever was transcribed there was invented.
    """
    import jiwer

    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references and {len(hypotheses)} hypotheses")
    pairs = [(" ".join(r.split()), " ".join(h.split())) for r, h in zip(references, hypotheses, strict=True)]
    spoken = [(r, h) for r, h in pairs if r]
    silent = [h for r, h in pairs if not r]
    counts = ErrorCounts(utterances=len(silent), ins=sum(len(h.split()) for h in silent), char_errors=sum(len(h) for h in silent))
    if not spoken:
        return counts
    said, heard = [r for r, _ in spoken], [h for _, h in spoken]
    words, chars = jiwer.process_words(said, heard), jiwer.process_characters(said, heard)
    return counts + ErrorCounts(
        utterances=len(spoken),
        words=words.hits + words.substitutions + words.deletions,
        sub=words.substitutions,
        del_=words.deletions,
        ins=words.insertions,
        chars=chars.hits + chars.substitutions + chars.deletions,
        char_errors=chars.substitutions + chars.deletions + chars.insertions,
    )
