"""`melcli models`, `recipes`, `doctor` and what every command shares."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from melcli import console, registry, transcripts
from tests.cli.conftest import FakeTranscriber, Melcli


def test_no_arguments_and_help_and_version(melcli: Melcli) -> None:
    ran = melcli()
    assert ran.code == 0 and ran.out == melcli("--help").out and "transcribe" in ran.out
    assert "melcli transcribe talk.mp3" in ran.out and "...\n" not in ran.out.partition("\n")[2]  # a first step, and no summary cut short
    version = melcli("--version").out
    assert version.startswith("melcli 0.") and version.count("\n") == 1 and f"torch {importlib.metadata.version('torch')}" in version


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["transcibe"], "No such command 'transcibe'. Did you mean 'transcribe'? See melcli --help."),
        (["tts", "Hello."], "No such command 'tts'. Did you mean 'synthesize'?"),
        (["models", "lst"], "No such command 'lst'. Did you mean 'ls'?"),
        (["qqq"], "No such command 'qqq'. See melcli --help."),
        (["."], "No such command '.'. What is said in a recording: melcli transcribe ."),
        (["models"], "melcli models needs one of: ls, show. See melcli models --help."),
        (["transcribe"], "Missing argument 'PATH'. As in: melcli transcribe talk.mp3. See melcli transcribe --help."),
        (["transcribe", "x", "--modle", "y"], "No such option: --modle. Did you mean '--model'? See melcli transcribe --help."),
        (["--beam", "2", "transcribe", "x"], "No such option: --beam. Options of a command stand behind its name: melcli transcribe --beam."),
        (["train", "digit"], "no recipe is called 'digit'. Did you mean 'digits'? `melcli recipes ls` lists all"),
        (
            ["export", "tiny-e", "-o", "x"],
            "MODEL tiny-e: no such folder or registered model; valid names: tiny-en, tiny-voice. Did you mean 'tiny-en'?",
        ),
        (["models", "ls", "--kind", "mell"], "there is no kind 'mell'. Did you mean 'mel'?"),
        (["models", "show", "tiny-em"], "no model is called 'tiny-em'. Did you mean 'tiny-en'?"),
        (["recipes", "show", "nope"], "no recipe is called 'nope'."),
        (["recipes", "copy", "nope"], "no recipe is called 'nope'."),
    ],
)
def test_mistakes_are_one_line(melcli: Melcli, arguments: list[str], expected: str) -> None:
    ran = melcli(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1


@pytest.mark.parametrize("kind", registry.KINDS)
def test_ls_lists_every_name(melcli: Melcli, kind: str) -> None:
    lines = melcli("models", "ls", "--kind", kind).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == registry.names(kind)
    assert len({line.rstrip() for line in lines}) == len(lines) and all("…" not in line for line in lines)


def test_show_a_name_of_any_kind(melcli: Melcli) -> None:
    assert "melcli.models.speech_input:MelConv" in melcli("models", "show", "mel-conv", "--kind", "speech-input").out


def test_show_a_model_folder_reads_no_weights(melcli: Melcli, tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [3, 1000], "data_offsets": [0, 6000]}}).encode()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "speech_lm", "speech_attention": "bidirectional"}))
    assert "no weights here" in melcli("models", "show", tmp_path).err
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(6000))
    ran = melcli("models", "show", tmp_path)
    assert ran.code == 0 and "1 with 3,000 values, BF16" in ran.out and "bidirectional" in ran.out
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04pickle, not tensors")
    ran = melcli("models", "show", tmp_path)
    assert ran.code == 2 and "is not a safetensors file" in ran.err
    (tmp_path / "config.json").unlink()
    assert "is no model folder: it has no config.json" in melcli("models", "show", tmp_path).err


@pytest.fixture
def one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# Just a test\nname: mine\n")
    (folder / "_base.yaml").write_text("# Only to be extended\nname: base\n")
    monkeypatch.setattr(registry, "recipes_folder", lambda: folder)
    registry._table.cache_clear()
    monkeypatch.chdir(tmp_path)
    yield folder
    registry._table.cache_clear()


def test_recipes(melcli: Melcli, one_recipe: Path) -> None:
    assert melcli("recipes", "ls").out.split() == ["recipe", "what", "it", "is", "licence", "mine", "Just", "a", "test"]
    assert melcli("recipes", "show", "mine").out == "# Just a test\nname: mine\n"
    assert melcli("recipes", "copy", "mine").out == "mine.yaml\n"
    assert Path("mine.yaml").read_text() == "# Just a test\nname: mine\n"
    ran = melcli("recipes", "copy", "mine")
    assert ran.code == 2 and ran.err == "error: mine.yaml exists already; give another name.\n"
    Path("sub").mkdir()
    assert melcli("recipes", "copy", "mine", "sub").out == "sub/mine.yaml\n"
    assert melcli("recipes", "copy", "mine", "other.yaml").code == 0 and Path("other.yaml").is_file()


def test_doctor(melcli: Melcli) -> None:
    ran = melcli("doctor", "--offline")
    assert ran.code == 0 and ran.err == "all that melcli needs works here\n", ran.out
    rows = {line.split("  ")[0].strip(): line for line in ran.out.splitlines()}
    for name in ("melcli", "torch", "torchaudio build", "transformers", "device cpu", "memory", "disk here", "hub cache", "model tiny-en"):
        assert name in rows
    assert "wav, flac, ogg, opus, mp3 written and read" in rows["decode (soundfile)"]
    assert "m4a, mp4, webm, mkv written and read" in rows["decode (PyAV)"]
    assert "--offline" in rows["hub"] and "work over several machines" in rows["extra ray"]
    assert "heard 'nine zero four seven six two'" in rows["hears (tiny-en)"] and "tiny-en heard" in rows["speaks (tiny-voice)"]


def test_doctor_says_what_is_broken(melcli: Melcli, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    from melcli import doctor, doctor_trials

    def fails() -> tuple[bool, str]:
        raise RuntimeError("no kernel image\nfor this device")

    monkeypatch.setattr(doctor, "version", lambda package: None if package == "av" else "1.0")
    monkeypatch.setattr(doctor_trials, "_hears", fails)
    monkeypatch.setattr(doctor_trials, "_speaks", lambda: (False, "not tried"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    ran = melcli("doctor", "--json")
    told = json.loads(ran.out)
    rows = {check["name"]: check for check in told["checks"]}
    assert ran.code == 1 and told["ok"] is False
    assert rows["av"] == {"name": "av", "status": "broken", "detail": "not installed: pip install av"}
    assert rows["hub"]["status"] == "warn" and "cannot be reached" in rows["hub"]["detail"]
    assert rows["hears (tiny-en)"] == {"name": "hears (tiny-en)", "status": "broken", "detail": "RuntimeError: no kernel image"}


def test_doctor_listens_to_what_it_decodes(tmp_path: Path) -> None:
    import torch

    from melcli import doctor_trials
    from melcli.audio import io

    time_S = torch.arange(doctor_trials.RATE) / doctor_trials.RATE
    for name, hertz, samples in (("right", 440, 16000), ("high", 880, 16000), ("short", 440, 8000)):
        io.save(tmp_path / f"{name}.wav", torch.sin(2 * torch.pi * hertz * time_S[:samples]), doctor_trials.RATE)
    (tmp_path / "none.wav").write_bytes(b"RIFF")
    assert doctor_trials._complaint(tmp_path / "right.wav") is None
    assert "1.00 s of 880 Hz instead of 1.00 s of 440 Hz" in str(doctor_trials._complaint(tmp_path / "high.wav"))
    assert "0.50 s of 440 Hz" in str(doctor_trials._complaint(tmp_path / "short.wav"))
    assert "cannot be read" in str(doctor_trials._complaint(tmp_path / "none.wav"))


def test_doctor_knows_every_extra(repository: Path) -> None:
    from melcli import doctor

    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"dev"}
    for name, (_, packages) in doctor.EXTRAS.items():
        if name != "remote":  # fsspec's extras bring them
            assert {re.split(r"[\[>=]", needed)[0] for needed in extras[name]} == set(packages), name


def test_formats_are_those_that_have_writers(melcli: Melcli) -> None:
    assert f"<{'|'.join(transcripts.FORMATS)}>" in melcli("transcribe", "--help").out


def test_a_pipe_that_closes_is_no_accident(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m melcli models ls --kind mel | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_an_interrupt_while_running_exits_130(tmp_path: Path) -> None:
    code = """import time
from melcli import cli, registry
registry.entries = lambda kind: (print("ready", flush=True), time.sleep(30))
cli.main(["models", "ls"])"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stdout.readline() == "ready\n"
        os.kill(running.pid, signal.SIGINT)
        _, errors = running.communicate(timeout=20)
    assert (running.returncode, errors) == (130, "interrupted\n")


def test_levels(capsys: pytest.CaptureFixture[str]) -> None:
    for level, expected in ((console.QUIET, ["warning: w", "error: e"]), (console.NORMAL, ["n", "warning: w", "error: e"])):
        console.set_level(level)
        console.note("n")
        console.detail("d")
        console.warn("w")
        console.error("e")
        assert capsys.readouterr().err.splitlines() == expected
    console.set_level(console.VERBOSE)
    console.detail("d")
    assert capsys.readouterr().err == "d\n"
    console.set_level(console.NORMAL)
    console.histogram("title", ["0-1", "1-2", "2-3", "3-4"], [0, 4, 1, 0])
    assert capsys.readouterr().err.splitlines() == ["title", f"  1-2  4  {'#' * 40}", f"  2-3  1  {'#' * 10}"]


def test_messages_are_not_read_as_markup(capsys: pytest.CaptureFixture[str], transcriber: FakeTranscriber) -> None:
    console.table(("a",), [("[red]x[/red]",)], stdout=True)
    console.failures([("[bold].wav", "[bold].wav: is\n broken")], 2)
    captured = capsys.readouterr()
    assert "[red]x[/red]" in captured.out and captured.err.splitlines() == ["1 of 2 failed:", "  [bold].wav: is broken"]


def test_show_of_a_run_and_of_what_is_no_model(melcli: Melcli, tmp_path: Path) -> None:
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "speech_lm"}')
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "1 with 2 values" in melcli("models", "show", tmp_path / "run").out
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    assert melcli("models", "show", tmp_path / "run").err.endswith("is not a safetensors file, and no other kind of checkpoint is read.\n")
    (model / "config.json").write_text("[1]")
    ran = melcli("models", "show", tmp_path / "run")
    assert ran.code == 2 and ran.err.endswith("config.json: holds no JSON object.\n")
