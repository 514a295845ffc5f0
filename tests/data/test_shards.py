"""Shards on disk: what is written comes back, mapped, and what is broken or foreign is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.data.shards import SUMMARY, FeatureShards, read_head, shard_path, write_shard
from melcli.data.utterance import Utterance
from melcli.errors import ShardError

SPEC = PRESETS["phi4mm"]


def made(folder: Path, spec: MelSpec = SPEC, dtype: torch.dtype = torch.float16) -> list[list[torch.Tensor]]:
    """Two shards of three and two utterances, and their features.json."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir(exist_ok=True)
    shards, entries = [], []
    for index, lengths in enumerate(((5, 1, 7), (3, 4))):
        mels = [torch.randn(length, spec.n_mels, generator=generator).to(dtype) for length in lengths]
        rows = [Utterance(f"{index}-{i}", (str(folder / f"{i}.wav"),), f"text {i}", 0.1 * n, extra={"kind": "x"}) for i, n in enumerate(lengths)]
        whole = torch.cat(mels).double()
        write_shard(shard_path(folder, index), torch.cat(mels), lengths, rows, torch.stack([whole.sum(0), whole.square().sum(0)]), {"made": "test"})
        entries.append({"file": shard_path(folder, index).name, "utterances": len(lengths), "frames": sum(lengths)})
        shards.append(mels)
    summary = {"mel": spec.model_dump(), "dtype": "float16", "mean": [0.0] * spec.n_mels, "std": [1.0] * spec.n_mels, "shards": entries}
    (folder / SUMMARY).write_text(json.dumps(summary))
    return shards


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    mels = [mel_TM for shard in made(tmp_path, dtype=dtype) for mel_TM in shard]
    shards = FeatureShards.open(tmp_path, SPEC)
    assert len(shards) == 5 and shards.frames == [5, 1, 7, 3, 4] and shards.spec == SPEC
    for index in (4, 0, 2, 1, 3, 0):  # any order
        got = shards.mel(index)
        assert got.dtype == dtype and torch.equal(got, mels[index])
    assert shards.utterances[3] == Utterance("1-0", (str(tmp_path / "0.wav"),), "text 0", 0.3, extra={"kind": "x"})
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            shards.mel(outside)
    again = pickle.loads(pickle.dumps(shards))
    assert torch.equal(again.mel(2), mels[2])


def test_slices_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    made(tmp_path)
    shards = FeatureShards.open(tmp_path)
    assert shards.mel(0).untyped_storage().data_ptr() == shards.mel(2).untyped_storage().data_ptr()
    path = shard_path(tmp_path, 0)
    mapped = Path("/proc/self/maps")
    if not mapped.exists():
        pytest.skip("needs /proc to see the mapping")
    assert str(path) in mapped.read_text()


def test_head_and_files(tmp_path: Path) -> None:
    mels = made(tmp_path)
    head = read_head(shard_path(tmp_path, 0))
    assert (head.utterances, head.frames, head.metadata) == (3, 13, {"made": "test"})
    torch.testing.assert_close(head.sums_2M[0], torch.cat(mels[0]).double().sum(0))
    assert sorted(load_file(shard_path(tmp_path, 0))) == ["checksums", "mel", "offsets", "sum", "sum_of_squares"]
    assert not list(tmp_path.glob(".*"))
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1  # readable by whoever may read the rows


def test_another_mel_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    wanted = SPEC.model_copy(update={"hop_length": 256})
    with pytest.raises(ShardError, match="another mel than is wanted: hop_length 160 is not 256"):
        FeatureShards.open(tmp_path, wanted)


def test_folders_that_are_no_features(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="not a folder that `melcli featurize` wrote"):
        FeatureShards.open(tmp_path)
    made(tmp_path)
    (tmp_path / SUMMARY).rename(tmp_path / "aside")
    with pytest.raises(ShardError, match="featurize was interrupted: run the same command again"):
        FeatureShards.open(tmp_path)
    for content in ("{", "{}", '{"mel": {"rate": 3}}', "[]"):
        (tmp_path / SUMMARY).write_text(content)
        with pytest.raises(ShardError, match=f"{SUMMARY}: broken") as raised:
            FeatureShards.open(tmp_path)
        assert "\n" not in str(raised.value)


def test_broken_shards(tmp_path: Path) -> None:
    made(tmp_path)
    path = shard_path(tmp_path, 1)
    whole = path.read_bytes()
    for content in (whole[:-10], whole[:20], b"", b"not safetensors at all"):
        path.write_bytes(content)
        with pytest.raises(ShardError, match="shard-00001"):
            read_head(path)
        with pytest.raises(ShardError, match="shard-00001"):
            FeatureShards.open(tmp_path).mel(4)
    path.write_bytes(whole)
    rows = path.with_suffix(".jsonl")
    lines = rows.read_text()
    rows.write_text(lines.splitlines()[0] + "\n")
    with pytest.raises(ShardError, match=r"1 rows, features\.json says 2"):
        FeatureShards.open(tmp_path)
    rows.unlink()
    with pytest.raises(ShardError, match=r"its rows shard-00001\.jsonl are missing"):
        read_head(path)


def test_damage_is_found_where_it_is_read(tmp_path: Path) -> None:
    """A bit of the frames, and one of the rows; sets from before there were checksums are read as they are."""
    made(tmp_path)
    path = shard_path(tmp_path, 0)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    head = json.loads(whole[8:start])
    at = start + head["mel"]["data_offsets"][1] - 1  # in the last utterance
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    shards = FeatureShards.open(tmp_path)
    assert len(shards.mel(0)) == shards.frames[0]
    with pytest.raises(ShardError, match=r"shard-00000.safetensors: the frames of .* are damaged \(checksum\)"):
        shards.mel(2)
    path.write_bytes(whole)
    rows = path.with_suffix(".jsonl")
    before = rows.read_text()
    rows.write_text(before.replace("a", "b", 1))
    assert rows.read_text() != before
    with pytest.raises(ShardError, match=r"shard-00000.jsonl: damaged \(checksum\); run featurize again"):
        read_head(path)
    rows.write_text(before)
    old = {name: tensor for name, tensor in load_file(path).items() if name != "checksums"}
    path.write_bytes(save(old, metadata={"melcli": json.dumps({"made": "before"})}))
    assert read_head(path).rows is None and len(FeatureShards.open(tmp_path).mel(2)) == shards.frames[2]
