"""Splits of hub data sets out of files: parquet with the audio inside, and tables with the audio beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from melcli.audio import io
from melcli.data import hub, parquet
from melcli.data.hub import HubSplit
from melcli.data.load import load_utterance
from melcli.errors import AudioError, ManifestError
from tests.cli import mirror

SPLIT = HubSplit("owner/name", "config", "test")


def build(folder: Path, files: int = 1, group: int = 1) -> None:
    for part in range(files):
        rows = [row | {"id": f"{part}-{i}"} for i, row in enumerate(mirror.rows("x", "text", "x") * 2)]
        mirror.write_parquet(folder / f"test-{part:05d}-of-{files:05d}.parquet", rows, group)


@pytest.mark.parametrize("group", [1, 3, 100])
def test_audio_comes_out_of_the_right_row(tmp_path: Path, group: int) -> None:
    build(tmp_path / "owner/name/config", files=2, group=group)
    utterances = hub.read_split(SPLIT, tmp_path)
    assert [u.id for u in utterances] == [f"{part}-{i}" for part in range(2) for i in range(4)]
    assert utterances[0].duration == 1.0 and utterances[0].text == "Nine zero four seven six two."
    for utterance, clip in zip(utterances, sorted(mirror.CLIPS.glob("*.wav")) * 4, strict=True):
        assert torch.equal(load_utterance(utterance, 16000), io.load(clip, 16000))


def test_a_row_group_at_a_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "owner/name/config", group=2)
    read: list[int] = []
    whole = parquet._open(str(tmp_path / "owner/name/config/test-00000-of-00001.parquet"))

    class Watched:
        metadata, schema_arrow = whole.metadata, whole.schema_arrow

        def read_row_group(self, index: int, columns: list[str]) -> object:
            read.append(index)
            return whole.read_row_group(index, columns=columns)

    utterances = hub.read_split(SPLIT, tmp_path)
    parquet._group.cache_clear()
    monkeypatch.setattr(parquet, "_open", lambda path: Watched())
    for utterance in utterances:
        parquet.load_bytes(utterance.audio[0])
    assert read == [0, 1] and parquet._group.cache_info().maxsize == 2
    parquet._group.cache_clear()


@pytest.mark.parametrize("home", ["owner/name/config", "name/config", "config"])
def test_where_a_mirror_may_lie(tmp_path: Path, home: str) -> None:
    build(tmp_path / home)
    assert len(hub.read_split(SPLIT, tmp_path, offline=True)) == 4 and hub.in_mirror(SPLIT, tmp_path)
    assert not hub.in_mirror(SPLIT, tmp_path / "elsewhere") and not hub.in_mirror(SPLIT, None)


def test_audio_that_cannot_be_decoded_is_one_utterances_fault(tmp_path: Path) -> None:
    row = mirror.rows("x", "text", "x")[0]
    file = tmp_path / "config/test-00000-of-00001.parquet"
    mirror.write_parquet(file, [row | {"audio": {"bytes": b"no audio", "path": "a.wav"}}, row | {"audio": {"bytes": None, "path": "a.wav"}}])
    for utterance, reason in zip(hub.read_split(SPLIT, tmp_path), ("is text, not audio", "holds no audio"), strict=True):
        with pytest.raises(AudioError, match=reason):
            load_utterance(utterance, 16000)


def test_pieces_may_be_in_parquet_files_too(tmp_path: Path) -> None:
    split = HubSplit("o/pieces", "", "test", "o/whole")
    rows = [{"audio": row["audio"], "parent_id": "c", "chunk_index": i} for i, row in enumerate(mirror.rows("x", "text", "x"))]
    mirror.write_parquet(tmp_path / "o/pieces/data/test-00000-of-00001.parquet", rows)
    mirror.write_parquet(tmp_path / "o/whole/data/test-00000-of-00001.parquet", [{"id": "c", "audio": rows[0]["audio"], "text": "All of it."}])
    utterances = hub.read_split(split, tmp_path)
    assert [(u.text, dict(u.extra)) for u in utterances] == [("All of it.", {"parent_id": "c", "chunk_index": i}) for i in range(2)]
    assert len(load_utterance(utterances[1], 16000)) > 16000


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_pieces_need_to_say_whose_they_are(tmp_path: Path, suffix: str) -> None:
    split = HubSplit("o/pieces", "", "test", "o/whole")
    for name in ("whole", "pieces"):
        (tmp_path / "o" / name).mkdir(parents=True)
    (tmp_path / "o/whole/calls.jsonl").write_text('{"id": "c", "transcript": "All of it."}\n')
    table = {"jsonl": '{{"id": "{0}", {1}"chunk_index": {0}, "file_name": "{0}.wav"}}\n', "csv": "{0},{2}{0},{0}.wav\n"}[suffix]
    for parent in (True, False):
        head = ("id,parent_id,chunk_index,file_name\n" if parent else "id,chunk_index,file_name\n") if suffix == "csv" else ""
        rows = [table.format(i, '"parent_id": "c", ' if parent else "", "c," if parent else "") for i in range(2)]
        (tmp_path / f"o/pieces/pieces.{suffix}").write_text(head + "".join(rows))
        if parent:
            utterances = hub.read_split(split, tmp_path)
            assert [(u.text, dict(u.extra)) for u in utterances] == [("All of it.", {"parent_id": "c", "chunk_index": i}) for i in range(2)]
            assert utterances[1].audio == (str(tmp_path / "o/pieces/audio/1.wav"),)
        else:
            with pytest.raises(ManifestError, match="no 'parent_id' in some rows"):
                hub.read_split(split, tmp_path)
