"""Protocols: everything that decides an error rate besides the texts, under one name.

A protocol fixes how texts are normalised, which pairs are left out, how words are aligned, and how rates are rounded and averaged.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from melcli import registry
from melcli.errors import UsageError
from melcli.scoring import alignment, normalize
from melcli.scoring.alignment import Pair
from melcli.scoring.wer import ErrorCounts, score_pair


def _nothing(reference: str) -> bool:
    return False


def _no_rules() -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How references and hypotheses become error counts.

    version: changes whenever a text may come out otherwise. normalise: a text to the form that is compared. merge_compounds: whether "white paper"
    for "whitepaper" costs nothing. drops: whether a pair with this normalised reference is left out. rules: the patterns and tables that
    `normalise` goes by, for the digest. libraries: the packages that take part. places: digits that rates in percent are rounded to.
    """

    name: str
    version: str
    normalise: Callable[[str], str]
    merge_compounds: bool = False
    drops: Callable[[str], bool] = _nothing
    rules: Callable[[], Mapping[str, object]] = _no_rules
    libraries: tuple[str, ...] = ("rapidfuzz",)
    places: int = 2

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with the rules, the tables, the Unicode version and the versions of the libraries."""
        libraries = {library: version(library) for library in self.libraries}
        parts = (self.name, self.version, self.merge_compounds, self.drops.__qualname__, self.places, unicodedata.unidata_version, libraries)
        return hashlib.sha256(json.dumps([*parts, self.rules()], sort_keys=True).encode()).hexdigest()[:12]

    def stamp(self) -> dict[str, str]:
        """What scores are marked with, for output as JSON."""
        return {"protocol": self.name, "protocol_version": self.version, "protocol_digest": self.digest}

    def check(self) -> None:
        """Raises UsageError where a library is missing."""
        for library in self.libraries:
            try:
                version(library)
            except PackageNotFoundError:
                raise UsageError(f"protocol '{self.name}' needs {library}, which is not installed: pip install 'melcli[score]'.") from None

    def score_each(self, references: Sequence[str], hypotheses: Sequence[str]) -> list[ErrorCounts | None]:
        """The errors of each raw hypothesis against its raw reference; None where the pair is left out. Raises ValueError where numbers differ."""
        found: list[ErrorCounts | None] = []
        for reference, hypothesis in zip(references, hypotheses, strict=True):
            said = self.normalise(reference)
            found.append(None if self.drops(said) else score_pair(said, self.normalise(hypothesis), self.merge_compounds))
        return found

    def align(self, reference: str, hypothesis: str) -> list[Pair]:
        """The normalised words of a raw pair side by side, with as many errors as `score_each` counts."""
        return alignment.pairs(self.normalise(reference).split(), self.normalise(hypothesis).split(), self.merge_compounds)

    def rounded(self, rate: float | None) -> float | None:
        """A set's rate in percent as it is shown."""
        return None if rate is None else round(rate, self.places)

    def average(self, rates: Sequence[float | None]) -> float | None:
        """The mean of sets' rates, each rounded first and counting the same, as on the leaderboard. None where one is unknown or there is none."""
        shown = [self.rounded(rate) for rate in rates if rate is not None]
        return round(sum(shown) / len(shown), self.places) if shown and len(shown) == len(rates) else None


PLAIN = Protocol("plain", "1", normalize.plain)
NONE = Protocol("none", "1", normalize.none)


def get(name: str) -> Protocol:
    """A protocol by name, ready to use. Raises RegistryError saying which exist, UsageError where a library is missing."""
    protocol: Protocol = registry.get("protocol", name).load()
    protocol.check()
    return protocol
