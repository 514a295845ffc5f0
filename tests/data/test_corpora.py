"""Corpora by name: the layouts of the releases, the splits of the digits, and what is said when one is missing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcli.data.corpora import CORPORA, LEFT_OUT, SUBSETS
from melcli.data.digit_strings import WORDS
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.errors import ManifestError

SPEAKERS = ("george", "jackson", "theo")


def sound(path: Path, seconds: float = 0.3, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (0.2 * np.sin(np.arange(round(seconds * rate)) / 5)).astype("float32"), rate)


@pytest.fixture(scope="module")
def digits_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release's layout: recordings/DIGIT_SPEAKER_TAKE.wav."""
    root = tmp_path_factory.mktemp("root")
    for speaker in SPEAKERS:
        for digit in range(10):
            for take in range(2):
                sound(root / f"free-spoken-digit-dataset/recordings/{digit}_{speaker}_{take}.wav", 0.2 + 0.01 * digit)
    return root


def test_digits_train_leaves_one_speaker_out(digits_root: Path) -> None:
    train = read_source("digits:train", root=digits_root)
    assert len(train) == 40 and {u.speaker for u in train} == {"george", "jackson"}
    assert all(u.text == WORDS[int(u.id[0])] and u.duration == pytest.approx(0.2 + 0.01 * int(u.id[0]), abs=1e-3) for u in train)
    assert {u.speaker for u in read_source("digits:train?without=george", root=digits_root)} == {"jackson", "theo"}
    assert {u.speaker for u in read_source("digits:train?speakers=theo", root=digits_root)} == {"theo"}
    assert len(read_source("digits:all", root=digits_root)) == 60
    assert len({u.text for u in read_source("digits?limit=12&seed=1", root=digits_root)}) > 3


def test_digits_test_is_strings_of_the_left_out_speaker(digits_root: Path) -> None:
    strings = read_source("digits:test", root=digits_root)
    assert len(strings) == 200 and {u.speaker for u in strings} == {LEFT_OUT}
    assert {len(u.audio) for u in strings} == {3, 4, 5, 6, 7}
    used = Counter(part for u in strings for part in u.audio)
    assert len(used) == 20 and max(used.values()) - min(used.values()) <= 1  # dealt out evenly
    assert all(0.1 <= u.gap <= 0.3 for u in strings)
    assert strings == read_source("digits:test", root=digits_root)
    one = strings[0]
    assert one.text == " ".join(WORDS[int(Path(part).name[0])] for part in one.audio)
    assert len(load_utterance(one, 16000)) / 16000 == pytest.approx(one.duration, abs=0.002)
    assert read_source("digits:test?limit=3", root=digits_root) == strings[:3]


def test_digit_strings(digits_root: Path) -> None:
    strings = read_source("digits:strings?count=31&seed=5&min=2&max=4&speakers=george,theo", root=digits_root)
    assert len(strings) == 31 and Counter(u.speaker for u in strings) == {"george": 16, "theo": 15}
    assert {len(u.audio) for u in strings} == {2, 3, 4}
    assert all({Path(part).stem.split("_")[1] for part in u.audio} == {u.speaker} for u in strings)
    assert strings != read_source("digits:strings?count=31&seed=6&min=2&max=4&speakers=george,theo", root=digits_root)
    assert LEFT_OUT not in {u.speaker for u in read_source("digits:strings", root=digits_root)}
    assert all(u.gap == 0 for u in read_source("digits:strings?min=1&max=1", root=digits_root))
    for options, says in {
        "min=5&max=2": "max=2 is below min=5",
        "speakers=them": "no utterance of speaker 'them'",
        "cuont=3": "Did you mean 'count'",
    }.items():
        with pytest.raises(ManifestError, match=says):
            read_source(f"digits:strings?{options}", root=digits_root)


@pytest.mark.parametrize("home", ["", "librispeech/LibriSpeech", "LibriSpeech"])
def test_librispeech_is_found_in_every_layout(tmp_path: Path, home: str) -> None:
    for subset, speaker in (("dev-clean", "84"), ("train-clean-100", "19")):
        folder = tmp_path / home / subset / speaker / "1"
        sound(folder / f"{speaker}-1-0000.flac")
        (folder / f"{speaker}-1.trans.txt").write_text(f"{speaker}-1-0000 HELLO\n")
    assert [u.speaker for u in read_source("librispeech:dev-clean", root=tmp_path)] == ["84"]
    assert [u.text for u in read_source("librispeech", root=tmp_path)] == ["hello", "hello"]
    with pytest.raises(ManifestError, match=r"no split 'dev-claen'.*Did you mean 'dev-clean'"):
        read_source("librispeech:dev-claen", root=tmp_path)


def test_libritts_ljspeech_speechocean_robotutor(tmp_path: Path) -> None:
    sound(tmp_path / "LibriTTS/dev-clean/84/1/84_1_000001_000000.wav")
    (tmp_path / "LibriTTS/dev-clean/84/1/84_1_000001_000000.normalized.txt").write_text("Mister Jones.")
    (tmp_path / "LibriTTS/dev-clean/84/1/84_1_000001_000000.original.txt").write_text("Mr. Jones.")
    (one,) = read_source("libritts:dev-clean", root=tmp_path)
    assert (one.text, one.speaker, one.duration) == ("Mister Jones.", "84", pytest.approx(0.3))

    sound(tmp_path / "LJSpeech-1.1/wavs/LJ001-0001.wav")
    (tmp_path / "LJSpeech-1.1/metadata.csv").write_text("LJ001-0001|In 1900, |In nineteen hundred, \n")
    (one,) = read_source("ljspeech", root=tmp_path)
    assert (one.id, one.text) == ("LJ001-0001", "In nineteen hundred,")

    data = tmp_path / "speechocean762"
    sound(data / "WAVE/SPEAKER0001/000010011.WAV")
    (data / "train").mkdir()
    (data / "train/wav.scp").write_text("000010011\tWAVE/SPEAKER0001/000010011.WAV\n")
    (data / "train/text").write_text("000010011\tWE CALL IT BEAR\n")
    (data / "train/utt2spk").write_text("000010011\t0001\n")
    (one,) = read_source("speechocean762", root=tmp_path)
    assert (one.text, one.speaker, one.duration) == ("we call it bear", "0001", pytest.approx(0.3))

    sound(tmp_path / "robotutor/a.wav")
    (tmp_path / "robotutor/stories.jsonl").write_text('{"audio": "a.wav", "text": "a cow"}\n')
    (tmp_path / "robotutor/words.jsonl").write_text('{"audio": "a.wav", "text": "cow"}\n')
    assert [u.text for u in read_source("robotutor", root=tmp_path)] == ["a cow", "cow"]
    assert [u.text for u in read_source("robotutor:words", root=tmp_path)] == ["cow"]


@pytest.mark.parametrize("name", ["librispeech:test-clean", "digits:test", "speechocean762:test", "libritts:dev-clean", "ljspeech", "robotutor"])
def test_missing_offline(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=f"^{name}: not found under .*place it in ") as raised:
        read_source(name, root=tmp_path, offline=True)
    assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_another_layout_is_not_fetched_over(tmp_path: Path) -> None:
    (tmp_path / "LJSpeech-1.1").mkdir()
    with pytest.raises(ManifestError, match="is there but cannot be read as ljspeech"):
        read_source("ljspeech", root=tmp_path)


def test_every_corpus_says_what_it_is() -> None:
    for name, corpus in CORPORA.items():
        assert corpus.name == name and corpus.summary and corpus.licence and corpus.home and corpus.default in corpus.splits
        assert set(corpus.archives) <= set(corpus.splits)
        for archive in corpus.archives.values():
            kind, _, value = (archive.checksum or "").partition(":")
            assert archive.url.startswith("https://")
            assert archive.checksum is None or len(value) == {"md5": 32, "sha256": 64}[kind]
    assert set(CORPORA["librispeech"].archives) == set(SUBSETS) == set(CORPORA["libritts"].archives)


def test_checksums_agree_with_torchaudio() -> None:
    datasets = pytest.importorskip("torchaudio.datasets", reason="compares with torchaudio's list")
    from torchaudio.datasets import libritts, ljspeech

    assert datasets
    ours = {archive.url: archive.checksum for archive in CORPORA["libritts"].archives.values()}
    assert ours == {url.replace("http://www", "https://www"): f"sha256:{value}" for url, value in libritts._CHECKSUMS.items()}
    release = ljspeech._RELEASE_CONFIGS["release1"]
    assert CORPORA["ljspeech"].archives[""].checksum == f"sha256:{release['checksum']}"


def test_shared_recordings(shared_data: Path) -> None:
    counts = {
        "digits:all": 2500,
        "digits:train": 2000,
        "digits:test": 200,
        "speechocean762:train": 2500,
        "speechocean762:dev": 1500,
        "librispeech:dev-clean": 891,
        "librispeech:train-clean-100": 367,
        "robotutor": 9562,
        "robotutor:stories?limit=7": 7,
    }
    for source, count in counts.items():
        utterances = read_source(source, root=shared_data, offline=True, durations=False)
        assert len(utterances) == count, source
        assert all(u.text and u.text == u.text.lower() for u in utterances), source
        assert Path(utterances[0].audio[0]).is_file() and Path(utterances[-1].audio[-1]).is_file()
    left = read_source("librispeech:dev-clean?without=1272,1673", root=shared_data, offline=True)
    assert len({u.speaker for u in left}) == 12
    assert all(u.duration is not None and u.duration > 0.5 for u in left)
