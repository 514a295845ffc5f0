"""A server with the models in the box, on a free port, in this process. Whoever imports this skips where a package is missing."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

for package in ("starlette", "uvicorn", "python_multipart", "openai"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'melcli[dev]'")

import openai  # noqa: E402

from melcli import registry  # noqa: E402
from melcli.serve import Options, Server  # noqa: E402

CLIPS = Path(registry.__file__).parent / "assets" / "clips"
DIGITS, GARDEN = CLIPS / "digits-slt.wav", CLIPS / "garden-rms.wav"
BOTH = {"tiny-en": "tiny-en"}, {"tiny-voice": "tiny-voice"}


@dataclass
class Answer:
    """What came back. headers: in small letters."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


@dataclass
class Running:
    """A server that runs, and clients to it."""

    server: Server
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One plain request, without any client's help."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=120)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=body is not None and not isinstance(body, bytes))
            response = connection.getresponse()
            return Answer(response.status, response.read(), {name.lower(): value for name, value in response.getheaders()})
        finally:
            connection.close()

    def post(self, path: str, fields: list[tuple[str, str | tuple[str, bytes]]]) -> Answer:
        """A form; a field of (name, bytes) is a file."""
        body, kind = form(fields)
        return self.ask("POST", path, body, {"Content-Type": kind})

    def say(self, **fields: Any) -> Answer:
        return self.ask("POST", "/v1/audio/speech", json.dumps(fields).encode(), {"Content-Type": "application/json"})


def form(fields: list[tuple[str, str | tuple[str, bytes]]]) -> tuple[bytes, str]:
    """A multipart body and its type."""
    parts = []
    for name, value in fields:
        if isinstance(value, str):
            parts.append(f'--frame\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
        else:
            head = f'--frame\r\nContent-Disposition: form-data; name="{name}"; filename="{value[0]}"\r\nContent-Type: audio/wav\r\n\r\n'
            parts.append(head.encode() + value[1] + b"\r\n")
    return b"".join(parts) + b"--frame--\r\n", "multipart/form-data; boundary=frame"


@contextmanager
def running(heard: dict[str, str] = BOTH[0], spoken: dict[str, str] = BOTH[1], **options: Any) -> Iterator[Running]:
    """A server while the block lasts."""
    up = threading.Event()
    server = Server(heard, spoken, Options(port=0, listening={"device": "cpu"}, speaking={"device": "cpu"}, **options), ready=lambda _: up.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert up.wait(120), server.worker.failure
        yield Running(server)
    finally:
        server.stop()
        thread.join(120)
    assert not thread.is_alive()
