"""`melcli synthesize --continue`: with the prompt and without, one recording and several, and what does not go with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from tests.cli.conftest import FakeTranscriber, Melcli
from tests.cli.replying import RATE, recording, seconds_of
from tests.fake_replier import FakeReplier

GOES_ON = ("once upon a time", "there was a tone")


def test_a_recording(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[3.0] = GOES_ON
    recording("begun.wav", 4.5)
    ran = melcli("synthesize", "--continue", "begun.wav", "-o", "whole.wav", "--model", "m")
    assert (ran.code, ran.out) == (0, "heard: once upon a time\nsays: there was a tone\nspeech: whole.wav\n")
    assert replier.asked[0] | {"task": "continue", "speak": True, "count": "stream"} == replier.asked[0]
    assert "prompt   the first 3 s of each recording" in ran.err
    assert melcli("synthesize", "--continue", "begun.wav", "-o", "new.wav", "--model", "m", "--no-prompt").code == 0
    (whole, _), (new, _), (begun, _) = (soundfile.read(name) for name in ("whole.wav", "new.wav", "begun.wav"))
    assert len(whole) == 3 * RATE + len(new) and len(new) == 63 * 256
    edge = round(0.005 * RATE)  # faded, so that the seam does not click
    assert abs(whole[: 3 * RATE - edge] - begun[: 3 * RATE - edge]).max() < 1e-4 and abs(whole[3 * RATE - 1 : 3 * RATE + 1]).max() < 1e-3
    assert abs(whole[3 * RATE + edge :] - new[edge:]).max() < 1e-4


def test_a_picture_of_the_prompt_and_what_follows(melcli: Melcli, replier: FakeReplier) -> None:
    matplotlib_image = pytest.importorskip("matplotlib.image")
    replier.knows[3.0] = GOES_ON
    recording("begun.wav", 4.5)
    for out in ("whole.wav", "out"):
        assert melcli("synthesize", "--continue", "begun.wav", "-o", out, "--model", "m", "--plot", f"{out}.png").code == 0
        height, width, _ = matplotlib_image.imread(f"{out}.png").shape
        assert width > height > 200
    recording("short.wav", 1.0)
    assert melcli("synthesize", "--continue", "short.wav", "-o", "w.wav", "--model", "m", "--plot", "none.png").code == 1
    assert not Path("none.png").exists()


def test_what_cannot_be_told_apart_is_one_text(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[3.0] = ("once upon a time there was", "")
    recording("begun.wav", 3.2)
    assert melcli("synthesize", "--continue", "begun.wav", "-o", "w.wav", "--model", "m").out == "heard: once upon a time there was\nspeech: w.wav\n"


def test_folders_and_manifests(melcli: Melcli, replier: FakeReplier) -> None:
    replier.knows[3.0] = GOES_ON
    recording("begun/a.wav", 4.0)
    recording("begun/b.wav", 2.1)
    recording("begun/deep/c.wav", 3.0)
    Path("m.jsonl").write_text(json.dumps({"id": "half", "audio": "begun/a.wav", "start": 0.5}) + "\n")
    ran = melcli("synthesize", "--continue", "begun", "--continue", "m.jsonl", "-r", "-o", "out", "--model", "m", "--max-seconds", 0.3)
    assert ran.code == 1 and ran.out.splitlines()[:3] == [
        "begun/a.wav: heard: once upon a time",
        "begun/a.wav: says: there was a tone",
        "begun/a.wav: speech: out/a.wav",
    ]
    assert "begun/b.wav: 2.10 s of speech, and this model goes on after 3 s: give a longer prompt" in ran.err
    rows = {row["id"]: row for row in map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())}
    assert list(rows) == ["a", "deep/c", "half"] and rows["a"]["text"] == " ".join(GOES_ON) and rows["half"]["says"] == GOES_ON[1]
    assert rows["a"]["duration"] == pytest.approx(seconds_of("out/a.wav"), abs=0.001) and 3.25 < rows["a"]["duration"] < 3.35
    assert replier.asked[0]["max_seconds"] == 0.3


def test_bad_prompts_are_one_line(melcli: Melcli, replier: FakeReplier) -> None:
    recording("short.wav", 2.1)
    recording("silent.wav", 4.0, level=0.0)
    for name, reason in (
        ("short.wav", "2.10 s of speech, and this model goes on after 3 s: give a longer prompt"),
        ("silent.wav", "is silent: there is no speech in it to continue."),
        ("gone.wav", "no such file or folder."),
    ):
        ran = melcli("synthesize", "--continue", name, "-o", "w.wav", "--model", "m", "-q")
        assert (ran.code, ran.out, ran.err) == (1, "", f"error: {name}: {reason}\n")
    assert not Path("w.wav").exists()


def test_it_can_be_checked(melcli: Melcli, replier: FakeReplier, transcriber: FakeTranscriber, monkeypatch: pytest.MonkeyPatch) -> None:
    replier.knows[3.0] = GOES_ON
    recording("begun.wav", 3.5)
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr("melcli.synthesizing.check.listen", lambda model, spoken: heard.extend(spoken) or [])
    assert melcli("synthesize", "--continue", "begun.wav", "-o", "w.wav", "--model", "m", "--check").code == 0
    assert melcli("synthesize", "--continue", "begun.wav", "-o", "w.wav", "--model", "m", "--check", "--no-prompt").code == 0
    assert heard == [(Path("w.wav"), " ".join(GOES_ON)), (Path("w.wav"), GOES_ON[1])]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "w.wav"], "--continue needs a model that was trained to continue speech: give --model"),
        (["--model", "m"], "say where the audio goes: -o FILE.wav for one recording"),
        (["--model", "m", "-o", "w.wav", "hello"], "TEXT: does not go with --continue"),
        (["--model", "m", "-o", "w.wav", "--voice", "v.wav", "--lexicon", "l.txt"], "--voice, --lexicon: do not go with --continue"),
        (["--model", "m", "-o", "w.wav", "--plot", "p.gif"], "--plot p.gif: the suffix says the format; valid are .png, .pdf, .svg."),
        (
            ["--model", "m", "-o", "out", "--continue", "begun.wav", "--continue", "other.wav", "--plot", "p.png"],
            "--plot draws one recording, and there are 2",
        ),
        (["--model", "m", "-o", "begun.wav"], "-o: begun.wav is one of the inputs"),
        (["--model", "m", "-o", "-", "--check"], "--check listens to a file: give -o FILE."),
        (["--model", "m", "-o", "w.wav", "--check-with", "nobody"], "--check-with nobody: no such folder or registered model"),
    ],
)
def test_usage(melcli: Melcli, replier: FakeReplier, arguments: list[str], expected: str) -> None:
    recording("begun.wav", 3.5)
    recording("other.wav", 3.5)
    ran = melcli("synthesize", "--continue", "begun.wav", *arguments, "-q")
    assert ran.code == 2 and ran.out == "" and ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1, ran.err


@pytest.mark.parametrize("flag", ["--no-prompt", "--prompt", "--max-seconds=2", "--recursive"])
def test_flags_of_recordings_are_not_for_texts(melcli: Melcli, replier: FakeReplier, flag: str) -> None:
    ran = melcli("synthesize", "hello", "-o", "w.wav", flag)
    assert ran.code == 2 and ": is for recordings: give --continue PROMPT.wav." in ran.err


def test_a_model_that_only_answers(melcli: Melcli, replier: FakeReplier) -> None:
    recording("begun.wav", 3.5)
    replier.tasks = ("answer",)
    ran = melcli("synthesize", "--continue", "begun.wav", "-o", "w.wav", "--model", "m", "-q")
    assert ran.code == 2 and ran.err.startswith("error: --model m: this model was not trained for task continue; it was for answer.")
