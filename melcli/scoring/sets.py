"""What can be scored by name: the sets of the OpenASR leaderboard, one by one and together, and every source of utterances.

openasr                     the seven sets of 2026
openasr-classic             the eight sets of 2023 to March 2026
ami_cleaned                 one set
librispeech                 test-clean and test-other of the corpus
hf:REPO:CONFIG:SPLIT        a split of any data set on the hub, or of a mirror under --root
dev.jsonl, FOLDER, digits:test     any other source (data/manifest.py)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from melcli import registry
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, RegistryError, nearest

LEADERBOARD = "hf-audio/open-asr-leaderboard"
CLASSIC = "hf-audio/esb-datasets-test-only-sorted"
EARNINGS = "ArtificialAnalysis/Earnings22-Cleaned-AA"


@dataclass(frozen=True, slots=True)
class ScoreSet:
    """One set. source: as `read_source` takes it, or `hf:REPO:CONFIG:SPLIT`. column: its heading in the leaderboard's table.

    references: the repository with the texts of whole recordings, where the set holds pieces of them. task: how it is scored unless told otherwise.
    """

    name: str
    source: str
    column: str | None = None
    references: str | None = None
    task: str = "asr"

    @property
    def label(self) -> str:
        """What result files call it: REPO_CONFIG_SPLIT for a split of the hub, otherwise the name of the source."""
        source = self.source.removeprefix("hf:")
        if Path(source).exists():
            source = self.name
        return source.strip("/").replace("/", "-").replace(":", "_").replace("?", "_")

    @property
    def tails(self) -> tuple[str, ...]:
        """Endings of the labels that the leaderboard's scripts give this set; none for a set of no leaderboard."""
        if self.column is None:
            return ()
        repo, config, split = self.source.removeprefix("hf:").split(":")
        return (f"{config}_{split}",) if config else (f"{repo.rpartition('/')[2]}__{split}", f"{self.name}_{split}")

    def read(self, root: Path | None, offline: bool) -> list[Utterance]:
        """Its utterances. root: where corpora and mirrors of the hub are. Raises ManifestError saying what is missing and where it may be placed."""
        from melcli.data import hub, manifest

        if self.source.startswith("hf:") and self.source.count(":") == 3:
            at = (root or manifest.DEFAULT_ROOT).expanduser()
            split = hub.HubSplit(*self.source.removeprefix("hf:").split(":"), self.references)
            if self.column is not None or hub.in_mirror(split, at):
                return hub.read_split(split, at, offline)
            try:
                return manifest.read_source(self.source, root=root, offline=offline)
            except ManifestError as error:
                raise ManifestError(f"{error}; it may be placed in {at / split.repo / split.config}, as parquet files named as on the hub") from None
        return manifest.read_source(self.source, root=root, offline=offline)


@dataclass(frozen=True, slots=True)
class ScoreGroup:
    """Sets that are scored together. protocol: how, unless told otherwise. average: heading of the mean over them in the leaderboard's table."""

    name: str
    members: tuple[str, ...]
    protocol: str | None = None
    average: str = "avg"


def _hub(name: str, repo: str, config: str, split: str, column: str, references: str | None = None) -> ScoreSet:
    return ScoreSet(name, f"hf:{repo}:{config}:{split}", f"{column} WER", references)


_ALL = (
    _hub("ami_cleaned", LEADERBOARD, "ami_cleaned", "test", "AMI-Cleaned"),
    _hub("earnings22_cleaned_aa_chunked", f"{EARNINGS}-chunked", "", "test", "Earnings22-Cleaned-AA-chunked", EARNINGS),
    _hub("gigaspeech_cleaned", LEADERBOARD, "gigaspeech_cleaned", "test", "Gigaspeech-Cleaned"),
    _hub("librispeech_test.clean", LEADERBOARD, "librispeech", "test.clean", "LS Clean"),
    _hub("librispeech_test.other", LEADERBOARD, "librispeech", "test.other", "LS Other"),
    _hub("spgispeech", LEADERBOARD, "spgispeech", "test", "SPGISpeech"),
    _hub("voxpopuli_cleaned_aa", LEADERBOARD, "voxpopuli_cleaned_aa", "test", "Voxpopuli-AA-Cleaned"),
    _hub("ami", CLASSIC, "ami", "test", "AMI"),
    _hub("earnings22", CLASSIC, "earnings22", "test", "Earnings22"),
    _hub("gigaspeech", CLASSIC, "gigaspeech", "test", "Gigaspeech"),
    _hub("tedlium", CLASSIC, "tedlium", "test", "Tedlium"),
    _hub("voxpopuli", CLASSIC, "voxpopuli", "test", "Voxpopuli"),
    ScoreSet("librispeech:test-clean", "librispeech:test-clean"),
    ScoreSet("librispeech:test-other", "librispeech:test-other"),
    ScoreSet("llama-questions", "llama-questions:test", task="answer"),
    ScoreSet("web-questions", "web-questions:test", task="answer"),
    ScoreGroup(
        "openasr",
        (
            "ami_cleaned",
            "earnings22_cleaned_aa_chunked",
            "gigaspeech_cleaned",
            "librispeech_test.clean",
            "librispeech_test.other",
            "spgispeech",
            "voxpopuli_cleaned_aa",
        ),
        "openasr-2026",
    ),
    ScoreGroup(
        "openasr-classic",
        ("ami", "earnings22", "gigaspeech", "librispeech_test.clean", "librispeech_test.other", "spgispeech", "tedlium", "voxpopuli"),
        "openasr-classic",
        "Avg. WER",
    ),
    ScoreGroup("librispeech", ("librispeech:test-clean", "librispeech:test-other")),
)
# A registry target's dots lead into attributes, so keys have none.
SETS: dict[str, ScoreSet | ScoreGroup] = {entry.name.replace(".", "_"): entry for entry in _ALL}


def open_sets(names: Sequence[str]) -> list[ScoreSet]:
    """The sets behind names and sources, each once; called by their whole source where their names are the same.

    Raises RegistryError where a name stands for nothing.
    """
    found = {one.source: one for name in names for one in _expand(name)}
    counts = Counter(one.name for one in found.values())
    return [one if counts[one.name] == 1 else replace(one, name=one.source) for one in found.values()]


def default_protocol(entries: Sequence[ScoreSet | None]) -> tuple[str, str]:
    """The protocol for sets unless another is asked for, and why: that of the leaderboard to which all of them belong, otherwise `plain`.

    None: a set that nobody knows. Sets of both leaderboards alone, such as LibriSpeech's, are scored as the one of 2026.
    """
    group = leaderboard_of([entry.name for entry in entries if entry is not None and entry.column])
    if group is None or group.protocol is None or not all(entry is not None and entry.column for entry in entries):
        return "plain", "the default, since the sets are not those of one leaderboard"
    return group.protocol, f"the sets are {group.name}'s"


def of_label(label: str) -> ScoreSet | None:
    """The set that a result file of this label is of, whoever wrote it; None where nobody knows.

    Files of the leaderboard's own scripts are called REPO_CONFIG_SPLIT, '/' written as '-' in REPO; those of a repository without configurations
    REPO__SPLIT. Without a repository's owner in front the same words may mean anything.
    """
    for entry in SETS.values():
        if isinstance(entry, ScoreSet):
            if entry.column is None and label == entry.label:
                return entry
            before = next((label.removesuffix(tail) for tail in entry.tails if label.endswith(tail)), "")
            if "-" in before and before[-1] in "_-":
                return entry
    return None


def by_label(label: str) -> str:
    """The name of the set that a result file of this label is of; the label itself where nobody knows."""
    entry = of_label(label)
    return label if entry is None else entry.name


def in_order(names: Iterable[str]) -> list[str]:
    """Names of sets in the order of the leaderboard, others behind them."""
    order = [entry.name for entry in SETS.values()]
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def leaderboard_of(names: Sequence[str]) -> ScoreGroup | None:
    """The leaderboard whose table these sets belong to: the first that has them all."""
    groups = (entry for entry in SETS.values() if isinstance(entry, ScoreGroup) and entry.protocol)
    return next((group for group in groups if names and set(names) <= set(group.members)), None)


def _expand(name: str) -> Iterator[ScoreSet]:
    from melcli.data.corpora import CORPORA

    known = registry.names("score-set")
    if name in known and not Path(name).exists():
        entry = registry.get("score-set", name).load()
        if isinstance(entry, ScoreGroup):
            yield from (SETS[member.replace(".", "_")] for member in entry.members)  # type: ignore[misc]
        else:
            yield entry
        return
    base = name.partition("?")[0]
    if not (Path(base).expanduser().exists() or base.startswith("hf:") or base.partition(":")[0] in CORPORA or "/" in base or "." in base):
        choices = [*known, *CORPORA]
        raise RegistryError(f"--set {name}: neither a set, nor a corpus, nor a file.{nearest(name, choices)} The sets are: {', '.join(known)}.")
    same = next((entry for entry in SETS.values() if isinstance(entry, ScoreSet) and entry.column and entry.source == name), None)
    if same is not None:
        yield same
        return
    short = Path(name).name.removesuffix(".gz").removesuffix(".jsonl") if Path(name).exists() else name
    yield ScoreSet(short, name)
