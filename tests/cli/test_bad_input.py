"""Bad input to the real commands: one line each, the right exit code, the other files of the batch still done."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcli import registry

CLIP = next(iter(sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))), None)
pytestmark = pytest.mark.skipif(CLIP is None, reason="needs the bundled clip")


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    """A folder of everything that goes wrong beside two files that do not."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copy(CLIP, folder / "good.wav")
    wave, rate = soundfile.read(CLIP, dtype="float32")
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("this is not audio\n" * 50)
    whole = CLIP.read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 3])
    soundfile.write(folder / "nothing.wav", np.zeros(0, np.float32), rate)
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(wave)) == 500, math.nan, wave), rate, subtype="FLOAT")
    soundfile.write(folder / "zeros.wav", np.zeros(rate, np.float32), rate)
    six = np.repeat(np.repeat(wave, 96000 // rate)[:, None], 6, 1)
    soundfile.write(folder / "six.wav", six, 96000)
    (folder / "dangling.wav").symlink_to(folder / "gone.wav")
    return folder


def test_a_folder_of_bad_files_loses_nothing(apart, bad):
    run = apart("transcribe", bad, bad / "missing.wav", "-f", "json", "-q")
    assert run.returncode == 1
    found = {Path(item["audio"]).name: item for item in json.loads(run.stdout)}
    assert set(found) == {"good.wav", "zeros.wav", "six.wav"}
    assert found["good.wav"]["text"]
    assert found["zeros.wav"]["text"] == ""
    assert found["zeros.wav"]["segments"][0]["finish_reason"] == "silence"
    assert found["six.wav"]["duration"] == pytest.approx(found["good.wav"]["duration"], abs=0.01)
    lines = run.stderr.strip().splitlines()
    assert "Traceback" not in run.stderr
    for name, reason in {
        "empty.wav": "empty",
        "text.wav": "not audio|text",
        "truncated.wav": "truncated|cut",
        "nothing.wav": "no samples|0 samples|no audio",
        "nan.wav": "NaN|finite",
        "missing.wav": "no such",
    }.items():
        line = next(line for line in lines if name in line)
        assert any(word in line for word in reason.split("|")), line


def test_a_folder_without_audio(apart, tmp_path):
    (tmp_path / "notes.txt").write_text("nothing to hear")
    run = apart("transcribe", tmp_path)
    assert run.returncode == 1
    assert "audio" in run.stderr
    assert "Traceback" not in run.stderr


def test_audio_on_standard_input(apart):
    command = [sys.executable, "-m", "melcli", "transcribe", "-", "-q"]
    run = subprocess.run(command, input=CLIP.read_bytes(), capture_output=True, timeout=120, check=False)
    assert run.returncode == 0
    assert run.stdout.decode().strip() == apart("transcribe", CLIP, "-q").stdout.strip() != ""


def test_a_broken_manifest_line_is_named(apart, tmp_path):
    shutil.copy(CLIP, tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "x"}\n{"audio": \n')
    run = apart("score", "--manifest", tmp_path / "m.jsonl")
    assert run.returncode == 2
    assert "m.jsonl:2" in run.stderr
    assert len([line for line in run.stderr.splitlines() if line.startswith("error")]) == 1


def test_a_manifest_scores_and_names_what_failed(apart, tmp_path):
    shutil.copy(CLIP, tmp_path / "a.wav")
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "text": "some words"}\n{"audio": "gone.wav", "text": "x"}\n')
    run = apart("score", "--manifest", tmp_path / "m.jsonl", "-f", "json")
    assert run.returncode == 1
    score = json.loads(run.stdout)["sets"]["m"]
    assert score["utterances"] == 1
    assert score["rtfx"] > 0
    assert "gone.wav" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "x.wav", "--model", "tiny-eng"], "tiny-en"),
        (["transcribe", "x.wav", "--device", "tpu"], "valid"),
        (["transcribe", CLIP, "--batch-size", "0"], "batch-size"),
        (["train", "digts"], "digits"),
        (["train", "digits", "train.stepps=3"], "Did you mean 'steps'"),
        (["score"], "--manifest"),
        (["featurize", "nowhere:at-all", "-o", "out"], "nowhere"),
    ],
)
def test_usage_mistakes_are_one_line(apart, arguments, message, tmp_path):
    shutil.copy(CLIP, tmp_path / "x.wav")
    run = apart(*arguments, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert message in run.stderr
    assert "Traceback" not in run.stderr
