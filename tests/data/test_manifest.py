"""Reading every kind of source, and saying what is wrong with the broken ones."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcli.audio.io import probe
from melcli.data.folders import walk
from melcli.data.load import load_utterance, seconds_of
from melcli.data.manifest import fingerprint, read_source, write_manifest
from melcli.data.utterance import Utterance
from melcli.errors import AudioError, ManifestError

RATE = 16000


def tone(path: Path, seconds: float = 0.5, hertz: float = 440.0, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, wave.astype("float32"), rate, **opus)
    return path


def manifest(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def test_own_rows(tmp_path: Path) -> None:
    tone(tmp_path / "audio/a.wav")
    path = manifest(
        tmp_path / "m.jsonl",
        {"id": "x", "audio": "audio/a.wav", "text": "hi", "duration": 0.5, "speaker": 7, "words": [["hi", 0.1, 0.3]], "answer": "yes"},
        "",
        {"audio": "audio/a.wav", "start": 0.1, "end": 0.4},
        {"audio": ["audio/a.wav", "audio/a.wav"], "gap": 0.2, "question": "who?"},
    )
    whole, cut, joined = read_source(str(path))
    assert whole == Utterance("x", (str(tmp_path / "audio/a.wav"),), "hi", 0.5, "7", extra={"words": [["hi", 0.1, 0.3]], "answer": "yes"})
    assert (cut.id, cut.text, cut.start, cut.end) == ("audio/a-0.10", None, 0.1, 0.4)
    assert cut.duration == pytest.approx(0.3)
    assert joined.text == "who?" and joined.gap == 0.2
    assert joined.duration == pytest.approx(1.2)  # probed: two files and a gap
    assert len(load_utterance(cut, RATE)) == round(0.3 * RATE)
    wave_S = load_utterance(joined, RATE)
    assert len(wave_S) == round(1.2 * RATE)
    assert wave_S[round(0.5 * RATE) : round(0.7 * RATE)].abs().max() == 0 < wave_S[: round(0.5 * RATE)].abs().max()


def test_nemo_and_leaderboard_rows(tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "nemo.json",
        {"audio_filepath": "a.wav", "duration": 2.0, "text": "a b", "offset": 1.5},
        {"audio_filepath": "b.wav", "duration": 3.0, "text": "c"},
        {"audio_filepath": "sample_0", "duration": 3.0, "time": 0.1, "text": "ref", "pred_text": "hyp"},
    )
    cut, plain, result = read_source(str(path))
    assert (cut.start, cut.end, cut.duration) == (1.5, 3.5, 2.0)
    assert (plain.id, plain.start, plain.end, plain.duration) == ("b", None, None, 3.0)
    assert result.extra == {"time": 0.1, "pred_text": "hyp"} and result.text == "ref"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ('{"audio": "a.wav"', r"m\.jsonl:2: not JSON"),
        ("[1]", r"m\.jsonl:2: a JSON list"),
        ({"text": "x"}, r"m\.jsonl:2: no 'audio'"),
        ({"audio": 3}, r"m\.jsonl:2: 'audio' is 3"),
        ({"audio": "a.wav", "duration": "long"}, r"m\.jsonl:2: 'duration' is \"long\""),
        ({"audio": "a.wav", "duration": -1}, r"m\.jsonl:2: 'duration' is -1"),
        ('{"audio": "a.wav", "duration": NaN}', r"m\.jsonl:2: 'duration' is NaN"),
        ({"audio": "a.wav", "text": 5}, r"m\.jsonl:2: 'text' is 5"),
        ({"audio": "a.wav", "start": 3, "end": 2}, r"m\.jsonl:2: 'end' 2 is not after 'start' 3"),
        ({"audio": ["a.wav", "b.wav"], "start": 1, "end": 2}, r"m\.jsonl:2: 'start' and 'end' go with one"),
    ],
)
def test_broken_line_is_named(tmp_path: Path, row: object, says: str) -> None:
    path = manifest(tmp_path / "m.jsonl", {"audio": "a.wav"}, row, {"audio": "b.wav"})
    with pytest.raises(ManifestError, match=says) as raised:
        read_source(str(path))
    assert "\n" not in str(raised.value)


def test_unusable_sources(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "latin.jsonl").write_bytes(b'{"audio": "\xe9.wav"}\n')
    (tmp_path / "broken.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "notes.pdf").write_text("x")
    (tmp_path / "docs").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/features.json").write_text("{}")
    for source, says in {
        "empty.jsonl": "an empty manifest",
        "latin.jsonl": "not UTF-8",
        "broken.jsonl.gz": "cannot be read",
        "notes.pdf": "neither a manifest",
        "docs": "no audio in this folder",
        "shards": "holds features, and audio is read here",
        "nowhere.jsonl": "no such file",
        "nowhere/": "no such file",
    }.items():
        with pytest.raises(ManifestError, match=says):
            read_source(str(tmp_path / source))
    with pytest.raises(ManifestError, match=r"the corpora are .*Did you mean 'digits'"):
        read_source("digit:train")


def test_plain_folder_and_file(tmp_path: Path) -> None:
    tone(tmp_path / "b/two.flac")
    tone(tmp_path / "a.wav", 0.25)
    (tmp_path / "a.txt").write_text("Hello\n there \n")
    (tmp_path / "b/unrelated.pdf").write_text("")
    (tmp_path / ".hidden.wav").write_text("")
    utterances = read_source(str(tmp_path))
    assert [(u.id, u.text, u.duration) for u in utterances] == [("a", "Hello there", 0.25), ("b/two", None, 0.5)]
    assert read_source(str(tmp_path / "a.wav"))[0].text == "Hello there"


def test_librispeech_layout(tmp_path: Path) -> None:
    for suffix, key in (("opus", "19-198-0000"), ("flac", "19-198-0001"), ("wav", "19-198-0009")):
        tone(tmp_path / f"19/198/{key}.{suffix}")
    (tmp_path / "19/198/19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n19-198-0001 IT'S\n19-198-0002 GONE\n")
    utterances = read_source(str(tmp_path), durations=False)
    assert [(u.id, u.text, u.speaker) for u in utterances] == [
        ("19-198-0000", "northanger abbey", "19"),
        ("19-198-0001", "it's", "19"),
        ("19-198-0002", "gone", "19"),
    ]
    assert utterances[1].audio[0].endswith("19-198-0001.flac")
    with pytest.raises(AudioError, match="19-198-0002"):
        load_utterance(utterances[2], RATE)
    (tmp_path / "19/198/19-198.trans.txt").write_text("19-198-0000\n")
    with pytest.raises(ManifestError, match=r"19-198\.trans\.txt:1: "):
        read_source(str(tmp_path))


def kaldi_folder(folder: Path) -> Path:
    tone(folder / "WAVE/r1.wav", 2.0)
    data = folder / "train"
    data.mkdir()
    (data / "wav.scp").write_text("r1\tWAVE/r1.wav\n")
    (data / "text").write_text("r1 HELLO THERE\n")
    (data / "utt2spk").write_text("r1 s1\n")
    return data


def test_kaldi_folder(tmp_path: Path) -> None:
    data = kaldi_folder(tmp_path)
    (one,) = read_source(str(data))
    assert (one.id, one.text, one.speaker, one.duration) == ("r1", "HELLO THERE", "s1", 2.0)
    (data / "segments").write_text("u2 r1 1.0 1.75\nu1 r1 0.0 1.0\n")
    (data / "text").write_text("u1 HELLO\nu2 THERE\n")
    (data / "utt2spk").write_text("u1 s1\nu2 s2\n")
    _, second = read_source(str(data))
    assert (second.id, second.text, second.speaker, second.start, second.end, second.duration) == ("u2", "THERE", "s2", 1.0, 1.75, 0.75)
    assert len(load_utterance(second, RATE)) == 0.75 * RATE


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("wav.scp", "r1 sph2pipe -f wav r1.sph |\n", r"wav\.scp:1: a command with a pipe"),
        ("wav.scp", "r1 a.wav\nr1 b.wav\n", r"wav\.scp:2: 'r1' is listed twice"),
        ("wav.scp", "r1\n", r"wav\.scp:1: no path"),
        ("text", "r1 A\nr9 B\n", r"text:2: utterance 'r9' is not in wav\.scp"),
        ("segments", "u1 r1 1.0\n", r"segments:1: 'r1 1\.0', expected RECORDING START END"),
        ("segments", "u1 r9 0 1\n", r"segments:1: recording 'r9' is not in wav\.scp"),
        ("segments", "u1 r1 2 1\n", r"segments:1: segment from 2 to 1 s"),
    ],
)
def test_broken_kaldi_folder(tmp_path: Path, name: str, content: str, says: str) -> None:
    data = kaldi_folder(tmp_path)
    (data / name).write_text(content)
    with pytest.raises(ManifestError, match=says):
        read_source(str(data))


def cut_row(**changes: object) -> dict[str, object]:
    recording = {
        "id": "rec",
        "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
        "sampling_rate": RATE,
        "num_samples": RATE,
        "duration": 1.0,
        "channel_ids": [0],
    }
    supervisions = [
        {"id": "s2", "recording_id": "rec", "start": 0.3, "duration": 0.2, "channel": 0, "text": "there", "speaker": "x"},
        {"id": "s1", "recording_id": "rec", "start": 0.0, "duration": 0.2, "channel": 0, "text": "hello", "speaker": "x"},
    ]
    return {
        "id": "c",
        "start": 0.25,
        "duration": 0.5,
        "channel": 0,
        "supervisions": supervisions,
        "recording": recording,
        "type": "MonoCut",
    } | changes


def test_lhotse_cuts(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 1.0)
    path = tmp_path / "cuts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(cut_row()) + "\n" + json.dumps(cut_row(id="w", start=0.0, duration=1.0, supervisions=[])) + "\n")
    part, whole = read_source(str(path))
    assert (part.id, part.text, part.speaker, part.start, part.end, part.duration) == ("c", "hello there", "x", 0.25, 0.75, 0.5)
    assert (whole.text, whole.start, whole.end) == (None, None, None)
    assert len(load_utterance(part, RATE)) == RATE // 2


def test_cuts_written_by_lhotse(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse", reason="compares with lhotse's own writer")
    recording = lhotse.Recording.from_file(str(tone(tmp_path / "a.wav", 1.0)))
    supervision = lhotse.SupervisionSegment(id="s", recording_id=recording.id, start=0.0, duration=1.0, text="hi", speaker="y")
    cut = lhotse.MonoCut(id="k", start=0.0, duration=1.0, channel=0, supervisions=[supervision], recording=recording).truncate(
        offset=0.2, duration=0.3
    )
    lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    (read,) = read_source(str(tmp_path / "cuts.jsonl.gz"))
    assert (read.text, read.speaker, read.start, read.duration) == ("hi", "y", pytest.approx(0.2), pytest.approx(0.3))
    wave_S = load_utterance(read, RATE)
    np.testing.assert_allclose(wave_S.numpy(), cut.load_audio()[0], atol=1e-4)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (cut_row(type="MixedCut"), r":1: a lhotse MixedCut"),
        (cut_row(recording=None), r":1: a cut without a recording"),
        (cut_row(recording={"sources": [{"type": "command", "source": "cat x"}]}), r":1: audio of type 'command'"),
        (cut_row(recording={"sources": [], "transforms": [{"name": "Speed"}]}), r":1: a lhotse recording with transforms"),
        ({"id": "s", "recording_id": "rec", "start": 0, "duration": 1}, r":1: a recording or supervision"),
    ],
)
def test_refused_lhotse_objects(tmp_path: Path, row: dict[str, object], says: str) -> None:
    with pytest.raises(ManifestError, match=says):
        read_source(str(manifest(tmp_path / "cuts.jsonl", row)))


@pytest.fixture(scope="module")
def audio_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    folder = tmp_path_factory.mktemp("hf")
    paths = [str(tone(folder / f"{hertz}.wav", 0.5, hertz)) for hertz in (300, 600)]
    rows = {"audio": [{"bytes": Path(p).read_bytes(), "path": None} for p in paths], "sentence": ["low", "high"], "speaker_id": [1, 2]}
    encoded = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features(audio=encoded, sentence=datasets.Value("string"), speaker_id=datasets.Value("int64"))
    made = datasets.Dataset.from_dict(rows, features=features).cast_column("audio", datasets.Audio())
    return folder, made


def test_saved_hf_data_sets(audio_set: tuple[Path, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder, made = audio_set
    made.save_to_disk(str(tmp_path / "one"))
    low, high = read_source(str(tmp_path / "one"))
    assert (low.text, high.text, low.speaker, low.duration) == ("low", "high", "1", 0.5)
    expected = soundfile.read(folder / "600.wav", dtype="float32")[0]
    np.testing.assert_array_equal(load_utterance(high, RATE).numpy(), expected)
    datasets.DatasetDict(train=made, test=made.select([1])).save_to_disk(str(tmp_path / "many"))
    assert [u.text for u in read_source(str(tmp_path / "many"))] == ["low", "high", "high"]
    assert [u.text for u in read_source(f"hf:{tmp_path / 'many'}:test")] == ["high"]
    assert [u.text for u in read_source(f"hf:{tmp_path / 'many'}:train?speakers=2")] == ["high"]
    with pytest.raises(ManifestError, match=r"no split 'tst'.*Did you mean 'test'"):
        read_source(f"hf:{tmp_path / 'many'}:tst")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ManifestError):  # longer than a file's name may be
        read_source("hf:" + "1" * 300)


def test_hf_parquet_folder(audio_set: tuple[Path, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, made = audio_set
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    made.to_parquet(str(tmp_path / "set/train-00000.parquet"))
    low, high = read_source(f"hf:{tmp_path / 'set'}")
    assert (low.text, high.text, seconds_of(high)) == ("low", "high", 0.5)
    assert len(load_utterance(low, 8000)) == 4000


def test_selection(tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.jsonl", *({"id": f"{i}", "audio": f"{i}.wav", "speaker": "abc"[i % 3], "duration": 1} for i in range(30)))

    def ids(options: str) -> list[int]:
        return [int(u.id) for u in read_source(f"{path}?{options}")]

    assert ids("speakers=a,c") == [i for i in range(30) if i % 3 != 1]
    assert ids("without=a") == [i for i in range(30) if i % 3]
    assert ids("speakers=b&limit=3") == [1, 4, 7]
    drawn = ids("limit=5&seed=3")
    assert drawn == sorted(drawn) == ids("seed=3&limit=5") and len(drawn) == 5 and drawn != ids("limit=5&seed=4")
    for options, says in {
        "speaker=a": "no option 'speaker'.*Did you mean 'speakers'",
        "without=d": "no utterance of speaker 'd'; its speakers are a, b, c",
        "limit=0": "limit=0 is not a whole number of at least 1",
        "limit=x": "limit=x is not",
        "limit": "has no value",
        "limit=1&limit=2": "given twice",
        "speakers=a&without=a": "leave no utterance of 30",
    }.items():
        with pytest.raises(ManifestError, match=says):
            ids(options)


def test_a_path_with_a_question_mark_is_a_path(tmp_path: Path) -> None:
    path = manifest(tmp_path / "what?limit=1", {"audio": "a.wav"}, {"audio": "b.wav"})
    with pytest.raises(ManifestError, match="neither a manifest"):
        read_source(str(path))


def test_write_and_read_again(tmp_path: Path) -> None:
    utterances = [
        Utterance("a", (str(tmp_path / "audio/a.wav"),), "hé", 1.25, "s", extra={"answer": "x"}),
        Utterance("b", (str(tmp_path / "b.wav"),), None, 2.0, start=1.0, end=3.0),
        Utterance("c", ("synth:flite/slt#hi", str(tmp_path.parent / "c.wav")), "hi", 1.0, gap=0.2),
    ]
    path = tmp_path / "m.jsonl"
    write_manifest(path, utterances)
    assert json.loads(path.read_text().splitlines()[0])["audio"] == "audio/a.wav"
    assert read_source(str(path), durations=False) == utterances
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    def made(folder: Path, text: str = "x") -> list[Utterance]:
        return [Utterance("a", (str(folder / "s1/a.wav"),), text, 1.0), Utterance("b", (str(folder / "s2/b.wav"),), "y", 1.0)]

    here = fingerprint(made(tmp_path / "here"))
    assert here == fingerprint(made(tmp_path / "there/deeper"))
    assert here != fingerprint(made(tmp_path / "here", "z"))
    assert here != fingerprint(made(tmp_path / "here")[::-1])


def test_listing_needs_no_torch() -> None:
    code = "import sys, melcli.data.manifest, melcli.data.corpora; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_words_keep_utterances_of_a_small_vocabulary(tmp_path: Path) -> None:
    rows = [{"audio": "a.wav", "duration": 1.0, "text": text} for text in ("One two", "one", "one more", "")]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [u.text for u in read_source(f"{tmp_path}/m.jsonl?words=one,two")] == ["One two", "one"]
    with pytest.raises(ManifestError, match="leave no utterance"):
        read_source(f"{tmp_path}/m.jsonl?words=three")


def test_folds_go_by_what_is_said(tmp_path: Path) -> None:
    rows = [{"audio": "a.wav", "id": str(i), "text": f"text number {i % 60}".upper() if i % 2 else f"Text  number {i % 60}"} for i in range(180)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test, train = (read_source(f"{tmp_path}/m.jsonl?fold={fold}") for fold in ("0/10", "1-9/10"))
    said = [{" ".join((u.text or "").lower().split()) for u in part} for part in (test, train)]
    assert len(test) + len(train) == 180 and 3 <= len(test) and not said[0] & said[1]
    assert {u.id for u in read_source(f"{tmp_path}/m.jsonl?fold=0-9/10")} == {row["id"] for row in rows}
    for wrong in ("10/10", "3", "5-2/10", "a/2", "0/0"):
        with pytest.raises(ManifestError, match=f"fold={wrong} is neither"):
            read_source(f"{tmp_path}/m.jsonl?fold={wrong}")


def test_a_link_back_up_is_followed_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert walk(tmp_path) == ["a/x.wav"]


def test_a_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "x.wav").touch()
    (tmp_path / "x.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ManifestError, match=r"x\.txt: cannot be read as text"):
        read_source(str(tmp_path / "x.wav"))


def test_names_that_are_no_text_are_named(tmp_path: Path) -> None:
    """As archives from other systems leave them behind."""
    name = os.fsdecode(b"caf\xe9.wav")
    try:
        (tmp_path / name).write_bytes(b"RIFF")
    except OSError:
        pytest.skip("this file system takes names in UTF-8 only")
    with pytest.raises(ManifestError, match=r"caf.udce9.wav' is not UTF-8; rename the file$"):
        read_source(str(tmp_path))
    with pytest.raises(AudioError, match="its name is not UTF-8; rename the file"):
        probe(tmp_path / name)
