"""Hugging Face data sets, on disk or on the hub, through `datasets` with `Audio(decode=False)`: the bytes are decoded by melcli.

    hf:openslr/librispeech_asr:clean:validation      a data set on the hub: repository, configuration, split
    hf:./parquet_folder                              a folder that `datasets.load_dataset` can load
    ./saved                                          what `save_to_disk` wrote

Audio kept inside the data set gets an address, `hf:DATASET:CONFIG:SPLIT:COLUMN#ROW`, which `load_bytes` resolves when it is wanted.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from melcli.data.utterance import Utterance
from melcli.errors import ManifestError, first_line, nearest

TEXT = ("text", "sentence", "normalized_text", "transcript", "transcription", "question", "raw_text")  # the leaderboard's order, then others
SPEAKER = ("speaker_id", "speaker", "client_id")
ID = ("id", "utterance_id", "utt_id")
ANSWER = ("answers", "answer")  # what a question's row keeps beside its text
DURATION = ("duration", "audio_length_s", "duration_s", "audio_duration")


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise ManifestError("Hugging Face data sets need the package 'datasets': pip install datasets") from None
    return datasets


def _quiet_retries() -> None:
    """Without network the hub's library says so a dozen times before it gives up; our error says it once."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()


def is_saved(folder: Path) -> bool:
    """Whether a folder is what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    return (folder / "dataset_dict.json").is_file() or ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file())


@functools.lru_cache(maxsize=8)
def _open(name: str, config: str, split: str) -> Any:
    """The opened data set with undecoded audio; `split` may be empty for a saved data set that has none."""
    datasets = _library()
    _quiet_retries()
    folder = Path(name)
    try:
        if folder.is_dir() and is_saved(folder):
            opened = datasets.load_from_disk(name)
            if isinstance(opened, datasets.DatasetDict):
                if split not in opened:
                    raise ManifestError(f"{name}: no split '{split}'; its splits are {', '.join(opened)}.{nearest(split, opened)}")
                opened = opened[split]
        else:
            opened = datasets.load_dataset(name, config or None, split=split)
    except ManifestError:
        raise
    except Exception as error:  # the library raises many kinds, down to OSError and its own
        raise ManifestError(f"hf:{name}: cannot be opened, {first_line(error)}") from None
    for column, feature in opened.features.items():
        if isinstance(feature, datasets.Audio):
            opened = opened.cast_column(column, datasets.Audio(decode=False))
    return opened


def _audio_column(opened: Any, source: str) -> str:
    datasets = _library()
    columns = [name for name, feature in opened.features.items() if isinstance(feature, datasets.Audio)]
    if not columns:
        raise ManifestError(f"{source}: no audio column; its columns are {', '.join(opened.features)}")
    return "audio" if "audio" in columns else columns[0]


def _read(name: str, config: str, split: str, source: str) -> list[Utterance]:
    opened = _open(name, config, split)
    column = _audio_column(opened, source)
    if not len(opened):
        raise ManifestError(f"{source}: no rows")
    prefix = f"hf:{name}:{config}:{split}:{column}#"
    first = opened[0][column]
    inside = first.get("bytes") is not None
    rows = opened.remove_columns(column) if inside else opened

    def pick(row: dict[str, Any], keys: tuple[str, ...]) -> Any:
        return next((row[key] for key in keys if row.get(key) is not None), None)

    utterances = []
    for index, row in enumerate(rows):
        audio = None if inside else row.pop(column)["path"]
        duration, speaker, key = pick(row, DURATION), pick(row, SPEAKER), pick(row, ID)
        utterances.append(
            Utterance(
                id=str(key) if key is not None else f"{split or Path(name).name}-{index:06d}",
                audio=(f"{prefix}{index}" if audio is None else str(Path(audio).absolute()),),
                text=pick(row, TEXT),
                duration=float(duration) if duration is not None else None,
                speaker=None if speaker is None else str(speaker),
                extra={name: row[name] for name in ANSWER if row.get(name) is not None},
            )
        )
    return utterances


def read_saved(folder: Path, split: str | None = None) -> list[Utterance]:
    """The utterances of a saved data set; of all its splits where it has several and none is named."""
    path = str(folder.resolve())
    if not (folder / "dataset_dict.json").is_file():
        return _read(path, "", "", str(folder))
    splits = [split] if split else list(_library().load_from_disk(path))
    return [utterance for name in splits for utterance in _read(path, "", name, str(folder))]


def _configurations(name: str) -> list[str]:
    try:
        return list(_library().get_dataset_config_names(name))
    except Exception:  # offline, or a folder the library cannot list: then the part is read as a split
        return []


def read_hf(source: str) -> list[Utterance]:
    """The utterances of `hf:NAME[:CONFIG][:SPLIT]`.

    The split is `train` where none is given; one part alone is a configuration if there is one of that name, else a split.
    """
    name, *rest = source.removeprefix("hf:").split(":")
    if not name or len(rest) > 2:
        raise ManifestError(f"{source}: expected hf:REPOSITORY[:CONFIG][:SPLIT]")
    if os.path.isdir(name):  # says no where Path.is_dir raises, as to a name too long for a file
        folder = Path(name)
        if is_saved(folder):
            return read_saved(folder, rest[-1] if rest else None)
        name = str(folder.resolve())
    config, split = "", "train"
    if len(rest) == 2:
        config, split = rest
    elif rest:
        config, split = (rest[0], "train") if rest[0] in _configurations(name) else ("", rest[0])
    return _read(name, config, split, source)


def load_bytes(address: str) -> bytes:
    """The encoded audio behind an `hf:` address of an utterance."""
    place, _, row = address.removeprefix("hf:").rpartition("#")
    try:
        name, config, split, column = place.rsplit(":", 3)
        opened = _open(name, config, split)
        value = opened[int(row)][column]["bytes"]
    except (ValueError, KeyError, IndexError):
        raise ManifestError(f"{address}: not an address of audio in a data set (hf:DATASET:CONFIG:SPLIT:COLUMN#ROW)") from None
    if value is None:
        raise ManifestError(f"{address}: this row holds no audio")
    return value
