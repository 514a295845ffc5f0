"""Every flag of `melcli serve` reaches the server that it starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import tests.serving.maker  # noqa: F401  skips where a package is missing
from melcli import cli, console, serve

FLAGS = {
    "--transcribe=a=b": lambda heard, spoken, o: heard == {"a": "b"},
    "--transcribe=none": lambda heard, spoken, o: heard == {} and spoken == {"tiny-voice": "tiny-voice"},
    "--synthesize=runs/voice": lambda heard, spoken, o: spoken == {"runs/voice": "runs/voice"} and heard == {"tiny-en": "tiny-en"},
    "--host=0.0.0.0": lambda heard, spoken, o: o.host == "0.0.0.0",
    "--port=9": lambda heard, spoken, o: o.port == 9,
    "--api-key=sesame": lambda heard, spoken, o: o.api_key == "sesame",
    "--api-key=@key.txt": lambda heard, spoken, o: o.api_key == "from a file",
    "--voice=ann=ann.wav": lambda heard, spoken, o: o.voices == {"ann": Path("ann.wav")},
    "--max-upload=1.5": lambda heard, spoken, o: o.limits.upload == 1_500_000,
    "--max-seconds=60": lambda heard, spoken, o: o.limits.audio == 60,
    "--max-text=9": lambda heard, spoken, o: o.limits.text == 9,
    "--queue=3": lambda heard, spoken, o: o.limits.queue == 3,
    "--timeout=7": lambda heard, spoken, o: o.limits.seconds == 7,
    "--beam=2": lambda heard, spoken, o: o.listening["beam"] == 2,
    "--batch-size=5": lambda heard, spoken, o: o.listening["batch_size"] == 5,
    "--seed=4": lambda heard, spoken, o: o.speaking["seed"] == 4,
    "--device=cpu": lambda heard, spoken, o: o.listening["device"] == o.speaking["device"] == "cpu",
    "--dtype=float32": lambda heard, spoken, o: o.listening["dtype"] == o.speaking["dtype"] == "float32",
    "--offline": lambda heard, spoken, o: o.listening["offline"] and o.speaking["offline"] and os.environ["HF_HUB_OFFLINE"] == "1",
    "--quiet": lambda heard, spoken, o: console.level() == console.QUIET,
    "--verbose": lambda heard, spoken, o: console.level() == console.VERBOSE,
}


@pytest.mark.parametrize("flag", FLAGS)
def test_flag(flag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    class Recorder:
        def __init__(self, heard: Any, spoken: Any, options: Any, ready: Any) -> None:
            seen[:] = heard, spoken, options
            self.ready = ready

        def run(self) -> None:
            self.ready("http://there:1")

    monkeypatch.setattr(serve, "Server", Recorder)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.chdir(tmp_path)
    Path("key.txt").write_text("from a file\n")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["serve", flag])
    said = capsys.readouterr()
    assert stopped.value.code == 0 and said.out == "http://there:1\n" and FLAGS[flag](*seen)
    assert ("--api-key asks for a key" in said.err) == (flag == "--host=0.0.0.0")
    console.set_level(console.NORMAL)
