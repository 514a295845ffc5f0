"""`melcli --help` answers at once, and nothing that only lists or checks imports torch."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

LIGHT = (
    "cli",
    "config",
    "registry",
    "recipe",
    "errors",
    "console",
    "inputs",
    "transcripts",
    "describe",
    "audio.mel_spec",
    "data.manifest",
    "data.corpora",
)


def imported_heavy(code: str, *arguments: str) -> str:
    heavy = "{'torch', 'torchaudio', 'transformers', 'numpy', 'soundfile', 'av', 'datasets'}"
    code = f"import sys\ntry:\n    {code}\nexcept SystemExit as e:\n    assert not e.code, e.code\nprint(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["transcribe", "--help"], ["models", "ls"], ["models", "ls", "--kind", "corpus"], ["recipes", "ls"]],
    ids=" ".join,
)
def test_these_import_nothing_heavy(arguments: list[str]) -> None:
    assert imported_heavy(f"from melcli.cli import main; main({arguments!r})") == "[]"


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_torch(module: str) -> None:
    assert "torch" not in imported_heavy(f"import melcli.{module}")


def test_help_takes_under_half_a_second() -> None:
    times = []
    for _ in range(5):  # the fastest: other processes may be using the machine
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "melcli", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.5, times
