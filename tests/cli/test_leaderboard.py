"""`melcli score --set`: the leaderboard's sets out of a mirror, result files that outlive their process, and what can be wrong with either."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from melcli import launch
from melcli.score import Report, score
from melcli.scoring import results
from tests.cli import mirror as mirrors
from tests.cli.conftest import FakeTranscriber, Melcli

PLAIN = ("--protocol", "plain")


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All seven sets of 2026."""
    return mirrors.build(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(scope="session")
def finished(apart: Callable[..., Any], mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result files of tiny-en on all of them, made by the command itself, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    ran = apart("score", "--set", "openasr", "--root", mirror, *PLAIN, "--csv", "row.csv", "-f", "json", "-q", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    (folder / "printed.json").write_text(ran.stdout)
    return folder


@pytest.fixture
def made(finished: Path, tmp_path: Path) -> Path:
    """A copy of the result files, to be changed."""
    return Path(shutil.copytree(finished / "results", tmp_path / "results"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def texts(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """What the result files of a folder hold, without the times."""
    return {path.name: [(row["audio_filepath"], row["pred_text"]) for row in lines(path)] for path in sorted(folder.glob("*.jsonl"))}


def rates(printed: str) -> dict[str, Any]:
    report = json.loads(printed)
    return {name: {key: value for key, value in one.items() if key != "rtfx"} for name, one in report["sets"].items()} | {
        "average": report["average"]["wer"]
    }


def file_of(folder: Path, name: str) -> Path:
    return next(folder.glob(f"*{name}*.jsonl"))


def test_all_seven_sets(finished: Path) -> None:
    report = json.loads((finished / "printed.json").read_text())
    assert list(report["sets"]) == mirrors.NAMES
    assert report["sets"]["ami_cleaned"]["utterances"] == 4 and report["sets"]["earnings22_cleaned_aa_chunked"]["utterances"] == 2
    assert report["average"]["wer"] == round(sum(one["wer"] for one in report["sets"].values()) / 7, 2)
    assert sorted(path.name for path in (finished / "results").glob("*.jsonl")) == sorted(
        f"MODEL_tiny-en_DATASET_{label}.jsonl"
        for label in (
            "ArtificialAnalysis-Earnings22-Cleaned-AA-chunked__test",
            *(f"hf-audio-open-asr-leaderboard_{config}_{split}" for config, split, _, _ in mirrors.PARQUET.values()),
        )
    )
    row = lines(file_of(finished / "results", "gigaspeech"))[0]
    assert list(row) == ["audio_filepath", "duration", "time", "text", "pred_text", "finish_reason"]
    name, _, text = mirrors.clips()[0]
    assert row["audio_filepath"] == name and row["text"] == f"{text.capitalize()}." and row["time"] > 0


def test_the_average_speed_is_all_audio_by_all_time(finished: Path) -> None:
    rows = [row for path in (finished / "results").glob("*.jsonl") for row in lines(path)]
    expected = sum(row["duration"] for row in rows) / sum(row["time"] for row in rows)
    assert json.loads((finished / "printed.json").read_text())["average"]["rtfx"] == pytest.approx(expected, abs=0.02)


def test_the_table_of_the_leaderboard(finished: Path) -> None:
    report = json.loads((finished / "printed.json").read_text())
    (row,) = csv.DictReader((finished / "row.csv").open())
    names = "AMI-Cleaned,Earnings22-Cleaned-AA-chunked,Gigaspeech-Cleaned,LS Clean,LS Other,SPGISpeech,Voxpopuli-AA-Cleaned"
    assert list(row) == ["model", "avg", "RTFx", *(f"{name} WER" for name in names.split(","))]
    assert row["model"] == "tiny-en" and float(row["avg"]) == report["average"]["wer"] and float(row["RTFx"]) == report["average"]["rtfx"]
    assert float(row["LS Clean WER"]) == report["sets"]["librispeech_test.clean"]["wer"]


def test_files_are_scored_without_a_model(melcli: Melcli, made: Path, finished: Path, transcriber: FakeTranscriber, mirror: Path) -> None:
    ran = melcli("score", "--hyp", made, *PLAIN, "-f", "json", "--csv", made / "again.csv")
    report = json.loads(ran.out)
    assert ran.code == 0 and transcriber.loaded == [] and report == json.loads((finished / "printed.json").read_text())
    assert (made / "again.csv").read_text() == (finished / "row.csv").read_text()
    whole = melcli("score", "--hyp", made, "--set", "openasr", "--root", mirror, *PLAIN, "-f", "json")
    assert whole.code == 0 and whole.out == ran.out


def test_killed_and_gone_on_with(apart: Callable[..., Any], finished: Path, mirror: Path, tmp_path: Path) -> None:
    arguments = ["score", "--set", "openasr", "--root", str(mirror), *PLAIN, "-f", "json", "-q", "-o", "out"]
    process = subprocess.Popen([sys.executable, "-m", "melcli", *arguments], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and len(list(tmp_path.glob("out/*.jsonl"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    begun = texts_by_line(tmp_path / "out")
    with max((tmp_path / "out").glob("*.jsonl")).open("ab") as file:
        file.write(b'{"audio_filepath": "torn", "te')
    ran = apart(*arguments, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert texts(tmp_path / "out") == texts(finished / "results") and rates(ran.stdout) == rates((finished / "printed.json").read_text())
    after = {line for kept in texts_by_line(tmp_path / "out").values() for line in kept}
    assert begun and all(set(kept) <= after for kept in begun.values())  # what was there, times included, is not done again


def texts_by_line(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in folder.glob("*.jsonl")}


def test_two_processes_share_the_work(melcli: Melcli, finished: Path, mirror: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "melcli", "score", "--set", "ami_cleaned", "--set", "spgispeech", "--root", str(mirror), "--devices", "2"]
    ran = subprocess.run([*command, "-f", "json", "-q", "--csv", "row.csv"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    alone = texts(finished / "results")
    assert texts(tmp_path / "results") == {name: rows for name, rows in alone.items() if "ami" in name or "spgi" in name}
    assert json.loads(ran.stdout)["sets"].keys() == {"ami_cleaned", "spgispeech"}
    assert not list((tmp_path / "results").glob("*-of-*"))


@pytest.fixture
def manifest(talks: Path) -> Path:
    rows = [{"audio": audio, "text": "so"} for audio in ("a.wav", "b.wav", "deep/c.mp3")]
    (talks / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return talks


def test_shares_are_disjoint_and_put_together(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads stand for two processes; they meet where processes would."""
    barrier, own, given = threading.Barrier(2, timeout=20), threading.local(), {}

    def gather(values: list[Any]) -> list[Any]:
        given[own.rank] = values
        barrier.wait()
        everything = [*given[0], *given[1]]
        barrier.wait()
        return everything

    monkeypatch.setattr(launch, "place", lambda: (own.rank, 2))
    monkeypatch.setattr(launch, "is_first", lambda: own.rank == 0)
    monkeypatch.setattr(launch, "gather", gather)
    (manifest / "b.wav").write_text("bad")

    def run(rank: int, fake: FakeTranscriber) -> list[Report]:
        own.rank = rank
        return score(sets=["dev.jsonl"], load=fake.load)

    fakes = [FakeTranscriber(), FakeTranscriber()]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, (0, 1), fakes)
    assert [[Path(name).name for name in fake.heard] for fake in fakes] == [["c.mp3", "a.wav"], ["b.wav"]]
    assert first[0].sets["dev"].total.utterances == 2 and second[0].sets == {}
    assert [reason for _, reason in first[0].failures] == [f"{manifest / 'b.wav'}: is not audio that can be decoded."]
    (file,) = (manifest / "results").glob("*.jsonl*")
    assert [Path(row["audio_filepath"]).name for row in lines(file)] == ["a.wav", "c.mp3"]


def test_shares_that_a_killed_run_left_are_used(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    melcli("score", "--set", "dev.jsonl", "--limit", 1)
    file = manifest / "results/MODEL_tiny-en_DATASET_dev.jsonl"
    row = lines(file)[0] | {"audio_filepath": str(manifest / "b.wav"), "pred_text": "good bye"}
    file.with_name(f"{file.name}.1-of-2").write_text(json.dumps(row) + '\n{"torn')
    transcriber.heard.clear()
    melcli("score", "--set", "dev.jsonl")
    assert [Path(name).name for name in transcriber.heard] == ["c.mp3"]
    assert [row["pred_text"] for row in lines(file)] == ["hello there", "good bye", "so deep"]
    assert not list(file.parent.glob("*-of-*"))


def test_only_what_is_missing_is_transcribed(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    melcli("score", "--set", "dev.jsonl", "--limit", 2)
    file = manifest / "results/MODEL_tiny-en_DATASET_dev.jsonl"
    with file.open("a") as torn:
        torn.write('{"audio_filepath"')
    transcriber.heard.clear()
    report = json.loads(melcli("score", "--set", "dev.jsonl", "-f", "json").out)
    assert [Path(name).name for name in transcriber.heard] == ["c.mp3"] and report["sets"]["dev"]["utterances"] == 3
    assert [Path(row["audio_filepath"]).name for row in lines(file)] == ["a.wav", "b.wav", "c.mp3"]
    transcriber.heard.clear()
    assert json.loads(melcli("score", "--set", "dev.jsonl", "--limit", 1, "-f", "json").out)["sets"]["dev"]["utterances"] == 1
    assert transcriber.heard == []
    melcli("score", "--set", "dev.jsonl", "--overwrite")
    assert len(transcriber.heard) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("decision", "was made otherwise: beam was '1', now it is '4'"),
        ("text", "has another text for"),
        ("settings", "is there already, and not known what made it"),
    ],
)
def test_files_made_otherwise_are_refused(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path, change: str, expected: str) -> None:
    transcriber.decisions["beam"] = "1"
    melcli("score", "--set", "dev.jsonl")
    if change == "decision":
        transcriber.decisions["beam"] = "4"
    elif change == "text":
        (manifest / "dev.jsonl").write_text((manifest / "dev.jsonl").read_text().replace('"so"', '"no"'))
    else:
        next(Path("results").glob("*.settings.json")).unlink()
    ran = melcli("score", "--set", "dev.jsonl", "-q")
    assert ran.code == 2 and expected in ran.err and "--overwrite" in ran.err and ran.err.count("\n") == 1
    assert melcli("score", "--set", "dev.jsonl", "--overwrite").code == 0


def test_two_sets_of_one_name_do_not_mix(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    (manifest / "deep" / "dev.jsonl").write_text(json.dumps({"audio": "c.mp3", "text": "so"}) + "\n")
    assert melcli("score", "--set", "dev.jsonl", "--limit", 2).code == 0
    ran = melcli("score", "--set", "deep/dev.jsonl")
    assert ran.code == 2 and "holds another set of this name" in ran.err and ran.err.count("\nerror") <= 1
    assert melcli("score", "--set", "dev.jsonl").code == 0


def test_two_runs_do_not_write_to_one_file(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    with results.claim(manifest / "results/MODEL_tiny-en_DATASET_dev.jsonl"):
        ran = melcli("score", "--set", "dev.jsonl", "-q")
    assert ran.code == 2 and "another run is writing to it" in ran.err and ran.err.count("\n") == 1
    assert melcli("score", "--set", "dev.jsonl").code == 0 and not list((manifest / "results").glob(".*"))


def test_other_weights_of_the_same_name_are_refused(melcli: Melcli, transcriber: FakeTranscriber, manifest: Path) -> None:
    Path("run").mkdir()
    Path("run/model.safetensors").write_bytes(b"one")
    assert melcli("score", "--set", "dev.jsonl", "--model", "run").code == 0
    Path("run/model.safetensors").write_bytes(b"two")
    ran = melcli("score", "--set", "dev.jsonl", "--model", "run")
    assert ran.code == 2 and "was made otherwise: weights was" in ran.err


def test_a_file_lacks_utterances(melcli: Melcli, made: Path, mirror: Path) -> None:
    file = file_of(made, "spgispeech")
    file.write_text(file.read_text().splitlines()[0] + "\n")
    arguments = ("score", "--hyp", made, "--set", "openasr", "--root", mirror, *PLAIN, "-f", "json")
    ran = melcli(*arguments)
    assert (
        ran.code == 1 and f"{mirrors.clips()[1][0]}: missing from {file}" in ran.err and json.loads(ran.out)["sets"]["spgispeech"]["utterances"] == 1
    )
    assert melcli(*arguments, "--allow-missing").code == 0
    file.unlink()
    ran = melcli(*arguments)
    assert ran.code == 1 and "spgispeech: no result file" in ran.err
    assert melcli("score", "--hyp", made, *PLAIN).code == 0  # nobody said that it must be there


def test_files_that_number_their_utterances_are_counted(melcli: Melcli, tmp_path: Path, mirror: Path) -> None:
    file = tmp_path / "MODEL_openai-whisper-base.en_DATASET_hf-audio-esb-datasets-test-only-sorted_librispeech_test.clean.jsonl"
    row = {"audio_filepath": "sample_0", "duration": None, "time": None, "text": "nine", "pred_text": "nine"}
    file.write_text(json.dumps(row) + "\n")
    ran = melcli("score", "--hyp", file, "--set", "librispeech_test.clean", "--root", mirror, *PLAIN, "-f", "json")
    assert ran.code == 1 and "1 of 2 utterances are missing from" in ran.err
    report = json.loads(ran.out)
    assert report["model"] == "openai-whisper-base.en" and list(report["sets"]) == ["librispeech_test.clean"]
    file.write_text(json.dumps(row) + "\n" + json.dumps(row | {"audio_filepath": "sample_1"}) + "\n")
    assert melcli("score", "--hyp", file, "--set", "librispeech_test.clean", "--root", mirror, *PLAIN).code == 0


def test_rows_that_are_not_of_the_set(melcli: Melcli, made: Path, mirror: Path) -> None:
    file = file_of(made, "spgispeech")
    rows = lines(file)
    with file.open("a") as more:
        more.write(json.dumps(rows[0] | {"audio_filepath": "stranger", "pred_text": "wrong " * 9}) + "\n")
    arguments = ("score", "--hyp", file, "--set", "spgispeech", "--root", mirror, *PLAIN, "-f", "json")
    ran = melcli(*arguments)
    assert ran.code == 1 and f"stranger: not of the set and not scored: {file}" in ran.err
    assert json.loads(ran.out)["sets"]["spgispeech"]["utterances"] == 2
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    (one,) = json.loads(melcli(*arguments, "--limit", 1).out)["sets"].values()
    assert (one["words"], one["utterances"]) == (len(rows[0]["text"].split()), 1)  # the set's first, wherever it stands in the file


def test_a_limit_takes_whole_calls(melcli: Melcli, mirror: Path, tmp_path: Path) -> None:
    ran = melcli("score", "--set", "earnings22_cleaned_aa_chunked", "--root", mirror, "--limit", 1, "-o", tmp_path / "out", "-f", "json")
    assert ran.code == 0, ran.err
    (one,) = json.loads(ran.out)["sets"].values()
    (file,) = (tmp_path / "out").glob("*.jsonl")
    assert one["utterances"] == 1 and sorted(row["chunk_index"] for row in lines(file)) == [0, 1]


def test_the_protocol_is_the_same_for_a_model_and_for_its_files(melcli: Melcli, mirror: Path, tmp_path: Path) -> None:
    ran = melcli("score", "--set", "spgispeech", "--root", mirror, "-o", tmp_path / "out", "-f", "json")
    again = melcli("score", "--hyp", tmp_path / "out", "-f", "json")
    assert ran.out == again.out and json.loads(ran.out)["protocol"] == "openasr-2026"
    assert "protocol  openasr-2026 1 (" in ran.err and "the sets are openasr's" in again.err


def test_pieces_in_any_order_and_one_missing(melcli: Melcli, made: Path, mirror: Path) -> None:
    file = file_of(made, "Earnings22")
    before = json.loads(melcli("score", "--hyp", file, *PLAIN, "-f", "json").out)
    assert before["sets"]["earnings22_cleaned_aa_chunked"]["utterances"] == 2
    kept = lines(file)
    file.write_text("".join(json.dumps(row) + "\n" for row in sorted(kept, key=lambda row: (-row["chunk_index"], row["parent_id"]))))
    assert json.loads(melcli("score", "--hyp", file, *PLAIN, "-f", "json").out) == before
    file.write_text("".join(json.dumps(row) + "\n" for row in kept if (row["parent_id"], row["chunk_index"]) != ("4320211", 0)))
    ran = melcli("score", "--hyp", file, *PLAIN, "-f", "json")
    assert ran.code == 1 and "4320211: pieces of it are missing" in ran.err
    assert json.loads(ran.out)["sets"]["earnings22_cleaned_aa_chunked"]["utterances"] == 1
    assert melcli("score", "--hyp", file, *PLAIN, "--allow-missing").code == 0
    file.write_text("".join(json.dumps(row) + "\n" for row in kept if (row["parent_id"], row["chunk_index"]) != ("4320211", 1)))
    assert melcli("score", "--hyp", file, *PLAIN).code == 0  # only the set itself says how many pieces there were
    ran = melcli("score", "--hyp", file, "--set", "earnings22_cleaned_aa_chunked", "--root", mirror, *PLAIN)
    assert ran.code == 1 and "4320211: pieces of it are missing" in ran.err


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (['{"audio_filepath": "x", "text": "a", "pred_text": "a"}', "{"], ":2: not JSON"),
        (['{"audio_filepath": "x", "text": "a", "pred_text": "a"}'] * 2, ": 1 utterances are in it more than once: x."),
        (['{"text": "a", "pred_text": "a", "parent_id": "p"}'], ":1: 'parent_id' and 'chunk_index' (a whole number) go together."),
        (['{"text": "a", "pred_text": "a", "time": "soon"}'], ":1: 'time' is \"soon\", expected seconds"),
        (
            [f'{{"audio_filepath": "{i}", "text": "{t}", "pred_text": "a", "parent_id": "p", "chunk_index": {i}}}' for i, t in enumerate("ab")],
            ": the pieces of p have different reference texts",
        ),
    ],
)
def test_broken_result_files(melcli: Melcli, tmp_path: Path, rows: list[str], expected: str) -> None:
    file = tmp_path / "MODEL_m_DATASET_d.jsonl"
    file.write_text("".join(row + "\n" for row in rows))
    ran = melcli("score", "--hyp", tmp_path, *PLAIN)
    assert ran.code == 2 and f"{file}{expected}" in ran.err and ran.err.count("\n") == 1


def test_a_folder_without_results(melcli: Melcli, tmp_path: Path) -> None:
    assert "holds no result files (.jsonl)." in melcli("score", "--hyp", tmp_path).err


def test_a_set_that_changed(melcli: Melcli, mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / mirrors.REPO / "spgispeech"
    mirrors.write_parquet(folder / "test-00000-of-00001.parquet", mirrors.rows("x", "words", "x"))
    ran = melcli("score", "--set", "spgispeech", "--root", tmp_path, *PLAIN)
    assert ran.code == 2 and "no text; one of text, sentence, normalized_text, transcript, transcription was expected" in ran.err
    (folder / "test-00000-of-00001.parquet").rename(folder / "test-00000-of-00002.parquet")
    assert "incomplete, 1 of 00002 files are missing: test-00001-of-00002.parquet" in melcli("score", "--set", "spgispeech", "--root", tmp_path).err
    (folder / "test-00000-of-00002.parquet").write_bytes(b"PAR1")
    (folder / "test-00001-of-00002.parquet").write_bytes(b"")
    ran = melcli("score", "--set", "spgispeech", "--root", tmp_path, *PLAIN)
    assert ran.code == 2 and "not a whole parquet file" in ran.err and ran.err.count("\n") == 1


def test_calls_without_their_texts(melcli: Melcli, mirror: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(mirror, tmp_path / "mirror"))
    (listing,) = (root / "ArtificialAnalysis/Earnings22-Cleaned-AA").glob("*.jsonl")
    listing.write_text(listing.read_text().splitlines()[0] + "\n")
    ran = melcli("score", "--set", "earnings22_cleaned_aa_chunked", "--root", root, *PLAIN)
    assert ran.code == 2 and "no text in ArtificialAnalysis/Earnings22-Cleaned-AA for 4341191" in ran.err


def test_a_set_that_is_not_here(melcli: Melcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("openasr", "openasr-classic", "earnings22_cleaned_aa_chunked", "librispeech", "hf:owner/name:config:test"):
        ran = melcli("score", "--set", name, "--root", tmp_path, "--offline", *PLAIN)
        assert ran.code == 2 and str(tmp_path) in ran.err and "place" in ran.err and ran.err.count("\n") == 1, ran.err


def test_a_set_behind_a_gate(melcli: Melcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def refuse(*_: object, **__: object) -> None:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    ran = melcli("score", "--set", "gigaspeech_cleaned", "--root", tmp_path, *PLAIN)
    assert ran.code == 2 and "`hf auth login` (or set HF_TOKEN), or place its files in" in ran.err and ran.err.count("\n") == 1


def test_any_split_of_a_mirror(melcli: Melcli, mirror: Path, tmp_path: Path) -> None:
    arguments = ("score", "--set", f"hf:{mirrors.REPO}:librispeech:test.clean", "--root", mirror, "-f", "json", "-o", tmp_path / "out")
    report = json.loads(melcli(*arguments).out)
    assert {name: one["utterances"] for name, one in report["sets"].items()} == {"librispeech_test.clean": 2} and report["protocol"] == "openasr-2026"
    assert [path.name for path in (tmp_path / "out").glob("*.jsonl")] == [
        "MODEL_tiny-en_DATASET_hf-audio-open-asr-leaderboard_librispeech_test.clean.jsonl"
    ]
