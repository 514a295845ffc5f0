"""`melcli answer`: one question stage by stage, several at a time, texts and speech, and everything that can be wrong."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from tests.cli.conftest import Melcli
from tests.cli.replying import RATE, recording, seconds_of
from tests.fake_replier import FakeReplier

LETTER = 4 * 256 / RATE  # seconds that the fake voice says one for
PARIS = ("what is the capital of france", "it is paris")


def files() -> list[str]:
    return sorted(str(path) for path in Path(".").rglob("*") if path.is_file())


def test_a_question(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[2.0] = PARIS
    recording("q.wav", 2.0)
    ran = melcli("answer", "q.wav", "--model", "m")
    assert (ran.code, ran.out) == (0, "question: what is the capital of france\nanswer: it is paris\n")
    assert replier.asked == [{"task": "answer", "speak": False, "count": "stream", "temperature": 1.0, "seed": 0, "max_seconds": None}]
    said = {line.split()[0]: line for line in ran.err.splitlines()}
    assert {"device", "dtype", "model", "mel", "output"} <= set(said) and "text alone" in said["output"] and "prompt" not in said
    assert files() == ["q.wav"] and melcli("answer", "q.wav", "--model", "m", "-q").err == ""


def test_stages_are_printed_as_they_come(melcli: Melcli, replier: FakeReplier, monkeypatch: pytest.MonkeyPatch) -> None:
    recording("q.wav", 2.0)
    seen: list[str] = []
    written = sys.stdout.write

    def stream(wave_S, task, **options):
        monkeypatch.setattr(sys.stdout, "write", lambda text: seen.append(text) or written(text))
        replier.last = SimpleNamespace(spoken=None, text_reason="eos")
        for kind, text in (("heard", "who"), ("heard", " are you"), ("said", "a model")):
            yield SimpleNamespace(kind=kind, text=text)
            assert seen[-1] == text  # before the next is made

    monkeypatch.setattr(replier, "stream", stream, raising=False)
    assert melcli("answer", "q.wav", "--model", "m").out == "question: who are you\nanswer: a model\n"


def test_spoken_into_a_file(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[2.0] = PARIS
    recording("q.wav", 2.0)
    ran = melcli("answer", "q.wav", "--model", "m", "-o", "deep/a.flac", "--max-seconds", 0.5, "--temperature", 0, "--seed", 3)
    assert ran.code == 0 and ran.out.splitlines()[-1] == "speech: deep/a.flac" and files() == ["deep/a.flac", "q.wav"]
    assert replier.asked[0] | {"speak": True, "temperature": 0.0, "seed": 3, "max_seconds": 0.5} == replier.asked[0]
    assert seconds_of("deep/a.flac") == pytest.approx(0.5, abs=0.03)


def test_json_says_the_same(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[2.0] = PARIS
    recording("q.wav", 2.0)
    row = {"audio": "q.wav", "duration": 2.0, "question": PARIS[0], "answer": PARIS[1], "finish_reason": "eos", "speech": None}
    assert json.loads(melcli("answer", "q.wav", "--model", "m", "-f", "json").out) == row
    ran = melcli("answer", "q.wav", "--model", "m", "-f", "jsonl", "-o", "a.wav")
    assert json.loads(ran.out) == row | {"speech": "a.wav"} and seconds_of("a.wav") == pytest.approx(11 * LETTER, abs=0.05)


def test_streamed_and_whole_speech_agree(melcli: Melcli, replier: FakeReplier) -> None:
    recording("q.wav", 2.0)
    assert melcli("answer", "q.wav", "--model", "m", "-o", "a.wav").code == 0
    assert melcli("answer", "q.wav", "--model", "m", "-o", "b.wav", "-f", "json").code == 0
    (one, _), (other, _) = soundfile.read("a.wav"), soundfile.read("b.wav")
    assert len(one) == len(other) and abs(one - other).max() < 1e-3


def test_a_folder(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows |= {2.0: PARIS, 1.0: ("who", "again and again")}
    recording("questions/b.wav", 1.0)
    recording("questions/a.wav", 2.0)
    recording("questions/deep/c.wav", 1.5)
    ran = melcli("answer", "questions", "--model", "m")
    assert ran.out.splitlines() == [
        "questions/a.wav: question: what is the capital of france",
        "questions/a.wav: answer: it is paris",
        "questions/b.wav: question: who",
        "questions/b.wav: answer: again and again",
    ]
    assert replier.asked[0]["count"] == 2 and "warning: 1 of 2 texts did not end by themselves (1 by repetition)" in ran.err
    ran = melcli("answer", "questions", "-r", "--model", "m", "-o", "answers", "-f", "jsonl")
    assert [json.loads(line)["speech"] for line in ran.out.splitlines()] == ["answers/a.wav", "answers/b.wav", "answers/deep/c.wav"]
    rows = [json.loads(line) for line in Path("answers/manifest.jsonl").read_text().splitlines()]
    assert rows[0] == {"id": "a", "audio": "a.wav", "text": PARIS[1], "question": PARIS[0], "answer": PARIS[1]} | {
        key: rows[0][key] for key in ("duration", "source")
    }
    assert rows[0]["source"] == "questions/a.wav" and rows[0]["duration"] == pytest.approx(seconds_of("answers/a.wav"), abs=0.001)
    Path("answers/b.wav").unlink()
    ran = melcli("answer", "questions", "-r", "--model", "m", "-o", "answers", "-f", "jsonl", "--skip-existing")
    assert [json.loads(line)["audio"] for line in ran.out.splitlines()] == ["questions/b.wav"] and "2 of 3 are done already" in ran.err
    assert [json.loads(line) for line in Path("answers/manifest.jsonl").read_text().splitlines()] == rows


def test_manifests_and_patterns(melcli: Melcli, replier: FakeReplier) -> None:
    recording("a.wav", 2.0)
    recording("b.wav", 1.0)
    Path("m.jsonl").write_text('{"id": "long", "audio": "a.wav", "question": "?"}\n{"id": "part", "audio": "a.wav", "start": 0.5, "end": 1.2}\n')
    found = json.loads(melcli("answer", "m.jsonl", "b*.wav", "--model", "m", "-f", "json").out)
    assert [(row["duration"], row["question"]) for row in found] == [
        (2.0, "it lasts 2 seconds"),
        (0.7, "it lasts 0.7 seconds"),
        (1.0, "it lasts 1 seconds"),
    ]


def test_one_failing_file_does_not_stop_the_rest(melcli: Melcli, replier: FakeReplier) -> None:
    recording("good.wav", 2.0)
    recording("silent.wav", 2.0, level=0.0)
    recording("odd.wav", 6.6)
    Path("text.wav").write_text("no audio at all")
    ran = melcli("answer", ".", "missing.wav", "--model", "m", "-f", "json", "-q")
    assert ran.code == 1 and [row["audio"] for row in json.loads(ran.out)] == ["good.wav"]
    lines = ran.err.splitlines()
    assert lines[0] == "4 of 5 failed:" and len(lines) == 5
    for expected in (
        "  silent.wav: is silent: there is no question in it.",
        "  odd.wav: this model does not like 6.6 s",
        "  missing.wav: no such file or folder.",
    ):
        assert expected in lines, ran.err


def test_silence_alone(melcli: Melcli, replier: FakeReplier) -> None:
    recording("silent.wav", 2.0, level=0.0)
    for more in ([], ["-f", "json"], ["-o", "a.wav"]):
        ran = melcli("answer", "silent.wav", "--model", "m", "-q", *more)
        assert (ran.code, ran.out, ran.err) == (1, "", "error: silent.wav: is silent: there is no question in it.\n")
    assert files() == ["silent.wav"]


def test_nothing_said_aloud(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[2.0] = ("who", "nothing aloud")
    recording("q.wav", 2.0)
    for more in ([], ["-f", "json"]):
        ran = melcli("answer", "q.wav", "--model", "m", "-q", "-o", "a.wav", *more)
        assert ran.code == 1 and ran.err == "error: q.wav: the model said nothing aloud.\n" and files() == ["q.wav"]


def test_a_voice_that_does_not_end(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[2.0] = ("who", "runaway")
    recording("q.wav", 2.0)
    ran = melcli("answer", "q.wav", "--model", "m", "-q", "-o", "a.wav")
    assert ran.code == 0 and ran.err == "warning: 1 of 1 voices did not end by themselves (1 by length)\n"


def test_pipes(melcli: Melcli, replier: FakeReplier, monkeypatch: pytest.MonkeyPatch) -> None:
    replier.knows[2.0] = PARIS
    recording("q.wav", 2.0)
    assert melcli("answer", "q.wav", "--model", "m", "-o", "a.wav").code == 0
    piped = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=piped, isatty=lambda: False, flush=lambda: None))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=open("q.wav", "rb")))
    ran = melcli("answer", "-", "--model", "m", "-o", "-", "-q")
    assert ran.code == 0 and ran.err == "question: what is the capital of france\nanswer: it is paris\n"
    piped.seek(0)
    (one, rate), (other, _) = soundfile.read(piped), soundfile.read("a.wav")
    assert rate == RATE and abs(one - other).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["q.wav"], "Missing option '--model'"),
        (["q.wav", "--model", "listener"], "--model listener: this model transcribes; it learnt neither continue nor answer"),
        (["q.wav", "r.wav", "--model", "m", "-o", "a.wav"], "-o a.wav: is a file, and there are 2 recordings: give a folder."),
        (["q.wav", "r.wav", "--model", "m", "-o", "-"], "-o -: one reply goes into a pipe, and there are 2 recordings; give -o DIR."),
        (["q.wav", "--model", "m", "-o", "q.wav"], "-o: q.wav is one of the inputs and would be overwritten; give another name."),
        (["q.wav", "--model", "m", "-o", "a.wvo"], "-o a.wvo: the suffix says the format; valid are .wav"),
        (["q.wav", "--model", "m", "-o", "-", "-f", "json"], "-o - has the audio on standard output, where -f json would write as well"),
        (["q.wav", "--model", "m", "--skip-existing"], "--skip-existing looks for files in an output folder: say which with -o DIR."),
        (["q.wav", "--model", "m", "-o", "a.wav", "--vocoder", "grifin-lim"], "no vocoder is called 'grifin-lim'. Did you mean 'griffin-lim'?"),
    ],
)
def test_usage(melcli: Melcli, replier: FakeReplier, arguments: list[str], expected: str) -> None:
    recording("q.wav", 1.0)
    recording("r.wav", 1.0)
    ran = melcli("answer", *arguments, "-q")
    assert ran.code == 2 and ran.out == "" and ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1, ran.err


def test_models_that_cannot(melcli: Melcli, replier: FakeReplier) -> None:
    recording("q.wav", 1.0)
    replier.speaks = False
    ran = melcli("answer", "q.wav", "--model", "m", "-o", "a.wav", "-q")
    assert (ran.code, ran.err) == (2, "error: --model m: this model replies in text only, it has no speech output; leave out -o.\n")
    assert melcli("answer", "q.wav", "--model", "m").code == 0
    replier.tasks = ("continue",)
    ran = melcli("answer", "q.wav", "--model", "m", "-q")
    expected = "error: --model m: this model was not trained for task answer; it was for continue. Recipe spectron-qa trains one.\n"
    assert (ran.code, ran.err) == (2, expected)


def test_flags_reach_the_model(melcli: Melcli, replier: FakeReplier, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "environ", dict(os.environ))
    recording("q.wav", 1.0)
    flags = ["--model", "m", "--device", "cpu", "--dtype", "float32", "--offline", "--vocoder", "griffin-lim", "-v"]
    ran = melcli("answer", "q.wav", "-o", "a.wav", *flags)
    assert ran.code == 0 and replier.loaded == [{"model": "m", "device": "cpu", "dtype": "float32", "offline": True}]
    assert "vocoder  griffin-lim: as asked" in ran.err and os.environ["HF_HUB_OFFLINE"] == "1"
