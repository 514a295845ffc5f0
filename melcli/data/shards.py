"""Feature shards: log-mel spectrograms on disk, read as memory-mapped slices.

A folder holds, for n = 00000, 00001, ...:

    shard-n.safetensors   mel [sum of T, M], offsets int64 [utterances + 1], sum and sum of squares float64 [M], checksums int64 [utterances], the
                          CRC-32 of each one's frames; metadata: what it was made of, and the CRC-32 of its rows
    shard-n.jsonl         a row an utterance: the fields of `Utterance` and its `frames`
    features.json         the MelSpec, dtype, statistics over all frames and the shards; written last, so its presence says the set is whole

Every file is written under a temporary name and renamed, the .safetensors after its .jsonl: a shard that is there is whole. The folder may
be behind an address (data/remote.py): then a shard is copied to this machine when an utterance of it is first wanted.

Shapes: T mel frames, M mel bins.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.data.remote import RemoteFolder
from melcli.data.rows import from_row, read_lines, to_row
from melcli.data.utterance import Utterance
from melcli.errors import ShardError, first_line
from melcli.files import replacing, write_text
from melcli.untrusted import parse_json

FORMAT = 1
SUMMARY = "features.json"
MOST_FRAMES = 10_000_000  # of an utterance: a day
OPEN_COPIES = 32  # shards behind an address that one process keeps open
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_ROWS = "rows"
_NAME = re.compile(r"shard-[0-9]+\.safetensors")
_KEY = "melcli"  # the one metadata entry: with several, safetensors writes them in no fixed order, and equal shards would differ in their bytes


def shard_path(folder: Path, index: int) -> Path:
    """Where shard `index` is; its rows are in the .jsonl of the same name."""
    return folder / f"shard-{index:05d}.safetensors"


def write_shard(
    path: Path, mel_TM: Tensor, frames: Sequence[int], utterances: Sequence[Utterance], sums_2M: Tensor, metadata: Mapping[str, Any]
) -> int:
    """Write one shard; returns its bytes on disk. mel_TM: all utterances end to end; sums_2M: float64, sum and sum of squares over its frames."""
    rows = [json.dumps(to_row(utterance) | {"frames": count}, ensure_ascii=False) for utterance, count in zip(utterances, frames, strict=True)]
    lines = "".join(row + "\n" for row in rows)
    write_text(path.with_suffix(".jsonl"), lines)
    offsets = torch.zeros(len(frames) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor(list(frames), dtype=torch.int64).cumsum(0)
    sums = torch.tensor([checksum(part_TM) for part_TM in mel_TM.split(list(frames))] if frames else [], dtype=torch.int64)
    tensors = {"mel": mel_TM, "offsets": offsets, "sum": sums_2M[0].clone(), "sum_of_squares": sums_2M[1].clone(), "checksums": sums}
    about = {**metadata, _ROWS: zlib.crc32(lines.encode())}
    with replacing(path) as temporary:
        # save_file, when it is killed, leaves a scratch file of its own behind
        temporary.write_bytes(save(tensors, metadata={_KEY: json.dumps(about, sort_keys=True)}))
    return path.stat().st_size + path.with_suffix(".jsonl").stat().st_size


def checksum(mel_TM: Tensor) -> int:
    """CRC-32 of the frames of an utterance as they are stored."""
    return zlib.crc32(mel_TM.contiguous().view(torch.uint8).numpy()) if len(mel_TM) else 0


@dataclass(frozen=True)
class ShardHead:
    """What a shard says of itself without its frames being read. `metadata` is what `write_shard` was given.

    rows: the CRC-32 of its rows, None in shards from before there was one.
    """

    metadata: dict[str, Any]
    utterances: int
    frames: int
    sums_2M: Tensor
    rows: int | None = None


def is_foreign(path: Path) -> bool:
    """Whether a file is a whole safetensors file that `write_shard` did not write: another program's, perhaps the only copy."""
    try:
        with safe_open(path, "pt") as shard:
            return _KEY not in (shard.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_head(path: Path) -> ShardHead:
    """The head of a shard. ShardError where the file is broken, truncated, or not a feature shard."""
    try:
        with safe_open(path, "pt") as shard:
            metadata = parse_json((shard.metadata() or {})[_KEY])
            offsets = shard.get_tensor("offsets")
            frames = shard.get_slice("mel").get_shape()[0]
            sums_2M = torch.stack([shard.get_tensor("sum"), shard.get_tensor("sum_of_squares")])
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise ShardError(f"{path}: not a whole feature shard ({error}); delete it and run featurize again") from None
    if not path.with_suffix(".jsonl").is_file():
        raise ShardError(f"{path}: its rows {path.with_suffix('.jsonl').name} are missing; delete it and run featurize again")
    if not isinstance(metadata, dict) or offsets.dim() != 1 or not len(offsets) or offsets.is_floating_point() or sums_2M.dim() != 2:
        raise ShardError(f"{path}: not a whole feature shard; delete it and run featurize again")
    rows = metadata.pop(_ROWS, None)
    _check_rows(path.with_suffix(".jsonl"), rows)
    if int(offsets[-1]) != frames:
        raise ShardError(f"{path}: offsets end at {int(offsets[-1])} of {frames} frames; delete it and run featurize again")
    return ShardHead(metadata, len(offsets) - 1, frames, sums_2M, rows)


def _check_rows(path: Path, wanted: int | None) -> None:
    """Raises ShardError where rows are not those of this CRC-32; sets made before there was one have none."""
    try:
        whole = wanted is None or zlib.crc32(path.read_bytes()) == wanted
    except OSError as error:
        raise ShardError(f"{path}: cannot be read ({error.strerror}); run featurize again") from None
    if not whole:
        raise ShardError(f"{path}: damaged (checksum); run featurize again")


def _check_summary(spec: MelSpec, mean_M: Tensor, std_M: Tensor, files: Sequence[str], dtype: str) -> None:
    """Raises ValueError where the statistics are none of this mel, or where a shard would not be one of this folder."""
    if mean_M.shape != (spec.n_mels,) or std_M.shape != (spec.n_mels,) or not bool((mean_M + std_M).isfinite().all()):
        raise ValueError(f"mean and std are not {spec.n_mels} numbers each")
    if stray := next((name for name in files if not _NAME.fullmatch(name)), None):
        raise ValueError(f"{stray[:60]!r} is no name of a shard")
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")


@dataclass
class FeatureShards:
    """A folder of feature shards.

    utterances and frames are in shard order; mean_M and std_M are float32, over all frames of the set.
    """

    folder: Path
    spec: MelSpec
    dtype: str
    utterances: list[Utterance]
    frames: list[int]
    mean_M: Tensor
    std_M: Tensor
    summary: dict[str, Any]
    firsts: list[int]  # index of the first utterance of each shard
    remote: RemoteFolder | None = None
    _open: dict[int, tuple[Tensor, list[int], list[int] | None]] = field(default_factory=dict, repr=False)
    _checked: bytearray = field(default_factory=bytearray, repr=False)  # a byte an utterance: whether its frames were found whole

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | RemoteFolder, spec: MelSpec | None = None) -> FeatureShards:
        """Open what `melcli featurize` wrote, on this machine or behind an address.

        spec: the one wanted; other features are a ShardError that names the first differences. ShardError too for a folder without features, an
        unfinished one, and broken files.
        """
        remote = folder if isinstance(folder, RemoteFolder) else None
        folder = Path(folder) if remote is None else remote.folder
        if remote is not None:
            remote.refresh(SUMMARY)
        path = folder / SUMMARY
        if not path.is_file():
            unfinished = any(folder.glob("shard-*.safetensors"))
            hint = "featurize was interrupted: run the same command again" if unfinished else "not a folder that `melcli featurize` wrote"
            raise ShardError(f"{folder}: no {SUMMARY}, {hint}")
        try:
            summary = parse_json(path.read_text(encoding="utf-8"))
            made = MelSpec.model_validate(summary["mel"])
            mean_M, std_M = torch.tensor(summary["mean"]), torch.tensor(summary["std"])
            shards = [(folder / entry["file"], int(entry["utterances"]), entry.get("rows")) for entry in summary["shards"]]
            dtype = summary["dtype"]
            _check_summary(made, mean_M, std_M, [entry["file"] for entry in summary["shards"]], dtype)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError, ValidationError) as error:
            raise ShardError(f"{path}: broken ({first_line(error)}); run featurize again with --overwrite") from None
        if spec is not None and (difference := made.difference(spec)) is not None:
            raise ShardError(f"{folder}: features of another mel than is wanted: {difference}; run featurize with the --mel that is wanted")
        if remote is not None:
            remote.fetch_all(file.with_suffix(".jsonl").name for file, *_ in shards)
        utterances: list[Utterance] = []
        frames: list[int] = []
        firsts = []
        for file, count, sum_of_rows in shards:
            firsts.append(len(utterances))
            _check_rows(file.with_suffix(".jsonl"), sum_of_rows)
            for where, row in read_lines(file.with_suffix(".jsonl")):
                if type(count_of := row.pop("frames", None)) is not int or not 0 <= count_of <= MOST_FRAMES:
                    raise ShardError(f"{where}: 'frames' is {json.dumps(count_of)[:60]}, expected a whole number; run featurize again")
                frames.append(count_of)
                utterances.append(from_row(row, str(folder), where))
            if len(utterances) - firsts[-1] != count:
                raise ShardError(f"{file.with_suffix('.jsonl')}: {len(utterances) - firsts[-1]} rows, {SUMMARY} says {count}; run featurize again")
        return cls(folder, made, dtype, utterances, frames, mean_M, std_M, summary, firsts, remote)

    def __len__(self) -> int:
        return len(self.utterances)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": {}, "_checked": bytearray()}  # workers map the files themselves

    def mel(self, index: int) -> Tensor:
        """mel_TM of one utterance in the stored dtype: a view of the mapped file. Do not write to it.

        ShardError where the frames are not those that were written; each process looks at an utterance's once.
        """
        if not 0 <= index < len(self.utterances):
            raise IndexError(index)
        number = self.shard_of(index)
        if number not in self._open:
            try:
                self._open[number] = self._map(number)
            except ShardError:
                if self.remote is None:
                    raise
                self._open[number] = self._map(number)  # another process may have had to remove the copy just then
            if self.remote is not None and len(self._open) > OPEN_COPIES:
                del self._open[next(iter(self._open))]
        mel_TM, offsets, checksums = self._open[number]
        row = index - self.firsts[number]
        part_TM = mel_TM[offsets[row] : offsets[row + 1]]
        self._checked = self._checked or bytearray(len(self))
        if checksums is not None and not self._checked[index]:
            if checksum(part_TM) != checksums[row]:
                path = self.folder / self._name(number)
                raise ShardError(
                    f"{path}: the frames of {self.utterances[index].id} are damaged (checksum); delete this file and run featurize again"
                )
            self._checked[index] = 1
        return part_TM

    def shard_of(self, index: int) -> int:
        """The number of the shard that an utterance is in."""
        return bisect.bisect_right(self.firsts, index) - 1

    def ahead(self, indices: Iterable[int]) -> None:
        """Have the shards of utterances that will soon be wanted fetched, where they are behind an address."""
        if self.remote is not None:
            numbers = dict.fromkeys(self.shard_of(index) for index in indices)
            self.remote.ahead(self._name(number) for number in numbers if number not in self._open)

    def _name(self, number: int) -> str:
        return self.summary["shards"][number]["file"]

    def _map(self, number: int) -> tuple[Tensor, list[int], list[int] | None]:
        path = self.folder / self._name(number) if self.remote is None else self.remote.fetch(self._name(number))
        try:
            with safe_open(path, "pt") as shard:
                mel_TM, offsets = shard.get_tensor("mel"), shard.get_tensor("offsets").tolist()
                checksums = shard.get_tensor("checksums").tolist() if "checksums" in shard.keys() else None
        except (SafetensorError, OSError) as error:
            raise ShardError(f"{path}: cannot be read ({error}); delete it and run featurize again") from None
        first, last = self.firsts[number], [*self.firsts, len(self.frames)][number + 1]
        if offsets != [0, *itertools.accumulate(self.frames[first:last])] or mel_TM.shape != (offsets[-1], self.spec.n_mels):
            raise ShardError(f"{path}: its frames are not those that its rows tell of; delete it and run featurize again")
        if mel_TM.dtype not in DTYPES.values():
            raise ShardError(f"{path}: holds {mel_TM.dtype}, which no features are; delete it and run featurize again")
        return mel_TM, offsets, checksums
