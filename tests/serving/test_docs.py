"""The examples of docs/serve.md run as they are written, but for the port."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile

from tests.serving.maker import DIGITS, Running

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
HERE = "http://127.0.0.1:8000"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(DIGITS, tmp_path / "talk.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(served: Running, desk: Path) -> None:
    hear, say = (block.replace(HERE, served.url).replace("curl ", "curl -sS --fail-with-body ") for block in blocks("bash"))
    heard = subprocess.run(["sh", "-c", hear], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(heard.stdout)["text"] == DIGITS.with_suffix(".txt").read_text().strip()
    subprocess.run(["sh", "-c", say], check=True, timeout=120)
    assert soundfile.info(desk / "morning.wav").duration > 0.5


def test_python(served: Running, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = blocks("python")
    assert len(examples) == 2
    for example in examples:
        exec(compile(example.replace(HERE, served.url), "docs/serve.md", "exec"), {})
    words = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert words == DIGITS.with_suffix(".txt").read_text().split()
    assert soundfile.info(desk / "morning.mp3").duration > 1
