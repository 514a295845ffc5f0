"""What programs wrote and people may have changed: shards, vectors, result files, dictionaries, settings."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from melcli import describe
from melcli.audio.mel_spec import preset
from melcli.data import lexicon
from melcli.data.shards import FeatureShards, is_foreign, read_head, write_shard
from melcli.data.utterance import Utterance
from melcli.data.vectors import mean_of, read_vectors
from melcli.exporting import place
from melcli.models import checkpoint, int8
from melcli.scoring import results
from melcli.scoring.protocol import get
from tests.fuzz.confined import fuzz
from tests.fuzz.damage import NAMES, damaged, dumps, lines, upset, values

MEL = preset("phi4mm").n_mels
FRAMES = [3, 5]
DTYPES = ("F32", "F16", "BF16", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "C64", "U64", "I8", "F4", "F6_E2M3", "F8_E8M0", "X")


def folder_of_shards(folder: Path) -> dict[str, Any]:
    """One shard of two utterances and the summary that featurize writes."""
    mel_TM = torch.arange(sum(FRAMES) * MEL, dtype=torch.float32).view(-1, MEL) / 100
    sums = torch.stack([mel_TM.double().sum(0), mel_TM.double().square().sum(0)])
    here = [Utterance(str(i), (f"{folder}/{i}.wav",), "one", 0.1) for i in range(2)]
    write_shard(folder / "shard-00000.safetensors", mel_TM.half(), FRAMES, here, sums, {"mel": "x"})
    return {
        "format": 1,
        "mel": preset("phi4mm").model_dump(mode="json"),
        "dtype": "float16",
        "mean": [0.0] * MEL,
        "std": [1.0] * MEL,
        "frames": 8,
        "shards": [{"file": "shard-00000.safetensors", "utterances": 2, "frames": 8}],
    }


def opened(folder: Path) -> None:
    """As training reads features: all of them."""
    shards = FeatureShards.open(folder, preset("phi4mm"))
    for index in range(len(shards)):
        mel_TM = shards.mel(index)
        assert mel_TM.shape == (shards.frames[index], MEL) and shards.utterances[index].id, mel_TM.shape
    assert shards.mean_M.shape == shards.std_M.shape == (MEL,)


def test_summaries_of_shards(tmp_path: Path) -> None:
    summary = folder_of_shards(tmp_path)

    def read(folder: Path, data: bytes) -> None:
        folder_of_shards(folder)
        (folder / "features.json").write_bytes(data)
        opened(folder)

    whole = st.just(summary)
    fuzz(st.one_of(upset(whole).map(dumps), damaged(whole.map(dumps)), values().map(dumps)), read, examples=20)


def test_shards(tmp_path: Path) -> None:
    summary = folder_of_shards(tmp_path)
    shard, rows = (tmp_path / f"shard-00000.{end}" for end in ("safetensors", "jsonl"))

    def read(folder: Path, given: tuple[bytes, bytes]) -> None:
        folder_of_shards(folder)
        (folder / "features.json").write_text(json.dumps(summary))
        (folder / shard.name).write_bytes(given[0])
        (folder / rows.name).write_bytes(given[1])
        is_foreign(folder / shard.name)
        try:
            read_head(folder / shard.name)
        finally:
            opened(folder)

    row = [st.just(json.loads(line)) for line in rows.read_text().splitlines()]
    whole = st.just(shard.read_bytes())
    fuzz(
        st.tuples(
            st.one_of(damaged(whole), safetensors({"mel": [8, MEL], "offsets": [3], "sum": [MEL], "sum_of_squares": [MEL]})),
            st.just(rows.read_bytes()),
        ),
        read,
        examples=60,
    )
    fuzz(st.tuples(whole, lines(row)), read, examples=20)


def safetensors(tensors: dict[str, list[int]]) -> st.SearchStrategy[bytes]:
    """safetensors files whose headers claim other types, shapes and places; the header's length may be a claim too."""
    sizes = st.one_of(st.sampled_from((0, 1, 3, 8, 80, 1 << 31, 1 << 40, 1 << 62, (1 << 64) - 1)), st.integers(-1, 9))
    claims = {
        name: st.fixed_dictionaries(
            {
                "dtype": st.one_of(st.just("F32"), st.sampled_from(DTYPES)),
                "shape": st.one_of(st.just(shape), st.just(shape), st.lists(sizes, max_size=4)),
                "data_offsets": st.one_of(st.just([0, 4 * int(np.prod(shape))]), st.lists(sizes, min_size=2, max_size=2)),
            }
        )
        for name, shape in tensors.items()
    }
    header = st.one_of(st.fixed_dictionaries(claims), upset(st.fixed_dictionaries(claims)), values())
    length = st.one_of(st.none(), st.none(), st.none(), st.sampled_from((0, 1, 1 << 20, 1 << 27, 1 << 33, (1 << 64) - 1)))

    def put(header: Any, length: int | None, size: int) -> bytes:
        said = dumps(header)
        return struct.pack("<Q", len(said) if length is None else length) + said + bytes(size)

    return st.builds(put, header, length, st.sampled_from((0, 4, 64, 640, 4096)))


def test_vectors() -> None:
    good = {"a": torch.ones(2, 4), "b": torch.zeros(2, 4)}
    files = st.one_of(damaged(st.just(save(good))), safetensors({"a": [2, 4], "b": [2, 4]}))

    def read(folder: Path, data: bytes) -> None:
        (folder / "v.safetensors").write_bytes(data)
        mean_of(folder / "v.safetensors", (2, 4))
        assert read_vectors(folder / "v.safetensors", ["a", "b"], (2, 4))["a"].shape == (2, 4)

    fuzz(files, read, examples=30)


def npy(array: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def test_arrays() -> None:
    good = npy(np.ones((2, 2, 4), np.float32))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0.npy", npy(np.zeros(1 << 22, np.float64)))
    odd = (
        npy(np.array([{"a": 1}, None], dtype=object), allow_pickle=True),
        npy(np.array(["x", "y"])),
        npy(np.zeros((2, 2, 4), [("a", "<f4")])),
        npy(np.zeros((2, 2, 4), complex)),
        npy(np.zeros((2, 2, 4), "datetime64[s]")),
        npy(np.zeros((2, 2, 4), np.float16)),
        npy(np.zeros((2, 2, 4), bool)),
        npy(np.zeros(())),
        npy(np.zeros((0, 2, 4))),
        npy(np.asfortranarray(np.zeros((2, 2, 4)))),
        zipped.getvalue(),
        b"",
    )
    claims = st.builds(
        claimed,
        st.lists(st.sampled_from((0, 1, 2, 4, 1 << 20, 1 << 33, 1 << 62, -1, 10**30)), max_size=4),
        st.sampled_from(("<f4", "<f8", "|O", "<U9", "V8", "<f2", ">i8", "x", "|S1000000")),
    )
    names = st.one_of(st.none(), st.sampled_from((b"a\nb\n", b"a\n", b"", b"\xff", b"a\na\n", b"b\na\n\n")))

    def read(folder: Path, given: tuple[bytes, bytes | None]) -> None:
        (folder / "v.npy").write_bytes(given[0])
        if given[1] is not None:
            (folder / "v.ids").write_bytes(given[1])
        mean_of(folder / "v.npy", (2, 4))
        read_vectors(folder / "v.npy", ["a", "b"], (2, 4), centre=True)

    fuzz(st.tuples(st.one_of(damaged(st.just(good)), st.sampled_from(odd), claims), names), read, examples=30)


def claimed(shape: list[int], kind: str) -> bytes:
    """An npy file of a few bytes whose header says another shape."""
    header = repr({"descr": kind, "fortran_order": False, "shape": tuple(shape)}).encode()
    header += b" " * (118 - len(header) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


def test_result_files() -> None:
    row = {
        "audio_filepath": "a.wav",
        "duration": 1.0,
        "time": 0.1,
        "text": "one two",
        "pred_text": "one too",
        "speaker": "s",
        "parent_id": "p",
        "chunk_index": 0,
    }
    more = row | {"finish_reason": "eos", "speech": {"frames": 10, "reason": "stop", "seconds": 1.0}, "reply": {"heard": "x", "said": "y"}}

    def read(folder: Path, data: bytes) -> None:
        path = folder / "MODEL_m_DATASET_d.jsonl"
        path.write_bytes(data)
        rules = get("plain")
        for one in results.read(path):
            results.to_line(one)
            rules.score_each([one.text], [one.pred_text])
        results.held(path, {"a.wav": "one two"})

    fuzz(lines([st.just(row), st.just(more), st.just({"text": "x", "hyp": "y"})]), read, examples=30)


def test_settings_of_result_files() -> None:
    def read(folder: Path, data: bytes) -> None:
        path = folder / "r.jsonl"
        path.write_text('{"text": "a", "pred_text": "a"}\n{"te')
        results.settings_path(path).write_bytes(data)
        results.model_of(path)
        results.begin(path, {"model": "m"})

    fuzz(
        st.one_of(upset(st.just({"model": "m"})).map(dumps), values().map(dumps), st.binary(max_size=20), st.just(b"[" * 100_000)), read, examples=40
    )


def test_dictionaries() -> None:
    bit = st.one_of(
        st.sampled_from(("hello\thəlˈoʊ\n", "HELLO  HH AH0 L OW1\n", ";;; x\n", "#", "\t", "\n", " ", "A", "AA1", "(2)", "\0", "\x85", "\u2028")),
        st.text(max_size=6),
    )
    files = st.one_of(st.lists(bit, max_size=8).map(lambda bits: "".join(bits).encode(errors="replace")), st.binary(max_size=30))

    def read(folder: Path, data: bytes) -> None:
        (folder / "lexicon.txt").write_bytes(data)
        found = lexicon.read(folder / "lexicon.txt")
        found.write("Hello, it's Ynyr's A! " + " ".join(list(found.words)[:5]), 0.5, "k")
        found.beneath(found).dump()

    fuzz(files, read, examples=30)


def test_weights() -> None:
    whole = save({"w": torch.ones(4, 4), "w.scale": torch.ones(4)})

    def read(folder: Path, data: bytes) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(data)
        try:
            describe.read_header(path)
            (folder / "config.json").write_text("{}")
            describe.describe(folder)
        finally:
            tensors = checkpoint.load_tensors(path)
            int8.unpack(tensors)
            checkpoint.not_finite(tensors)
            checkpoint.sizes_in(path)

    fuzz(st.one_of(damaged(st.just(whole)), safetensors({"w": [4, 4], "w.scale": [4]})), read, examples=30)


def test_indices_of_weights() -> None:
    index = {"metadata": {"total_size": 80}, "weight_map": {"w": "model-00001-of-00001.safetensors", "v": "model-00001-of-00001.safetensors"}}

    def read(folder: Path, data: bytes) -> None:
        (folder / "model-00001-of-00001.safetensors").write_bytes(save({"w": torch.ones(2)}))
        (folder.parent / "stray.safetensors").write_bytes(save({"w": torch.ones(2)}))
        (folder / "model.safetensors.index.json").write_bytes(data)
        checkpoint.read_tensors(folder)

    odd = st.sampled_from((*NAMES, "../stray.safetensors", "..", 5, None, ["x"], {"a": "b"}, "model-00001-of-00001.safetensors")).map(
        lambda name: dumps({"weight_map": {"w": name}})
    )
    fuzz(st.one_of(upset(st.just(index)).map(dumps), odd, values().map(dumps), st.just(b"[" * 100_000)), read, examples=30)


def test_facts_of_exports() -> None:
    def read(folder: Path, data: bytes) -> None:
        (folder / "export.json").write_bytes(data)
        place.check(folder)

    fuzz(st.one_of(upset(st.just({"files": {"a": 1}})).map(dumps), values().map(dumps), st.just(b"[" * 100_000)), read)
