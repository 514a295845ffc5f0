"""The command itself: how it starts, what stops it, and what it says when it cannot start."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melcli import cli, console
from melcli.serve import Options, Server
from melcli.transcribe import Transcriber
from tests.serving.maker import DIGITS, Running

CLIENTS = 6


class Process(Running):
    """A server in a process of its own."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "melcli", "serve", "--port", "0", "--device", "cpu", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    @property
    def url(self) -> str:
        return self.address


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered(number: int) -> None:
    served = Process("--synthesize", "none", "-v")
    expected = DIGITS.with_suffix(".txt").read_text().strip()
    with ThreadPoolExecutor(CLIENTS) as pool:
        texts = [pool.submit(lambda: served.client().audio.transcriptions.create(model="tiny-en", file=DIGITS).text) for _ in range(CLIENTS)]
        until = time.monotonic() + 60
        while f"\nmelcli_requests_under_way {CLIENTS}" not in (said := served.ask("GET", "/metrics").body.decode()) and time.monotonic() < until:
            if f'status="200"}} {CLIENTS}' in said:
                break
        os.kill(served.process.pid, number)
        assert [one.result() for one in texts] == [expected] * CLIENTS
    _, err = served.process.communicate(timeout=60)
    assert served.process.returncode == 0, err
    assert "Traceback" not in err and "ready" in err
    with pytest.raises(OSError):
        served.ask("GET", "/health")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_models_are_loaded(number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "melcli", "serve", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:  # who answers has seen to signals before
                asking = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                asking.request("GET", "/health")
                asking.getresponse().read()
                break
            except OSError:
                time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Traceback" not in err and len(out.splitlines()) <= 1


def test_a_signal_that_reading_a_file_makes_an_error_of(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({"tiny-en": "tiny-en"}, {}, Options(port=0))

    def load(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except BaseException:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr(Transcriber, "load", load)
    server.run()


def test_a_failure_of_the_thread_that_takes_requests_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({"tiny-en": "tiny-en"}, {}, Options(port=0))

    async def fail(sockets: list[socket.socket]) -> None:
        raise RuntimeError("no loop")

    monkeypatch.setattr(server._server, "serve", fail)
    with pytest.raises(RuntimeError, match="no loop"):
        server.run()


def test_a_second_interrupt_breaks_off(tmp_path: Path) -> None:
    """An answer that has begun ends before its end, and one that has not is an error."""
    soundfile.write(tmp_path / "silence.flac", np.zeros(2400 * 16000, dtype=np.int16), 16000)
    served = Process()
    speech = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=60)
    fields = {"model": "tiny-voice", "input": "The train leaves at nine. " * 150, "response_format": "wav"}
    speech.request("POST", "/v1/audio/speech", json.dumps(fields), {"Content-Type": "application/json"})
    begun = speech.getresponse()
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(
            served.post, "/v1/audio/transcriptions", [("model", "tiny-en"), ("file", ("a.flac", (tmp_path / "silence.flac").read_bytes()))]
        )
        until = time.monotonic() + 60
        while b"\nmelcli_requests_under_way 2" not in served.ask("GET", "/metrics").body and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(served.process.pid, signal.SIGINT)
        time.sleep(0.2)
        assert served.process.poll() is None
        os.kill(served.process.pid, signal.SIGINT)
        _, err = served.process.communicate(timeout=60)
        assert heard.result().status == 503 and heard.result().error["message"] == "The server was stopped."
    with pytest.raises(http.client.IncompleteRead):
        begun.read()
    assert served.process.returncode == 130 and "Traceback" not in err


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets for its process."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    yield
    console.set_level(console.NORMAL)


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["serve", *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--transcribe", "none", "--synthesize", "none"], "nothing to serve"),
        (["--transcribe", "a=tiny-en", "--transcribe", "a=tiny-en"], "a is there already"),
        (["--transcribe", "one=tiny-en", "--synthesize", "one=tiny-voice"], "give one of them another name"),
        (["--transcribe", "=tiny-en"], "give NAME=VALUE"),
        (["--voice", "ann"], "give NAME=VALUE"),
        (["--voice", "alloy=ann.wav"], "the model's own voice"),
        (["--voice", "ann=ann.wav", "--synthesize", "none"], "nothing speaks"),
        (["--api-key", ""], "is empty"),
        (["--api-key", "sésame"], "ASCII only"),
        (["--api-key", f"@{DIGITS}"], "ASCII only"),
        (["--timeout", "inf"], "'--timeout'"),
        (["--max-upload", "inf"], "'--max-upload'"),
        (["--max-seconds", "inf"], "'--max-seconds'"),
        (["--api-key", "@missing.key"], "missing.key: No such file"),
        (["--host", "nowhere.invalid"], "cannot be listened on"),
    ],
)
def test_what_cannot_be_served(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in failed(capsys, "--port", "0", *arguments)


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "Address already in use" in failed(capsys, "--port", str(taken.getsockname()[1]))


def test_a_model_that_cannot_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert "tiny-em" in failed(capsys, "--port", "0", "--transcribe", "tiny-em", "--offline", "-q")


def test_a_missing_package_is_named_with_its_remedy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else find(name, *rest))
    assert failed(capsys, "--port", "0") == "error: melcli serve needs uvicorn: pip install 'melcli[serve]'."
