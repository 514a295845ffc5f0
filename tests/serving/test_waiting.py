"""Clients that keep the server waiting do so for a while, and models that are not there yet are waited for."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

import tests.serving.maker  # noqa: F401  skips where a package is missing
from melcli.serving import connection
from melcli.serving.app import make_app
from melcli.serving.desks import Desks
from melcli.serving.endpoint import Service
from melcli.serving.limits import Limits
from melcli.serving.metrics import Metrics
from tests.serving.maker import Running, running
from tests.serving.test_many import value

SAY = "/v1/audio/speech"


def connected(served: Running, data: bytes = b"") -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.settimeout(60)
    host, _, port = urlsplit(served.url).netloc.rpartition(":")
    found.connect((host, int(port)))
    found.sendall(data)
    return found


def asked(text: str) -> bytes:
    body = json.dumps({"model": "tiny-voice", "input": text, "response_format": "wav"}).encode()
    return f"POST {SAY} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_heads_that_do_not_come(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a request, with half of one, and with half of a second one."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 1.0)
    silent, half, second = connected(served), connected(served, b"GET /health HTT"), connected(served, b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
    first = b""
    while b'{"status"' not in first:  # head and body may come apart
        part = second.recv(4096)
        assert part
        first += part
    assert first.startswith(b"HTTP/1.1 200")
    second.sendall(b"GET /hea")
    began = time.monotonic()
    for one in (silent, half, second):
        assert one.recv(4096) == b""
        one.close()
    assert time.monotonic() - began < 20
    request = asked("Hello.")
    slow = connected(served, request[:-10])
    time.sleep(1.5)  # a body has the time of the whole request
    slow.sendall(request[-10:])
    assert slow.recv(4096).startswith(b"HTTP/1.1 200")
    slow.close()


def test_answers_that_are_not_read() -> None:
    """A place in the queue is given back at the deadline, and the connection soon after."""
    with running(heard={}, limits=Limits(seconds=3.0)) as served:
        served.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # what the system keeps for a connection is small, too
        stalled = connected(served, asked("The train leaves at nine. " * 150))
        until = time.monotonic() + 60
        while value(served, "melcli_requests_under_way") < 1 and time.monotonic() < until:
            time.sleep(0.05)
        began = time.monotonic()
        while value(served, "melcli_requests_under_way") > 0 and time.monotonic() < until:
            time.sleep(0.05)
        assert time.monotonic() - began < 15
        connections = served.server._server.server_state.connections
        while any(one.client == stalled.getsockname() for one in connections) and time.monotonic() < until:
            time.sleep(0.05)
        assert time.monotonic() < until
        stalled.close()


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny-en", SAY])
def test_models_that_are_still_loaded(path: str) -> None:
    service = Service(Desks(), Limits(), Metrics(), lambda: "loading its models")
    answer = TestClient(make_app(service)).request("POST" if path == SAY else "GET", path)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["message"] == "The server is loading its models."
