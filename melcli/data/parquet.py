"""Parquet files with the audio inside their rows, which is how the Hugging Face hub stores data sets.

Texts are read without the audio; audio is read a row group at a time, so that memory does not grow with the data set. An utterance's audio has the
address `parquet:FILE#ROW`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melcli.data.hf import ANSWER, DURATION, ID, SPEAKER, TEXT
from melcli.data.rows import MOST_SECONDS
from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, first_line

PREFIX = "parquet:"
BROKEN = (OSError, ValueError, TypeError, LookupError, NotImplementedError, MemoryError)  # pyarrow's own errors are among these
CHUNK_KEYS = ("parent_id", "chunk_index")  # of a long recording that was cut: which one, and which piece of it


def _library() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ManifestError("parquet files need the package 'pyarrow': pip install 'melcli[score]'") from None
    return pyarrow.parquet


@functools.lru_cache(maxsize=4)
def _open(path: str) -> Any:
    """The opened file. Raises ManifestError where it is missing, cut off or no parquet."""
    library = _library()
    try:
        return library.ParquetFile(path)
    except BROKEN as error:
        raise ManifestError(f"{path}: not a whole parquet file ({first_line(error)})") from None


def _audio_column(path: str) -> str:
    """The column `audio`, or the only one that holds bytes."""
    names = _open(path).schema_arrow.names
    if "audio" in names:
        return "audio"
    binary = [field.name for field in _open(path).schema_arrow if "binary" in str(field.type)]
    if len(binary) != 1:
        raise ManifestError(f"{path}: no column 'audio'; its columns are {', '.join(names)}")
    return binary[0]


def read_table(path: Path) -> list[dict[str, Any]]:
    """All rows without their audio. Raises ManifestError."""
    file = _open(str(path))
    if file.metadata.num_rows > path.stat().st_size:
        raise ManifestError(f"{path}: claims {file.metadata.num_rows:,} rows in {path.stat().st_size:,} bytes")
    columns = [field.name for field in file.schema_arrow if "binary" not in str(field.type)]
    try:
        return file.read(columns=columns).to_pylist()
    except BROKEN as error:
        raise ManifestError(f"{path}: cannot be read ({first_line(error)})") from None


def text_column(names: Sequence[str], where: str | Path) -> str:
    """The column with the text to score against: the first of TEXT that is there. Raises ManifestError saying which columns there are."""
    column = next((name for name in TEXT if name in names), None)
    if column is None:
        raise ManifestError(f"{where}: no text; one of {', '.join(TEXT[:5])} was expected, its columns are {', '.join(names)}")
    return column


def utterance_of(row: dict[str, Any], audio: str, text: str | None, fallback: str) -> Utterance:
    """The utterance of one row of a data set. fallback: its id where the row has none."""

    def pick(keys: Sequence[str]) -> Any:
        return next((row[key] for key in keys if row.get(key) is not None), None)

    key, duration, speaker = pick(ID), pick(DURATION), pick(SPEAKER)
    if text is not None and not isinstance(text, str):
        raise ManifestError(f"{audio}: its text is {str(text)[:60]!r}, expected a string")
    try:
        duration = None if duration is None else float(duration)
    except (TypeError, ValueError):
        duration = -1.0
    if duration is not None and not 0 <= duration <= MOST_SECONDS:
        raise ManifestError(f"{audio}: its duration is {str(pick(DURATION))[:60]}, expected seconds as a number of at least 0")
    return Utterance(
        id=fallback if key is None else str(key),
        audio=(audio,),
        text=text,
        duration=duration,
        speaker=None if speaker is None else str(speaker),
        extra={name: row[name] for name in (*CHUNK_KEYS, *ANSWER) if row.get(name) is not None},
    )


def read_parquet(paths: Sequence[Path], references: dict[str, str] | None = None) -> list[Utterance]:
    """The utterances of the files of one split. references: texts by `parent_id`, where rows have none of their own."""
    utterances: list[Utterance] = []
    for path in paths:
        names = _open(str(path)).schema_arrow.names
        _audio_column(str(path))
        column = text_column(names, path) if references is None else None
        for number, row in enumerate(read_table(path)):
            text = row[column] if column else (references or {}).get(str(row.get("parent_id")))
            utterances.append(utterance_of(row, f"{PREFIX}{path.absolute()}#{number}", text, f"{path.stem}-{number:06d}"))
    return utterances


@functools.lru_cache(maxsize=2)
def _group(path: str, index: int) -> Any:
    try:
        return _open(path).read_row_group(index, columns=[_audio_column(path)]).column(0)
    except BROKEN as error:
        raise ManifestError(f"{path}: row group {index} cannot be read ({first_line(error)})") from None


def load_bytes(address: str) -> bytes:
    """The encoded audio behind a `parquet:` address. Raises ManifestError."""
    path, _, row = address.removeprefix(PREFIX).rpartition("#")
    if not row.isdecimal() or len(row) > 18:
        raise ManifestError(f"{address}: no address of a row of a parquet file ({PREFIX}FILE#ROW)")
    metadata, number = _open(path).metadata, int(row)
    for index in range(metadata.num_row_groups):
        rows = metadata.row_group(index).num_rows
        if number < rows:
            value = _group(path, index)[number].as_py()
            found = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(found, bytes):
                raise ManifestError(f"{address}: this row holds no audio")
            return found
        number -= rows
    raise ManifestError(f"{address}: there is no such row")
