"""Splits of data sets on the Hugging Face hub, read out of the hub's own files: from a mirror on disk, else from the hub's cache, filled when needed.

A mirror has the layout of the hub's repositories below one folder:

    ROOT/hf-audio/open-asr-leaderboard/ami_cleaned/test-00000-of-00002.parquet       ROOT/REPO/CONFIG/SPLIT-*.parquet
    ROOT/ArtificialAnalysis/Earnings22-Cleaned-AA-chunked/*.jsonl, audio/*.mp3       rows with `file_name`, the audio beside them
    ROOT/ArtificialAnalysis/Earnings22-Cleaned-AA/*.jsonl                            the texts of the whole calls

The owner's folder may be left out, and where ROOT is the repository itself, its name too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melcli.data.hf import DURATION, ID
from melcli.data.parquet import CHUNK_KEYS, read_parquet, read_table, text_column, utterance_of
from melcli.data.rows import read_lines
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, first_line
from melcli.hub import told

_PART = re.compile(r"-(\d{5})-of-(\d{5})")


@dataclass(frozen=True, slots=True)
class HubSplit:
    """One split of one data set on the hub. references: the repository that holds the texts of the recordings this one holds pieces of."""

    repo: str
    config: str
    split: str
    references: str | None = None

    def patterns(self) -> tuple[str, ...]:
        """The files that can hold it, below the repository's folder."""
        homes = (self.config,) if self.config else ("data", "default", ".")
        tables = [f"{home}/{self.split}{tail}.parquet".removeprefix("./") for home in homes for tail in ("-*", "", "/*")]
        return (*tables, *(() if self.config else ("*.jsonl", "*.csv")))


def read_split(split: HubSplit, root: Path | None = None, offline: bool = False) -> list[Utterance]:
    """The utterances of a split, their texts as they were published.

    root: a mirror to look into first. offline: never ask the hub. Raises ManifestError, saying what is missing and where it may be placed.
    """
    references = None
    if split.references is not None:
        parent = HubSplit(split.references, "", split.split)
        references = _texts(_locate(parent, root, offline, ()))
    files = _locate(split, root, offline, ("audio/*",) if split.references else ())
    if files[0].suffix == ".parquet":
        utterances = read_parquet(files, references)
    else:
        utterances = [utterance for path in files for utterance in _read_listing(path, references)]
    if not utterances:
        raise ManifestError(f"{files[0]}: no rows")
    if references is not None:
        _check_pieces(utterances, split, files[0])
    return utterances


def _check_pieces(utterances: Sequence[Utterance], split: HubSplit, where: Path) -> None:
    """Raises ManifestError where an utterance does not say which piece of which recording it is, or that recording has no text."""
    if lacking := [key for key in CHUNK_KEYS if any(key not in u.extra for u in utterances)]:
        raise ManifestError(f"{where}: no '{lacking[0]}' in some rows; the pieces of a recording cannot be put together without it")
    lost = sorted({str(u.extra["parent_id"]) for u in utterances if u.text is None})
    if lost:
        raise ManifestError(f"{split.repo}: no text in {split.references} for {', '.join(lost[:5])}; the two are of different versions")


def in_mirror(split: HubSplit, root: Path | None) -> bool:
    """Whether a mirror holds the split."""
    return root is not None and bool(_in_mirror(split, root))


def _locate(split: HubSplit, root: Path | None, offline: bool, more: Sequence[str]) -> list[Path]:
    """The files of a split, all of them. more: patterns of further files to fetch."""
    found = _in_mirror(split, root) if root is not None else []
    if not found:
        found = _find(_fetch(split, root, offline, more), split)
        if not found:
            raise ManifestError(f"{split.repo}: holds no {split.patterns()[0]}; it was laid out anew, or is not all on this machine")
    _check_whole(found)
    return found


def _in_mirror(split: HubSplit, root: Path) -> list[Path]:
    homes = (root / split.repo, root / split.repo.rpartition("/")[2], *((root,) if split.config else ()))
    return next((files for home in homes if (files := _find(home, split))), [])


def _find(folder: Path, split: HubSplit) -> list[Path]:
    return next((files for pattern in split.patterns() if (files := sorted(folder.glob(pattern)))), [])


def _check_whole(files: Sequence[Path]) -> None:
    """Files say in their names how many there are. Raises ManifestError for those that are not there."""
    there = {path.name for path in files}
    for path in files:
        if part := _PART.search(path.name):
            names = [f"{path.name[: part.start()]}-{i:05d}-of-{part[2]}{path.name[part.end() :]}" for i in range(int(part[2]))]
            missing = [name for name in names if name not in there]
            if missing:
                raise ManifestError(f"{path.parent}: incomplete, {len(missing)} of {part[2]} files are missing: {', '.join(missing[:3])}")


def _fetch(split: HubSplit, root: Path | None, offline: bool, more: Sequence[str]) -> Path:
    """The repository's folder in the hub's cache, with the files of the split. Raises ManifestError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    remedy = f"place its files in {(root or Path('ROOT')) / split.repo / split.config}, named as on the hub, and give --root {root or 'ROOT'}"
    try:
        folder = Path(snapshot_download(split.repo, repo_type="dataset", allow_patterns=[*split.patterns(), *more], local_files_only=offline))
    except (GatedRepoError, RepositoryNotFoundError):
        raise ManifestError(
            f"{split.repo}: the hub does not let you in; accept its terms at https://huggingface.co/datasets/{split.repo} and log in with "
            f"`hf auth login` (or set HF_TOKEN), or {remedy}"
        ) from None
    except Exception as error:  # the library raises many kinds: no network, no disk, a proxy's page
        why = "not on this machine" if offline else f"not on this machine, and the hub cannot be reached ({type(error).__name__})"
        raise ManifestError(f"{split.repo}: {why}; {remedy}") from None
    told(split.repo, folder)
    return folder


def _rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return read_table(path)
    if path.suffix == ".csv":
        return _csv(path)
    return [row for _, row in read_lines(path)]


def _csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a table with a head. Raises ManifestError with file and line."""
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            for row in (reader := csv.DictReader(lines)):
                if None in row or None in row.values():
                    raise ManifestError(
                        f"{path}:{reader.line_num}: not as many fields as the first line names ({', '.join(map(str, reader.fieldnames))})"
                    )
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path}: cannot be read as a table ({first_line(error)})") from None
    return rows


def _texts(files: Sequence[Path]) -> dict[str, str]:
    """Texts by the id of the recording."""
    found: dict[str, str] = {}
    for path in files:
        for row in _rows(path):
            column = text_column(list(row), path)
            key = next((row[name] for name in ID if row.get(name) is not None), None)
            if key is None or not isinstance(row[column], str):
                raise ManifestError(f"{path}: a row without an id or a text ({', '.join(row)})")
            found[str(key)] = row[column]
    return found


def _read_listing(path: Path, references: dict[str, str] | None) -> list[Utterance]:
    """Utterances of a table whose audio lies beside it, in `audio/` or where `file_name` says."""
    utterances = []
    for number, row in enumerate(_rows(path)):
        name = row.get("file_name")
        if not isinstance(name, str) or not name.strip("/.") or "\0" in name:
            raise ManifestError(f"{path}: row {number + 1} has no 'file_name'; its columns are {', '.join(row)}")
        audio = path.parent / "audio" / name
        audio = audio if audio.exists() or not (path.parent / name).exists() else path.parent / name
        text = row[text_column(list(row), path)] if references is None else references.get(str(row.get("parent_id")))
        try:
            if row.get("chunk_index") is not None:
                row["chunk_index"] = int(row["chunk_index"])
            row |= {key: float(row[key]) for key in DURATION if row.get(key)}
        except (ValueError, TypeError, OverflowError) as error:
            raise ManifestError(f"{path}: row {number + 1}: {first_line(error)}") from None
        utterances.append(utterance_of(row, str(audio.absolute()), text, Path(name).stem))
    return utterances
