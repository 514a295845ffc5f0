"""Manifests and data folders of every kind, upset and damaged."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import soundfile
from hypothesis import strategies as st

from melcli.data import lhotse_cuts  # noqa: F401  imported by read_jsonl
from melcli.data.durations import fill_durations
from melcli.data.hub import HubSplit, read_split
from melcli.data.load import load_utterance
from melcli.data.manifest import fingerprint, read_source
from melcli.data.parquet import load_bytes, read_parquet
from melcli.data.rows import to_row
from melcli.data.selection import parse, select
from melcli.data.texts import read_texts
from melcli.data.utterance import Utterance
from melcli.errors import MelcliError
from tests.fuzz.confined import fuzz
from tests.fuzz.damage import NAMES, NUMBERS, damaged, lines, upset, values

OURS = st.just({"id": "a", "audio": "a.wav", "text": "one two", "duration": 1.5, "speaker": "s", "start": 0.0, "end": 1.5, "gap": 0.1, "answer": "x"})
NEMO = st.just({"audio_filepath": "a.wav", "text": "one", "duration": 1.0, "offset": 0.2})
CUT = st.just(
    {
        "id": "k",
        "type": "MonoCut",
        "start": 0.0,
        "duration": 1.0,
        "channel": 0,
        "supervisions": [{"id": "k", "start": 0.0, "duration": 1.0, "text": "one", "speaker": "s"}],
        "recording": {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "sampling_rate": 16000, "duration": 1.0},
        "custom": {"x": 1},
    }
)
WORDS = st.one_of(st.sampled_from(NAMES).filter(lambda name: "\ud800" not in name), st.sampled_from([str(n) for n in NUMBERS]), st.text(max_size=12))


def used(utterances: list[Utterance]) -> None:
    """What all commands do with utterances: know them by a fingerprint, write them down, look at their files, load the first."""
    assert utterances and all(isinstance(u.id, str) and u.audio for u in utterances)
    fingerprint(utterances)
    for utterance in utterances:
        to_row(utterance, "/tmp")
    for utterance in fill_durations(utterances[:3], threads=1)[:1]:
        try:
            load_utterance(utterance, 16000)
        except MelcliError:
            pass


def manifest(folder: Path, data: bytes, name: str = "m.jsonl") -> None:
    (folder / name).write_bytes(data)
    used(read_source(str(folder / name), offline=True))


def test_rows_of_ours_of_nemo_and_of_lhotse() -> None:
    fuzz(lines([OURS, NEMO, CUT]), manifest, examples=25)


def test_cuts() -> None:
    fuzz(lines([CUT]), manifest, examples=30)


def test_gzipped() -> None:
    squeezed = lines([OURS, CUT]).map(gzip.compress)
    fuzz(st.one_of(squeezed, damaged(squeezed)), lambda folder, data: manifest(folder, data, "m.jsonl.gz"), examples=20)


def test_any_json() -> None:
    fuzz(st.lists(values(), max_size=3), lambda folder, rows: manifest(folder, "\n".join(map(repr, rows)).encode(errors="replace")))


def test_texts() -> None:
    def read(folder: Path, given: tuple[bytes, str]) -> None:
        (folder / given[1]).write_bytes(given[0])
        for one in read_texts(str(folder / given[1]), offline=True):
            assert isinstance(one.text, str) or one.text is None

    spoken = st.just({"id": "k", "text": "Where are my keys?", "speaker": "anna"})
    fuzz(st.tuples(lines([spoken, OURS, st.just({"question": "Why?", "answer": "So."})]), st.sampled_from(("t.jsonl", "t.txt"))), read, examples=20)


def test_kaldi() -> None:
    table = st.lists(
        st.lists(st.one_of(st.sampled_from(("a", "b", "r", "a.wav", "0", "1.5", "cat a.wav |")), WORDS), min_size=1, max_size=4), max_size=4
    )
    written = table.map(lambda rows: "\n".join(" ".join(row) for row in rows).encode(errors="replace"))
    good = {"wav.scp": b"r a.wav\n", "segments": b"a r 0 1\n", "text": b"a one\n", "utt2spk": b"a s\n", "utt2dur": b"a 1.0\n"}
    files = st.fixed_dictionaries({name: st.one_of(st.just(valid), written, damaged(st.just(valid))) for name, valid in good.items()})

    def read(folder: Path, tables: dict[str, bytes]) -> None:
        for name, data in tables.items():
            (folder / name).write_bytes(data)
        used(read_source(str(folder), offline=True))

    fuzz(files, read, examples=30)


def test_folders_of_corpora() -> None:
    listings = st.sampled_from(("1-2.trans.txt", "metadata.csv", "a.normalized.txt", "a.txt"))
    text = st.one_of(
        st.just(b"1-2-0003 ONE TWO\n"),
        st.just(b"a|One|one\n"),
        st.lists(WORDS, max_size=3).map(lambda w: "|".join(w).encode(errors="replace")),
        st.binary(max_size=40),
    )

    def read(folder: Path, given: tuple[str, bytes]) -> None:
        (folder / "wavs").mkdir()
        for place in (folder, folder / "wavs"):
            soundfile.write(place / "a.wav", [0.0] * 1600, 16000)
        (folder / given[0]).write_bytes(given[1])
        used(read_source(str(folder), offline=True))

    fuzz(st.tuples(listings, text), read, examples=20)


def wave_bytes() -> bytes:
    out = io.BytesIO()
    soundfile.write(out, [0.0] * 1600, 16000, format="WAV")
    return out.getvalue()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def test_parquet() -> None:
    good = parquet(
        [{"id": "a", "audio": {"bytes": wave_bytes(), "path": "a.wav"}, "text": "one", "duration": 0.1, "parent_id": "p", "chunk_index": 0}] * 2
    )
    odd = [
        parquet([{"audio": {"bytes": None, "path": None}, "text": None}]),
        parquet([{"audio": {"path": "a.wav"}, "text": "x"}]),
        parquet([{"audio": wave_bytes(), "text": ["x"], "duration": "long", "id": {"a": 1}}]),
        parquet([{"audio": 5, "text": 6, "duration": [1]}]),
        parquet([{"audio": {"bytes": b""}, "text": "x", "duration": float("nan")}]),
        parquet([{"audio": {"bytes": b"\0"}, "text": "x", "duration": -1.0, "chunk_index": "z", "parent_id": 4}]),
    ]

    def read(folder: Path, data: bytes) -> None:
        (folder / "a.parquet").write_bytes(data)
        found = read_parquet([folder / "a.parquet"])
        used(found)
        load_bytes(found[0].audio[0])

    fuzz(st.one_of(damaged(st.just(good)), st.sampled_from(odd)), read, examples=30)


def test_tables_of_the_hub() -> None:
    head = st.one_of(st.just(b"file_name,text,duration,parent_id,chunk_index\na.wav,one,0.1,p,0\n"), st.just(b'file_name,text\n"a.wav,one\n'))
    rows = st.lists(st.lists(WORDS, max_size=7), max_size=3).map(lambda found: "\n".join(",".join(row) for row in found).encode(errors="replace"))
    whole = st.tuples(head, rows).map(b"".join)

    def read(folder: Path, given: tuple[str, bytes]) -> None:
        place = folder / "a" / "b"
        place.mkdir(parents=True)
        (place / f"test.{given[0]}").write_bytes(given[1])
        used(read_split(HubSplit("a/b", "", "test"), root=folder, offline=True))

    listing = lines([st.just({"file_name": "a.wav", "text": "one", "duration": 0.1, "parent_id": "p", "chunk_index": 0})])
    fuzz(st.one_of(st.tuples(st.just("csv"), st.one_of(whole, damaged(whole))), st.tuples(st.just("jsonl"), listing)), read, examples=30)


def test_sources_and_their_options() -> None:
    keys = st.sampled_from(("speakers", "without", "words", "fold", "limit", "seed", "x"))
    options = st.lists(st.tuples(keys, WORDS).map("=".join), max_size=3).map("&".join)
    here = [Utterance("a", ("/a.wav",), "one two", 1.0, "s"), Utterance("b", ("/b.wav",))]
    fuzz(options, lambda folder, text: select(here, parse(text, "here"), "here"), examples=30)
    names = st.one_of(WORDS, st.tuples(st.sampled_from(("hf:", "synth:", "digits:", "librispeech:", "parquet:")), WORDS).map("".join))
    fuzz(names, lambda folder, name: read_source(name, root=folder, offline=True), examples=20)


def test_upset_is_upset() -> None:
    """The strategies reach what they are for: of a hundred manifests some are read and some are refused."""
    tally = fuzz(
        upset(OURS).map(lambda row: [row]),
        lambda folder, rows: manifest(folder, b"".join(__import__("json").dumps(row).encode() + b"\n" for row in rows)),
        examples=80,
    )
    assert tally.ends["read"] > 5 and tally.ends["ManifestError"] > 5, str(tally)
