"""`melcli synthesize`: texts, files, rows, pipes, formats, voices, what is said on the way, and everything that can be wrong."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcli import registry
from tests import fake_speaker
from tests.cli.conftest import FakeTranscriber, Melcli
from tests.fake_speaker import FakeSpeaker, Hum

RATE = 16000
CLIP = Path(registry.__file__).parent / "assets" / "clips" / "garden-rms.wav"


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSpeaker:
    """Stands in for melcli.models.speaker, its model called tiny-voice; the test is in a folder of its own."""
    from melcli import synthesize

    fake = FakeSpeaker()
    module = types.ModuleType("melcli.models.speaker")
    module.Speaker, module.VoicePrompt, module.Spoken = fake, fake_speaker.VoicePrompt, fake_speaker.Spoken  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    loader = synthesize.load_vocoder
    monkeypatch.setattr(synthesize, "load_vocoder", lambda name, spec, **o: Hum(spec) if name == "auto" else loader(name, spec, **o))
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.fixture(scope="module")
def voice_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that really speaks, saved as a checkpoint."""
    from tests.voice_maker import save_voice

    return save_voice(tmp_path_factory.mktemp("voice") / "model")


def rows(*given: object, name: str = "rows.jsonl") -> Path:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in given))
    return Path(name)


def recording(name: str, seconds: float, level: float = 0.1, value: float | None = None) -> Path:
    wave = level * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    if value is not None:
        wave[5] = value
    soundfile.write(name, wave, RATE, subtype="FLOAT")
    return Path(name)


def files(folder: str = ".") -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())


def test_a_text(melcli: Melcli, speaker: FakeSpeaker) -> None:
    ran = melcli("synthesize", "Hello world. It cost $5.", "-o", "deep/hello.wav")
    assert (ran.code, ran.out) == (0, "deep/hello.wav\n")
    assert speaker.spoken == [["hello world.", "it cost five dollars."]]
    wave, rate = soundfile.read("deep/hello.wav")
    assert rate == RATE and 0.1 < abs(wave).max() <= 1 and files() == ["deep/hello.wav"]
    said = {line.split()[0]: line for line in ran.err.splitlines()}
    for name in ("device", "dtype", "model", "mel", "vocoder", "output"):
        assert name in said, ran.err
    assert "16000 Hz, 80 bins, 62.5 frames/s; 31.25 steps/s" in said["mel"] and "deep/hello.wav; as loud" in said["output"]
    assert "s of audio in" in ran.err.splitlines()[-1]
    assert melcli("synthesize", "Hello", "-o", "a.wav", "-q").err == ""


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "WAV"])
def test_formats(melcli: Melcli, speaker: FakeSpeaker, suffix: str) -> None:
    assert melcli("synthesize", "Hello", "-o", f"a.{suffix}").code == 0
    wave, _ = soundfile.read(f"a.{suffix}")
    assert len(wave) == pytest.approx(6 * 4 * 256, rel=0.3)


def test_flags_reach_the_model(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(os, "environ", dict(os.environ))
    waves = []
    for flags in ([], ["--seed", 3], ["--seed", 3], ["--temperature", 0], ["--temperature", 0, "--seed", 3]):
        assert melcli("synthesize", "Hello", "-o", "a.wav", *flags).code == 0
        waves.append(Path("a.wav").read_bytes())
    assert waves[1] == waves[2] != waves[0] and waves[3] == waves[4] != waves[0]
    ran = melcli(
        "synthesize", "Hi", "-o", "a.wav", "--model", "m", "--device", "cpu", "--dtype", "float32", "--offline", "--vocoder", "griffin-lim", "-v"
    )
    assert ran.code == 0 and speaker.loaded[-1] == {"model": "m", "device": "cpu", "dtype": "float32", "offline": True}
    assert "vocoder  griffin-lim: as asked" in ran.err and os.environ["HF_HUB_OFFLINE"] == "1"
    assert (
        melcli("synthesize", "Hi", "-o", "a.wav", "--model", "listener").err
        == "error: --model listener: this model only listens; it has no speech output\n"
    )


def test_a_text_file_and_standard_input(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("story.txt").write_bytes("\ufeffOnce upon a time.\n\nThe end.".encode())
    assert melcli("synthesize", "--text-file", "story.txt", "-o", "story.wav").code == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("story.txt").read_bytes())))
    assert melcli("synthesize", "-", "-o", "piped.wav").code == 0
    assert speaker.spoken == [["once upon a time.", "the end."]] * 2
    assert Path("story.wav").read_bytes() == Path("piped.wav").read_bytes()


def test_a_pipe(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    assert melcli("synthesize", "Hello world. More.", "-o", "a.wav").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        ran = melcli("synthesize", "Hello world. More.", "-o", "-")
        assert ran.code == 0, ran.err
        piped = sys.stdout.buffer.getvalue()
    assert piped[:4] == b"RIFF" and piped[4:8] == piped[40:44] == b"\xff" * 4
    wave, rate = soundfile.read(io.BytesIO(piped), dtype="int16")
    assert rate == RATE and abs(wave.astype(int) - soundfile.read("a.wav", dtype="int16")[0]).max() <= 1
    assert files() == ["a.wav"]


def test_rows(melcli: Melcli, speaker: FakeSpeaker) -> None:
    recording("ann.wav", 3)
    Path("ann.txt").write_text("I am Ann.")
    given = [
        {"text": "One."},
        {"text": "Two.", "id": "b/two"},
        {"text": "Three.", "audio": "../../c/three.flac", "id": "ignored"},
        {"text": "Four.", "id": 4, "voice": "ann.wav"},
        {"text": "Five.", "audio": "/tmp/../five.m4a", "voice": "ann.wav", "voice_text": "No, Bob"},
    ]
    ran = melcli("synthesize", "--text-file", rows(*given), "-o", "out")
    assert (ran.code, ran.out) == (0, "out/manifest.jsonl\n"), ran.err
    names = ["0001.wav", "b/two.wav", "c/three.flac", "4.wav", "tmp/five.wav"]
    assert files() == sorted(["ann.txt", "ann.wav", "rows.jsonl", "out/manifest.jsonl", *(f"out/{name}" for name in names)])
    listed = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [row["audio"] for row in listed] == names and [row["text"] for row in listed] == [row["text"] for row in given]
    for row in listed:
        assert row["duration"] == pytest.approx(soundfile.info(f"out/{row['audio']}").duration, abs=0.01) and row["odd"] == []
    assert [None if voice is None else voice.text for voice in speaker.voices] == [None, "i am ann.", "no, bob."]
    assert speaker.spoken == [["one.", "two.", "three."], ["four."], ["five."]]
    assert speaker.voices[1].mel_TM.shape == (188, 80)


def test_rows_that_fail_leave_the_others(melcli: Melcli, speaker: FakeSpeaker) -> None:
    recording("short.wav", 0.1)
    given = [
        {"text": "Fine."},
        {"text": "😀"},
        {"text": ""},
        {"text": "All is broken."},
        {"text": "x", "voice": "short.wav"},
        {"text": "y", "voice": "gone.wav"},
        {"text": "Also fine."},
    ]
    ran = melcli("synthesize", "--text-file", rows(*given), "-o", "out", "-q")
    assert ran.code == 1 and ran.out == "out/manifest.jsonl\n"
    lines = ran.err.splitlines()
    assert lines[0] == "5 of 7 failed:" and len(lines) == 6
    for number, reason in ((2, "the voice does not know 😀"), (3, "nothing to say"), (4, "NaN"), (5, "is 0.1 s long"), (6, "gone.wav")):
        assert any(line.startswith(f"  rows.jsonl:{number}: ") and reason in line for line in lines), reason
    assert files() == ["out/0001.wav", "out/0007.wav", "out/manifest.jsonl", "rows.jsonl", "short.wav"]


def test_skip_existing(melcli: Melcli, speaker: FakeSpeaker) -> None:
    source = rows({"text": "One."}, {"text": "Two."})
    assert melcli("synthesize", "--text-file", source, "-o", "out").code == 0
    Path("out/0001.wav").write_bytes(b"mine")
    Path("out/0002.wav").unlink()
    ran = melcli("synthesize", "--text-file", source, "-o", "out", "--skip-existing")
    assert ran.code == 0 and "1 of 2 are done already" in ran.err and Path("out/0001.wav").read_bytes() == b"mine"
    assert [json.loads(line)["id"] for line in Path("out/manifest.jsonl").read_text().splitlines()] == ["0001", "0002"]
    loaded = len(speaker.loaded)
    assert melcli("synthesize", "--text-file", source, "-o", "out", "--skip-existing").code == 0 and len(speaker.loaded) == loaded


def test_the_manifest_keeps_what_it_said_of_skipped_rows(melcli: Melcli, speaker: FakeSpeaker) -> None:
    source = rows({"text": "one", "id": "a"})
    assert melcli("synthesize", "--text-file", source, "-o", "out").code == 0
    before = json.loads(Path("out/manifest.jsonl").read_text())
    rows({"text": "one", "id": "a"}, {"text": "two", "id": "b"})
    assert melcli("synthesize", "--text-file", source, "-o", "out", "--skip-existing").code == 0
    after = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert before["duration"] > 0 and after[0] == before and after[1]["duration"] > 0


def test_a_row_that_cannot_be_written_leaves_the_others(melcli: Melcli, speaker: FakeSpeaker) -> None:
    ran = melcli(
        "synthesize", "--text-file", rows({"text": "a", "id": "a.wav"}, {"text": "b", "id": "a.wav/b"}, {"text": "c", "id": "c"}), "-o", "out"
    )
    assert ran.code == 1 and "rows.jsonl:2" in ran.err and "cannot be written" in ran.err
    assert [json.loads(line)["id"] for line in Path("out/manifest.jsonl").read_text().splitlines()] == ["a.wav", "c"]


def test_bad_names_and_temperatures_are_refused_before_a_model_is_loaded(melcli: Melcli, speaker: FakeSpeaker) -> None:
    ran = melcli("synthesize", "--text-file", rows({"text": "hi", "id": "a\0b"}), "-o", "out")
    assert ran.code == 2 and "rows.jsonl:1: 'id' holds a null character" in ran.err
    ran = melcli("synthesize", "--text-file", rows({"text": "hi", "id": "ü" * 200}), "-o", "out")
    assert ran.code == 2 and "rows.jsonl:1: 'üü" in ran.err and "240 bytes" in ran.err
    for value in ("inf", "nan", "11"):
        assert melcli("synthesize", "hi", "-o", "a.wav", "--temperature", value).code == 2
    assert not speaker.loaded


def test_a_voice(melcli: Melcli, speaker: FakeSpeaker) -> None:
    recording("ann.wav", 3)
    for flags in ([], ["--voice", "ann.wav"], ["--voice", "ann.wav", "--voice-text", "It's 5 o'clock"]):
        assert melcli("synthesize", "Hello", "-o", "a.wav", *flags).code == 0
    Path("ann.txt").write_text("I am\nAnn")
    assert melcli("synthesize", "Hello", "-o", "a.wav", "--voice", "ann.wav").code == 0
    texts = [None if voice is None else voice.text for voice in speaker.voices]
    assert texts == [None, None, "it's five o'clock.", "i am ann."]


def test_what_was_left_out_and_what_did_not_end_is_said_once(melcli: Melcli, speaker: FakeSpeaker) -> None:
    ran = melcli("synthesize", "Go 😀 now, 東京. A runaway. Go 😀 on.", "-o", "a.wav", "-q")
    assert ran.code == 0
    assert ran.err.splitlines() == [
        "warning: left out, since the voice cannot say it: 😀, 東京",
        "warning: 1 of 3 passages did not end by themselves (1 by length), so listen to them; the first: a runaway.",
    ]


def test_plot(melcli: Melcli, speaker: FakeSpeaker) -> None:
    pytest.importorskip("matplotlib")
    assert melcli("synthesize", "Hello. There.", "-o", "a.wav", "--plot", "pictures/a.png").code == 0
    assert Path("pictures/a.png").read_bytes()[:4] == b"\x89PNG" and files() == ["a.wav", "pictures/a.png"]


def test_check(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch, transcriber: FakeTranscriber) -> None:
    heard = {"a.wav": "hello 5 words", "0001.wav": "one", "0002.wav": "too"}
    monkeypatch.setattr(Path, "read_text", lambda self, **_: heard[self.name])  # the fake hears what a file's text is
    ran = melcli("synthesize", "Hello, five worlds.", "-o", "a.wav", "--check", "--device", "cpu")
    assert (ran.code, ran.out) == (0, "a.wav\nheard: hello five words\nWER 33.33 % (1 of 3 words)\n"), ran.err
    assert [(one["model"], one["device"]) for one in transcriber.loaded] == [("tiny-en", "cpu")]
    ran = melcli("synthesize", "--text-file", rows({"text": "One."}, {"text": "Two."}), "-o", "out", "--check-with", "other", "-v")
    assert ran.out.splitlines()[-1] == "WER 50.00 % (1 of 2 words)" and "out/0002.wav: too" in ran.err
    assert transcriber.loaded[-1]["model"] == "other"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give one of TEXT, - for standard input, and --text-file FILE."),
        (["hi", "--text-file", "story.txt", "-o", "a.wav"], "give one of TEXT"),
        (["hi"], "say where the audio goes: -o FILE.wav"),
        (["", "-o", "a.wav"], "there is nothing to say in the text."),
        (["?! ...", "-o", "a.wav"], "there is nothing to say in the text."),
        (["😀", "-o", "a.wav"], "there is nothing to say in the text."),
        (["東京 Привет", "-o", "a.wav"], "nothing in the text can be said: the voice does not know 東京, Привет."),
        (["story.txt", "-o", "a.wav"], "story.txt is a file: give --text-file story.txt"),
        (["hi", "-o", "a.m4a"], "-o a.m4a: the suffix says the format; valid are .wav, .flac"),
        (["hi", "-o", "folder"], "-o folder: is a folder, and one text makes one file: folder/speech.wav, say."),
        (["hi", "-o", "a.wav", "--skip-existing"], "--skip-existing looks for files in an output folder"),
        (["hi", "-o", "a.wav", "--voice-text", "x"], "--voice-text is what is said in the recording of --voice"),
        (["hi", "-o", "a.wav", "--voice", "gone.wav"], "--voice gone.wav: no such file."),
        (["hi", "-o", "a.wav", "--voice", "story.txt"], "--voice story.txt: "),
        (["hi", "-o", "a.wav", "--voice", "short.wav"], "--voice short.wav: is 0.1 s long; a voice is shown by 1 to 30 s"),
        (["hi", "-o", "a.wav", "--voice", "long.wav"], "--voice long.wav: is 10.0 min long"),
        (["hi", "-o", "a.wav", "--voice", "silent.wav"], "--voice silent.wav: is silent"),
        (["hi", "-o", "a.wav", "--voice", "nan.wav"], "--voice nan.wav: holds NaN or infinite samples"),
        (["hi", "-o", "silent.wav", "--voice", "silent.wav"], "-o: silent.wav is one of the inputs and would be overwritten"),
        (["hi", "-o", "a.wav", "--vocoder", "griffin-lin"], "no vocoder is called 'griffin-lin'. Did you mean 'griffin-lim'?"),
        (["hi", "-o", "a.wav", "--plot", "a.wav"], "--plot a.wav: the suffix says the format; valid are .png"),
        (["hi", "-o", "a.wav", "--seed", "-1"], "Invalid value for '--seed'"),
        (["hi", "-o", "a.wav", "--check-with", "no-such"], "--check-with no-such: no such folder or registered model"),
        (["hi", "-o", "-", "--check"], "--check listens to a file: give -o FILE."),
        (["--text-file", "gone.txt", "-o", "a.wav"], "--text-file gone.txt: no such file."),
        (["--text-file", "folder", "-o", "a.wav"], "--text-file folder: is a folder."),
        (["--text-file", "binary.txt", "-o", "a.wav"], "--text-file binary.txt: is not UTF-8 text"),
        (["--text-file", "empty.txt", "-o", "a.wav"], "there is nothing to say in the text."),
        (["--text-file", "fine.jsonl", "-o", "a.txt"], "-o a.txt: a .jsonl file is spoken into a folder."),
        (["--text-file", "fine.jsonl", "-o", "-"], "-o -: a .jsonl file is spoken into a folder."),
        (["--text-file", "fine.jsonl", "-o", "out", "--plot", "a.png"], "--plot draws one text"),
        (["--text-file", "json.jsonl", "-o", "out"], "json.jsonl:2: not JSON"),
        (["--text-file", "mute.jsonl", "-o", "out"], "mute.jsonl:1: no 'text'; valid are text, id, audio, voice, voice_text"),
        (["--text-file", "typed.jsonl", "-o", "out"], "typed.jsonl:1: 'text' is 5, expected a string"),
        (["--text-file", "empty.jsonl", "-o", "out"], "empty.jsonl: holds no rows"),
        (["--text-file", "twice.jsonl", "-o", "out"], "twice.jsonl:2: would be written to out/a.wav, as twice.jsonl:1 is"),
        (["--text-file", "source.jsonl", "-o", "."], "-o: silent.wav is one of the inputs and would be overwritten"),
        (["--text-file", "folder/manifest.jsonl", "-o", "folder"], "-o: folder/manifest.jsonl is one of the inputs and would be overwritten"),
    ],
)
def test_bad_input(melcli: Melcli, speaker: FakeSpeaker, arguments: list[str], expected: str) -> None:
    Path("folder").mkdir()
    Path("story.txt").write_text("Once upon a time.")
    Path("a.txt").write_text("x")
    Path("binary.txt").write_bytes(b"Hello there. \xff\xfe\x00")
    Path("empty.txt").touch()
    Path("empty.jsonl").touch()
    Path("json.jsonl").write_text('{"text": "x"}\n{"text": \n')
    rows({"text": "x"}, name="fine.jsonl")
    rows({"text": "x"}, name="folder/manifest.jsonl")
    rows({"audio": "x.wav"}, name="mute.jsonl")
    rows({"text": 5}, name="typed.jsonl")
    rows({"text": "x", "id": "a"}, {"text": "y", "id": "../a"}, name="twice.jsonl")
    rows({"text": "x", "audio": "silent.wav"}, name="source.jsonl")
    recording("short.wav", 0.1)
    recording("silent.wav", 3, level=0)
    recording("nan.wav", 3, value=math.nan)
    if "long.wav" in arguments:
        recording("long.wav", 600)
    before = files()
    ran = melcli("synthesize", *arguments, "-q")
    assert ran.code == 2 and ran.out == "", ran
    assert ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1
    assert files() == before and not Path("out").exists()


def test_a_place_that_cannot_be_written(melcli: Melcli, speaker: FakeSpeaker) -> None:
    Path("file").touch()
    ran = melcli("synthesize", "hi", "-o", "file/a.wav", "-q")
    assert ran.code == 1 and ran.err.startswith("error: file/a.wav: cannot be written: ") and ran.err.count("\n") == 1 and speaker.spoken == []


def test_an_interrupt_leaves_nothing(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.wav").write_bytes(b"mine")
    speak = FakeSpeaker.speak
    calls = []

    def stopping(self, *arguments, **options):
        calls.append(files())
        if len(calls) > 1:
            raise KeyboardInterrupt
        return speak(self, *arguments, **options)

    monkeypatch.setattr(FakeSpeaker, "speak", stopping)
    ran = melcli("synthesize", "A long story. " * 50, "-o", "a.wav", "-q")
    assert (ran.code, ran.err) == (130, "interrupted\n")
    assert len(calls) == 2 and len(calls[1]) == 2, "half a file under another name"
    assert files() == ["a.wav"] and Path("a.wav").read_bytes() == b"mine"


def test_an_interrupted_file_of_rows_keeps_its_manifest(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Ctrl-C and by SIGTERM; after a kill the next run knows what was noted, a torn line left out."""
    source = rows(*({"text": "One.", "id": f"r{number}"} for number in range(3)))
    assert melcli("synthesize", "--text-file", source, "-o", "whole").code == 0
    wave, sent = Hum.wave, []

    def stopping(self, mel):
        if sent and Path(f"out{128 + sent[-1]}/r0.wav").exists():  # in the second row
            os.kill(os.getpid(), sent.pop())
        return wave(self, mel)

    monkeypatch.setattr(Hum, "wave", stopping)
    for number, code, word in ((signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")):
        sent.append(number)
        ran = melcli("synthesize", "--text-file", source, "-o", f"out{code}", "-q")
        assert (ran.code, ran.err) == (code, f"{word}\n")
        assert files(f"out{code}") == [f"out{code}/manifest.jsonl", f"out{code}/r0.wav"]
    out = Path("out143")
    (out / ".manifest.jsonl.begun").write_text((out / "manifest.jsonl").read_text() + '{"audio": "r1.w')
    (out / "manifest.jsonl").unlink()
    assert melcli("synthesize", "--text-file", source, "-o", out, "--skip-existing", "-q").code == 0
    assert (out / "manifest.jsonl").read_text() == Path("whole/manifest.jsonl").read_text()
    assert files("out143") == ["out143/manifest.jsonl", *(f"out143/r{i}.wav" for i in range(3))]


def test_nothing_is_clipped(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    hum = Hum.wave
    monkeypatch.setattr(Hum, "wave", lambda self, mel: 4 * hum(self, mel))
    assert melcli("synthesize", "Hello", "-o", "a.wav").code == 0
    wave, _ = soundfile.read("a.wav", dtype="int16")
    assert 0.95 < abs(wave / 32768).max() <= 1 and len(np.unique(wave[abs(wave) > 0.96 * 32768])) > 10, "rounded off, not cut"


def test_a_closed_pipe_is_no_accident(melcli: Melcli, speaker: FakeSpeaker, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Closed()))
    ran = melcli("synthesize", "hello", "-o", "-", "-q")
    assert ran.code == 1 and ran.err == ""


def test_a_real_model_speaks(melcli: Melcli, voice_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = ["Hello world. It's 5 p.m. now!", "--model", voice_folder, "--dtype", "float32", "--vocoder", "griffin-lim"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert melcli("synthesize", *text, "-o", f"{name}.wav", "--seed", seed).code == 0
    first, again, other = (soundfile.read(f"{name}.wav", dtype="int16")[0] for name in "abc")
    assert np.array_equal(first, again) and not (len(first) == len(other) and np.array_equal(first, other))
    assert 100 < abs(first).max() < 30000
    ran = melcli("synthesize", *text, "-o", "d.wav", "--seed", 1, "--voice", CLIP, "-q")
    assert ran.code == 0, ran.err
    voiced = soundfile.read("d.wav", dtype="int16")[0]
    assert not (len(voiced) == len(first) and np.array_equal(voiced, first))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        assert melcli("synthesize", *text, "-o", "-", "--seed", 1).code == 0
        piped, _ = soundfile.read(io.BytesIO(sys.stdout.buffer.getvalue()), dtype="int16")
    assert len(piped) == len(first) and abs(piped.astype(int) - first).mean() < 0.01 * abs(first).max(), (
        "one at a time and together agree up to rounding"
    )
    Path("rows.jsonl").write_text('{"text": "Hello world.", "id": "x"}\n{"text": "It\'s 5 p.m. now!"}\n')
    assert melcli("synthesize", "--text-file", "rows.jsonl", "-o", "out", *text[1:]).code == 0
    assert soundfile.info("out/x.wav").frames > 1000 and soundfile.info("out/0002.wav").frames > 1000


def test_a_lexicon_is_for_voices_that_read_sounds(melcli: Melcli, voice_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does for one that does: tests/test_tiny_voice.py."""
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text("ynyr\tˈʌnɪɹ\n", encoding="utf-8")
    text = ["Ynyr", "-o", "a.wav", "--model", voice_folder]
    ran = melcli("synthesize", *text, "--lexicon", "mine.txt")
    assert (ran.code, ran.err) == (2, "error: --lexicon: this voice reads letters and not sounds; write the words as they should be read instead\n")
    ran = melcli("synthesize", *text, "--lexicon", "none.txt")
    assert ran.code == 2 and ran.err.startswith("error: none.txt: cannot be read as a pronunciation dictionary") and ran.err.count("\n") == 1
    assert files() == ["mine.txt"]


def test_models_and_vocoders_that_do_not_fit(melcli: Melcli, voice_folder: Path, tmp_path: Path) -> None:
    if "picky" not in registry.names("vocoder"):
        registry.register(registry.Entry("vocoder", "picky", "tests.fake_speaker:Picky", "for tests"))
    out = tmp_path / "a.wav"
    for model, vocoder, expected in (
        ("tiny-en", "auto", "--model tiny-en: this model only listens"),
        (voice_folder, "picky", "vocoder picky reads another mel specification: rate 16000 is not 24000"),
        (tmp_path, "auto", f"{tmp_path}: no config.json"),
        ("gone", "auto", "--model gone: no such folder or registered model"),
    ):
        ran = melcli("synthesize", "hi", "-o", out, "--model", model, "--vocoder", vocoder, "-q")
        assert ran.code == 2 and ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1, ran.err
    assert not out.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupted_process_leaves_nothing(voice_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("A long story. " * 2000)
    command = [sys.executable, "-m", "melcli", "synthesize", "--text-file", "long.txt", "-o", "a.wav", "--model", str(voice_folder)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        for _ in range(1800):
            if list(tmp_path.glob(".a.wav.*")):
                break
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 130 and errors.splitlines()[-1] == "interrupted" and "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["long.txt"]
