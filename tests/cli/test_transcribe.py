"""`melcli transcribe`: inputs, formats, output folders, exit codes."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from melcli.inputs import open_inputs
from tests.cli.conftest import FakeTranscriber, Melcli


def test_one_file_prints_its_text_and_nothing_else(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    ran = melcli("transcribe", "a.wav")
    assert (ran.code, ran.out) == (0, "hello there\n")
    assert "device  cpu: a fake needs no other" in ran.err


def test_several_files_in_the_order_given(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    ran = melcli("transcribe", "b.wav", "a.wav", "deep/c.mp3", "-q")
    assert (ran.code, ran.out, ran.err) == (0, "b.wav: good bye\na.wav: hello there\ndeep/c.mp3: so deep\n", "")


def test_json_is_an_object_for_one_and_a_list_for_several(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    expected = {"audio": "a.wav", "duration": 1.5, "text": "hello there"}
    expected["segments"] = [{"start": 0.0, "end": 1.5, "text": "hello there", "finish_reason": "eos"}]
    assert json.loads(melcli("transcribe", "a.wav", "-f", "json").out) == expected
    several = json.loads(melcli("transcribe", "a.wav", "b.wav", "-f", "json").out)
    assert several[0] == expected and [one["audio"] for one in several] == ["a.wav", "b.wav"]


def test_jsonl_is_written_as_each_is_done(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    lines = melcli("transcribe", "a.wav", "b.wav", "-f", "jsonl").out.splitlines()
    assert [json.loads(line)["audio"] for line in lines] == ["b.wav", "a.wav"]


def test_subtitles(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    assert melcli("transcribe", "a.wav", "-f", "srt").out == "1\n00:00:00,000 --> 00:00:01,500\nhello there\n"
    assert melcli("transcribe", "a.wav", "-f", "vtt", "--line-length", 10).out.splitlines()[3:] == ["hello", "there"]
    assert melcli("transcribe", "a.wav", "-f", "vtt", "--line-length", 10, "--lines", 1).out.count("-->") == 2
    melcli("transcribe", "-r", ".", "-f", "tsv", "-o", "../out")
    assert (talks.parent / "out/deep/c.tsv").read_text() == "start\tend\ttext\n0\t1500\tso deep\n"


def test_timestamps(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    assert melcli("transcribe", "a.wav", "--timestamps", "segment").out == "[00:00:00.000 --> 00:00:01.500] hello there\n"
    assert melcli("transcribe", "a.wav", "b.wav", "--timestamps", "word", "-q").out.splitlines() == [
        "a.wav: [00:00:00.000 --> 00:00:00.400] hello",
        "a.wav: [00:00:00.500 --> 00:00:00.900] there",
        "b.wav: [00:00:00.000 --> 00:00:00.400] good",
        "b.wav: [00:00:00.500 --> 00:00:00.900] bye",
    ]
    assert "segments" not in json.loads(melcli("transcribe", "a.wav", "-f", "json", "--timestamps", "none").out)
    (segment,) = json.loads(melcli("transcribe", "a.wav", "-f", "json", "--timestamps", "word").out)["segments"]
    assert segment["words"] == [{"word": "hello", "start": 0.0, "end": 0.4}, {"word": "there", "start": 0.5, "end": 0.9}]


def test_segments_are_printed_in_order_as_they_come(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    (talks / "broken.wav").write_text("bad")
    ran = melcli("transcribe", "a.wav", "broken.wav", "b.wav", "--stream", "-q")  # the fake gives the last first
    assert (ran.code, ran.out) == (1, "a.wav: hello there\nb.wav: good bye\n") and "broken.wav" in ran.err
    lines = [json.loads(line) for line in melcli("transcribe", "a.wav", "--stream", "-f", "jsonl").out.splitlines()]
    assert lines == [{"audio": "a.wav", "start": 0.0, "end": 1.5, "text": "hello there", "finish_reason": "eos"}]


def test_what_was_cut_short_is_said(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    (talks / "long.wav").write_text("cut off here")
    ran = melcli("transcribe", "a.wav", "long.wav", "-q")
    assert ran.code == 0 and ran.err.startswith("warning: 1 of 2 segments hit the limit of tokens") and ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["."], ["a.wav", "b.wav"]),
        (["-r", "."], ["a.wav", "b.wav", "deep/c.mp3"]),
        (["*.wav"], ["a.wav", "b.wav"]),
        (["**/*.mp3"], ["deep/c.mp3"]),
        (["a.wav", "a.wav", "./a.wav", "."], ["a.wav", "b.wav"]),
        (["notes.txt"], ["notes.txt"]),
    ],
)
def test_what_paths_stand_for(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, arguments: list[str], names: list[str]) -> None:
    assert melcli("transcribe", *arguments).code == 0
    assert sorted(os.path.normpath(name) for name in transcriber.heard) == names


def test_a_manifest(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    rows = [{"audio": "a.wav", "id": "first", "duration": 1}, {"audio_filepath": "deep/c.mp3", "id": "x/second", "duration": 1}]
    Path("list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert melcli("transcribe", "list.jsonl").out == "first: hello there\nx/second: so deep\n"
    assert melcli("transcribe", "list.jsonl", "-o", "out").code == 0
    assert (talks / "out/x/second.txt").read_text() == "so deep\n"


def test_audio_on_standard_input(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped in")))
    ran = melcli("transcribe", "-", "-f", "json")
    assert ran.code == 0 and json.loads(ran.out)["audio"] == "-" and json.loads(ran.out)["text"] == "piped in"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"bad")))
    assert melcli("transcribe", "-").err.splitlines()[-1] == "error: -: is not audio that can be decoded."
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    ran = melcli("transcribe", "-")
    assert (ran.code, ran.err) == (1, "error: -: standard input is empty.\n")


def test_the_copy_of_standard_input_does_not_stay() -> None:
    with open_inputs(["-"], stdin=io.BytesIO(b"x")) as inputs:
        kept = Path(inputs.items[0].utterance.audio[0])
        assert kept.read_bytes() == b"x"
    assert not kept.exists()


def test_an_output_folder_keeps_the_tree(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    ran = melcli("transcribe", "-r", ".", "-f", "all", "-o", "../out")
    out = talks.parent / "out"
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    assert found == [f"{stem}.{f}" for stem in ("a", "b", "deep/c") for f in ("json", "jsonl", "srt", "tsv", "txt", "vtt")]
    assert (ran.code, ran.out) == (0, "")
    assert (out / "deep/c.txt").read_text() == "so deep\n"
    assert json.loads((out / "a.json").read_text()) == json.loads((out / "a.jsonl").read_text())


def test_names_that_would_clash_are_told_apart(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    for name in ("a.mp3", "deep/b.wav"):
        (talks / name).write_text(name)
    assert melcli("transcribe", "a.wav", "a.mp3", "b.wav", "deep/b.wav", "-o", "out").code == 0
    found = {str(p.relative_to(talks / "out")): p.read_text() for p in (talks / "out").rglob("*.txt")}
    assert found == {"a.wav.txt": "hello there\n", "a.mp3.txt": "a.mp3\n", "talks/b.wav.txt": "good bye\n", "deep/b.wav.txt": "deep/b.wav\n"}


def test_skip_existing(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    melcli("transcribe", "a.wav", "-o", "out")
    (talks / "out/a.txt").write_text("mine")
    ran = melcli("transcribe", "a.wav", "b.wav", "-o", "out", "--skip-existing")
    assert ran.code == 0 and "1 of 2 are done already" in ran.err
    assert transcriber.heard == ["a.wav", "b.wav"] and (talks / "out/a.txt").read_text() == "mine"
    transcriber.loaded.clear()
    assert melcli("transcribe", "a.wav", "b.wav", "-o", "out", "--skip-existing").code == 0
    assert transcriber.loaded == []  # nothing to do needs no model


def test_failures_are_listed_and_the_rest_is_done(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    (talks / "broken.wav").write_text("bad")
    (talks / "empty").mkdir()
    Path("list.jsonl").write_text('{"audio": "a.wav"}\n{"audio": \n')
    ran = melcli("transcribe", "absent.wav", "a.wav", "broken.wav", "empty", "*.xyz", "list.jsonl", "-q")
    assert (ran.code, ran.out) == (1, "a.wav: hello there\n")
    lines = ran.err.splitlines()
    assert lines[0] == "5 of 6 failed:" and len(lines) == 6
    assert "  absent.wav: no such file or folder." in lines
    assert "  broken.wav: is not audio that can be decoded." in lines
    assert any(line.startswith("  empty: no audio in this folder (looked for .wav") for line in lines)
    assert "  *.xyz: the pattern matches no audio file, folder or manifest." in lines
    assert any("list.jsonl:2" in line for line in lines)


def test_one_failure_is_one_line(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    assert melcli("transcribe", "absent.wav").err == "error: absent.wav: no such file or folder.\n"
    assert transcriber.loaded == []
    Path("outer/inner").mkdir(parents=True)
    assert "-r looks into its folders too" in melcli("transcribe", "outer").err


def test_nothing_is_written_for_a_failure(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    (talks / "broken.wav").write_text("bad")
    assert melcli("transcribe", "broken.wav", "a.wav", "-o", "out", "-f", "json").code == 1
    assert [p.name for p in (talks / "out").iterdir()] == ["a.json"]
    assert json.loads(melcli("transcribe", "broken.wav", "a.wav", "-f", "json").out)[0]["audio"] == "a.wav"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["a.wav", "-f", "all"], "-f all writes several files an input: say where with -o DIR."),
        (["a.wav", "--skip-existing"], "--skip-existing looks for files in an output folder"),
        (["a.wav", "-o", "notes.txt"], "-o notes.txt: is a file, and -o takes a folder."),
        (["notes.wav", "notes.txt", "-o", "."], "-o .: notes.txt is one of the inputs and would be overwritten"),
        (["a.wav", "--batch-size", "0"], "--batch-size 0: must be a number of at least 1, or auto."),
        (["a.wav", "--batch-size", "many"], "--batch-size many: must be"),
        (["a.wav", "-f", "pdf"], "Invalid value for '--format' / '-f': 'pdf' is not one of"),
        (["a.wav", "--device", "tpu"], "Invalid value for '--device': 'tpu' is not one of"),
        (["a.wav", "b.wav", "-f", "srt"], "-f srt is a file an input: say where with -o DIR."),
        (["a.wav", "-f", "vtt", "--timestamps", "none"], "--timestamps none: -f vtt needs times"),
        (["a.wav", "-f", "json", "--stream"], "--stream, and mic, print to the terminal as -f txt or jsonl"),
        (["a.wav", "-o", "out", "--stream"], "--stream, and mic, print to the terminal as -f txt or jsonl"),
        (["mic", "a.wav"], "mic: a microphone is listened to alone"),
        (["mic", "--no-vad"], "mic: needs the VAD"),
        (["mic", "-f", "srt"], "--stream, and mic, print"),
        (["a.wav", "--hotwords", " , "], "--hotwords: give words or phrases with commas between them."),
        (["a.wav", "-q", "-v"], "-q and -v contradict each other."),
        ([], "Missing argument 'PATH'."),
    ],
)
def test_usage_errors(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, arguments: list[str], expected: str) -> None:
    (talks / "notes.wav").write_text("x")
    ran = melcli("transcribe", *arguments)
    assert ran.code == 2 and ran.out == ""
    assert ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1
    assert (talks / "notes.txt").read_text() == "no audio"


def test_an_unreadable_folder(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)  # taking the right away does not stop a superuser
    assert melcli("transcribe", "deep").err == "error: deep: Permission denied\n"


def test_a_broken_write_leaves_no_half_file(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "out/a.txt")

    monkeypatch.setattr(os, "replace", full)
    ran = melcli("transcribe", "a.wav", "-o", "out")
    assert ran.code == 1 and ran.err.splitlines()[-1] == "error: out/a.txt: cannot be written: No space left on device"
    assert list((talks / "out").iterdir()) == []


def test_interrupted(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transcriber, "load", stop)
    ran = melcli("transcribe", "a.wav")
    assert (ran.code, ran.err) == (130, "interrupted\n")


def test_a_full_disk_is_one_line(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    ran = melcli("transcribe", "a.wav", "-o", "out", "-q")
    assert (ran.code, ran.err) == (1, "error: out/a.txt: cannot be written: No space left on device\n")
    assert list((talks / "out").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_to_a_full_disk(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run([sys.executable, "-m", "melcli", "recipes", "ls"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (run.returncode, run.stderr) == (1, "error: output: cannot be written: No space left on device.\n")
