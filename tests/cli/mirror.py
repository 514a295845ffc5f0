"""A mirror of the leaderboard's data sets in the layout of their repositories on the hub, small enough to be read aloud by nobody: bundled clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import melcli

CLIPS = Path(melcli.__file__).parent / "assets" / "clips"
REPO = "hf-audio/open-asr-leaderboard"
PARQUET = {  # set: (config, split, column of the text, how many files)
    "ami_cleaned": ("ami_cleaned", "test", "text", 2),
    "gigaspeech_cleaned": ("gigaspeech_cleaned", "test", "sentence", 1),
    "librispeech_test.clean": ("librispeech", "test.clean", "text", 1),
    "librispeech_test.other": ("librispeech", "test.other", "text", 1),
    "spgispeech": ("spgispeech", "test", "transcript", 1),
    "voxpopuli_cleaned_aa": ("voxpopuli_cleaned_aa", "test", "normalized_text", 1),
}
NAMES = sorted([*PARQUET, "earnings22_cleaned_aa_chunked"])


def clips() -> list[tuple[str, bytes, str]]:
    """(name, encoded audio, text) of the clips in the package."""
    return [(path.stem, path.read_bytes(), path.with_suffix(".txt").read_text().strip()) for path in sorted(CLIPS.glob("*.wav"))]


def write_parquet(path: Path, rows: list[dict[str, Any]], group: int = 1) -> None:
    """Rows with an `audio` of bytes and path, as `datasets` pushes them to the hub."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {key: pa.array([row[key] for row in rows], audio if key == "audio" else None) for key in rows[0]}
    pq.write_table(pa.table(columns), path, row_group_size=group)


def rows(name: str, column: str, prefix: str) -> list[dict[str, Any]]:
    """A row a clip."""
    found = []
    for stem, data, text in clips():
        audio = {"bytes": data, "path": f"{stem}.wav"}
        found.append({"audio": audio, "dataset": name, column: text.capitalize() + ".", "id": f"{prefix}/{stem}", "audio_length_s": 1.0})
    return found


def build(root: Path) -> Path:
    """All seven sets: six of parquet files, and calls in pieces, their texts in a repository of their own."""
    for name, (config, split, column, files) in PARQUET.items():
        for part in range(files):
            file = root / REPO / config / f"{split}-{part:05d}-of-{files:05d}.parquet"
            write_parquet(file, rows(name, column, f"{name}-{part}"))
            for row in pq.read_table(file).to_pylist():
                assert row["audio"]["bytes"]
    calls = root / "ArtificialAnalysis" / "Earnings22-Cleaned-AA"
    pieces = root / "ArtificialAnalysis" / "Earnings22-Cleaned-AA-chunked"
    (pieces / "audio").mkdir(parents=True)
    calls.mkdir(parents=True)
    listed, texts = [], []
    for call in ("4320211", "4341191"):
        for index, (_, data, _) in enumerate(clips()):
            (pieces / "audio" / f"{call}_{index:03d}.wav").write_bytes(data)
            listed.append({"id": f"{call}_{index:03d}", "parent_id": call, "chunk_index": index, "file_name": f"{call}_{index:03d}.wav"})
        texts.append({"id": call, "transcript": " ".join(text for _, _, text in clips()), "url": f"audio/{call}.mp3"})
    for folder, name, lines in ((pieces, "earnings22_cleaned_aa_chunked_v1", reversed(listed)), (calls, "earnings22_cleaned_aa_v1", texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root
