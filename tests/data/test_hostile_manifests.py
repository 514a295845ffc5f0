"""Manifests and data folders that were made to do harm. The fuzz tests found most of these."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from melcli.data.hub import HubSplit, read_split
from melcli.data.manifest import read_source
from melcli.data.parquet import read_parquet
from melcli.data.vectors import read_vectors
from melcli.errors import ManifestError, ShardError, UsageError
from melcli.scoring import results

CUT = {
    "id": "k",
    "type": "MonoCut",
    "start": 0.0,
    "duration": 1.0,
    "supervisions": [{"text": "one"}],
    "recording": {"sources": [{"type": "file", "source": "a.wav"}], "duration": 1.0},
}


def refused(path: Path, data: str | bytes, said: str) -> None:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(ManifestError, match=said):
        read_source(str(path))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"audio": "a", "duration": 10**400}, "'duration' is 1000"),
        ({"audio": "a", "duration": 1e300}, "'duration' is 1e"),
        ({"audio": ["a", "b"], "gap": 1e8}, "a pause of at most 60 seconds"),
        ({"audio": "a\0b"}, "expected a path"),
        ({**CUT, "start": "now"}, "'start' is \"now\""),
        ({**CUT, "duration": [1]}, r"'duration' is \[1\]"),
        ({**CUT, "supervisions": ["x"]}, "'supervisions' of a lhotse cut"),
        ({**CUT, "supervisions": {"a": 1}}, "'supervisions' of a lhotse cut"),
        ({**CUT, "supervisions": [{"text": 5}]}, "'text' is 5"),
        ({**CUT, "supervisions": [{"text": "a", "start": "x"}, {"text": "b"}]}, "'start' of a supervision"),
        ({**CUT, "recording": {"sources": [5]}}, "'sources' of a lhotse cut"),
        ({**CUT, "recording": {"sources": [{"type": "file", "source": ["a"]}]}}, "'source' is"),
    ],
)
def test_rows(tmp_path: Path, row: dict, said: str) -> None:
    refused(tmp_path / "m.jsonl", json.dumps(row), said)


def test_custom_fields_of_cuts_are_kept_where_they_are_fields(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({**CUT, "custom": custom}) + "\n" for custom in ({"x": 1}, "x", [1], None)))
    assert [dict(one.extra) for one in read_source(str(tmp_path / "m.jsonl"), durations=False)] == [{"x": 1}, {}, {}, {}]


def test_a_supervision_may_begin_before_its_cut(tmp_path: Path) -> None:
    cut = {**CUT, "supervisions": [{"text": "two", "start": 0.4}, {"text": "one", "start": -0.3}]}
    (tmp_path / "m.jsonl").write_text(json.dumps(cut))
    assert read_source(str(tmp_path / "m.jsonl"), durations=False)[0].text == "one two"


def test_lines_without_end_and_bombs(tmp_path: Path) -> None:
    refused(tmp_path / "m.jsonl.gz", gzip.compress(b'{"audio": "' + b"x" * 16_000_001), "a line of more than 16,000,000")
    line = b'{"audio": "a"' + b" " * 15_000_000 + b"}\n"
    refused(tmp_path / "m.jsonl.gz", gzip.compress(line * 5), "as no manifest does")
    whole = gzip.compress(b"".join(b'{"audio": "%d"}\n' % (i * i) for i in range(200)))
    for data in (whole[:200] + b"\xff" * 20 + whole[220:], whole[:-9], whole[:100]):
        refused(tmp_path / "m.jsonl.gz", data, "cannot be read|not JSON|not UTF-8")


def test_kaldi_and_corpora(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("r a.wav\n")
    for name, text, said in (
        ("segments", "", "segments: empty"),
        ("segments", "a r 0 nan\n", "segment from 0 to nan"),
        ("utt2dur", "r 1e999\n", "not a number of seconds"),
        ("utt2dur", "r -1\n", "not a number of seconds"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ManifestError, match=said):
            read_source(str(tmp_path))
        (tmp_path / name).unlink()
    (tmp_path / "text").write_text("r a line\u2028of two\x85halves\n", encoding="utf-8")
    assert read_source(str(tmp_path))[0].text == "a line\u2028of two\x85halves"
    lj = tmp_path / "lj"
    (lj / "wavs").mkdir(parents=True)
    (lj / "metadata.csv").write_text("\n")
    with pytest.raises(ManifestError, match=r"metadata\.csv: empty"):
        read_source(str(lj))


def test_names_too_long_for_a_file() -> None:
    with pytest.raises(ManifestError, match="neither a file nor a corpus"):
        read_source("x" * 300)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (b"file_name,text\n\xff,x\n", "cannot be read as a table"),
        (b"file_name,text\na.wav\n", "not as many fields"),
        (b"file_name,text\na.wav,x,y\n", "not as many fields"),
        (b"file_name,text,duration\na.wav,x,long\n", "row 1: could not convert"),
        (b"file_name,text\n\0,x\n", "has no 'file_name'|cannot be read as a table"),
        (b'file_name,text\n"' + b"x" * 200_000 + b'",y\n', "field larger than field limit"),
    ],
)
def test_tables(tmp_path: Path, table: bytes, said: str) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "test.csv").write_bytes(table)
    with pytest.raises(ManifestError, match=said):
        read_split(HubSplit("a/b", "", "test"), root=tmp_path, offline=True)


@pytest.mark.parametrize(
    ("row", "said"), [({"text": 5}, "its text is '5'"), ({"duration": "long"}, "its duration is"), ({"duration": -1.0}, "its duration")]
)
def test_parquet(tmp_path: Path, row: dict, said: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist([{"audio": b"x", "text": "x"} | row]), tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match=said):
        read_parquet([tmp_path / "a.parquet"])


def test_a_parquet_of_nothing_but_rows(tmp_path: Path) -> None:
    """Runs of one value take no room in the file, and gigabytes as Python objects."""
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"audio": pyarrow.nulls(3_000_000, pyarrow.binary()), "text": pyarrow.array(["x"] * 3_000_000)})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ManifestError, match="claims 3,000,000 rows in"):
        read_parquet([tmp_path / "a.parquet"])


def test_vectors(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.ones((2, 3), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(2, 3)", b"(1099511627776, 3)")[: len(whole)])  # terabytes, of which nothing is there
    with pytest.raises(ManifestError, match="not an npy file of numbers"):
        read_vectors(path, ["a", "b"], (1, 3))
    np.savez(path.with_suffix(".npz"), np.ones((2, 3)))
    path.with_suffix(".npz").rename(path)
    with pytest.raises(ManifestError, match="it holds an archive"):
        read_vectors(path, ["a", "b"], (1, 3))
    np.save(path, np.ones((2, 3), np.complex64))
    with pytest.raises(ManifestError, match="it holds complex64"):
        read_vectors(path, ["a", "b"], (1, 3))
    np.save(path, np.ones((2, 3), np.float32))
    path.with_suffix(".ids").write_bytes(b"a\n\xff\n")
    with pytest.raises(ManifestError, match=r"v\.ids: cannot be read"):
        read_vectors(path, ["a", "b"], (1, 3))


def test_settings_that_are_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"text": "a", "pred_text": "a"}\n')
    for text in ("[1]", "5", "null", '"x"', "[" * 100_000):
        results.settings_path(path).write_text(text)
        assert results.model_of(path) is None
        with pytest.raises(UsageError, match="was made otherwise"):
            results.begin(path, {"model": "m"})
    path.write_text(json.dumps({"text": "a", "pred_text": "a", "time": 10**400}) + "\n")
    with pytest.raises(ManifestError, match="'time' is 1000"):
        results.read(path)


def test_shards(tmp_path: Path) -> None:
    from melcli.audio.mel_spec import preset
    from melcli.data.shards import FeatureShards, write_shard
    from melcli.data.utterance import Utterance

    spec = preset("phi4mm")
    here = [Utterance("a", ("/a.wav",)), Utterance("b", ("/b.wav",))]
    summary = {"mel": spec.model_dump(mode="json"), "dtype": "float16", "mean": [0.0] * 80, "std": [1.0] * 80}
    summary["shards"] = [{"file": "shard-00000.safetensors", "utterances": 2}]

    def opened(change: dict, rows: str | None = None) -> FeatureShards:
        write_shard(tmp_path / "shard-00000.safetensors", torch.zeros(5, 80).half(), [2, 3], here, torch.zeros(2, 80).double(), {})
        if rows is not None:
            (tmp_path / "shard-00000.jsonl").write_text(rows)
        (tmp_path / "features.json").write_text(json.dumps(summary | change))
        return FeatureShards.open(tmp_path)

    assert [len(opened({}).mel(i)) for i in (0, 1)] == [2, 3]
    for change, said in (
        ({"mean": [0.0]}, "mean and std are not 80 numbers"),
        ({"mean": "x"}, "broken"),
        ({"std": [float("nan")] * 80}, "mean and std"),
        ({"shards": [{"file": "../shard-00000.safetensors", "utterances": 2}]}, "is no name of a shard"),
        ({"shards": [{"file": 5, "utterances": 2}]}, "broken"),
        ({"shards": [5]}, "broken"),
        ({"dtype": "int3"}, "dtype 'int3'"),
    ):
        with pytest.raises(ShardError, match=said):
            opened(change)
    row = {"id": "a", "audio": "a.wav"}
    for frames, said in ((None, "'frames' is null"), (-1, "'frames' is -1"), (10**12, "'frames'"), ("2", "'frames'")):
        with pytest.raises(ShardError, match=said):
            opened({}, "".join(json.dumps({**row, "frames": frames}) + "\n" for _ in range(2)))
    other = opened({}, "".join(json.dumps({**row, "frames": frames}) + "\n" for frames in (1, 4)))
    with pytest.raises(ShardError, match="not those that its rows tell of"):
        other.mel(0)
    save_file({"mel": torch.zeros(5, 80, dtype=torch.int32), "offsets": torch.tensor([0, 2, 5])}, tmp_path / "x")
    fine = opened({})
    (tmp_path / "x").rename(tmp_path / "shard-00000.safetensors")
    with pytest.raises(ShardError, match=r"holds torch\.int32"):
        fine.mel(0)
