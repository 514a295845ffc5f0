"""What cannot be asked is refused with a status and one error object, and the server goes on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from melcli.audio import io as audio_io
from melcli.serving.limits import Limits
from tests.serving.maker import DIGITS, Running, form, running

HEAR, SAY = "/v1/audio/transcriptions", "/v1/audio/speech"
CLIP = ("clip.wav", DIGITS.read_bytes())
MODEL = ("model", "tiny-en")


def check(answer: Any, status: int, param: str | None = None, words: str = "") -> None:
    assert answer.status == status, answer
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert answer.error["param"] == param and words in answer.error["message"], answer.error
    assert "\n" not in answer.error["message"]


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ([MODEL], 400, "file", "must hold the recording"),
        ([MODEL, ("file", "/etc/passwd")], 400, "file", "must hold the recording"),
        ([("file", CLIP)], 400, "model", "missing"),
        ([("model", "whisper-1"), ("file", CLIP)], 404, "model", "tiny-en"),
        ([("model", "tiny-voice"), ("file", CLIP)], 400, "model", "speaks"),
        ([("model", CLIP), ("file", CLIP)], 400, "model", "must be text"),
        ([MODEL, ("file", ("a.wav", b""))], 400, "file", "is empty"),
        ([MODEL, ("file", ("a.wav", b"so it goes"))], 400, "file", "is text, not audio"),
        ([MODEL, ("file", ("a.wav", bytes(range(256)) * 9))], 400, "file", "cannot be decoded"),
        ([MODEL, ("file", ("a.wav", CLIP[1][:3000]))], 400, "file", "truncated"),
        ([MODEL, ("file", CLIP), ("response_format", "docx")], 400, "response_format", "verbose_json"),
        ([MODEL, ("file", CLIP), ("response_format", "diarized_json")], 400, "response_format", "valid are"),
        ([MODEL, ("file", CLIP), ("temperature", "2")], 400, "temperature", "from 0 to 1"),
        ([MODEL, ("file", CLIP), ("temperature", "warm")], 400, "temperature", "from 0 to 1"),
        ([MODEL, ("file", CLIP), ("language", "../en")], 400, "language", "ISO 639"),
        ([MODEL, ("file", CLIP), ("stream", "perhaps")], 400, "stream", "true or false"),
        ([MODEL, ("file", CLIP), ("stream", "true"), ("response_format", "srt")], 400, "stream", "cannot be streamed"),
        ([MODEL, ("file", CLIP), ("timestamp_granularities[]", "word")], 400, "timestamp_granularities[]", "verbose_json"),
        (
            [MODEL, ("file", CLIP), ("timestamp_granularities[]", "letter"), ("response_format", "verbose_json")],
            400,
            "timestamp_granularities[]",
            "valid are",
        ),
        ([MODEL, ("file", CLIP), ("prompt", "Say it in verse")], 400, "prompt", "fixed prompt"),
        ([MODEL, ("file", CLIP), ("include[]", "logprobs")], 400, "include[]", "log probabilities"),
        ([MODEL, ("file", CLIP), *[("keywords[]", "a")] * 101], 400, "keywords[]", "at most 100"),
        ([MODEL, ("file", CLIP), *[("colour", "a")] * 201], 400, None, "Too many fields"),
        ([MODEL, ("file", CLIP), ("keywords[]", " ")], 400, "keywords[]", "1 to 100"),
        ([MODEL, ("file", CLIP), ("note", "x" * 70000)], 400, None, "cannot be read"),
    ],
)
def test_recordings(served: Running, fields: list[Any], status: int, param: str | None, words: str) -> None:
    check(served.post(HEAR, fields), status, param, words)


GOOD = {"model": "tiny-voice", "voice": "alloy", "input": "Hello."}


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"model": None}, 400, "model", "missing"),
        ({"model": "tts-1"}, 404, "model", "tiny-voice"),
        ({"model": ["tiny-voice"]}, 404, "model", "does not exist"),
        ({"model": "tiny-en"}, 400, "model", "does not speak"),
        ({"input": None}, 400, "input", "must be the text"),
        ({"input": 7}, 400, "input", "must be the text"),
        ({"input": "  "}, 400, "input", "empty"),
        ({"input": "a" * 4097}, 400, "input", "4,097 characters"),
        ({"input": "語語"}, 400, "input", "does not know"),
        ({"voice": "bob"}, 400, "voice", "default"),
        ({"voice": {"id": "voice_1"}}, 400, "voice", "default"),
        ({"voice": {"id": []}}, 400, "voice", "default"),
        ({"voice": "/etc/passwd"}, 400, "voice", "no voice"),
        ({"response_format": "aac"}, 400, "response_format", "mp3"),
        ({"response_format": ["wav"]}, 400, "response_format", "mp3"),
        ({"speed": 2}, 400, "speed", "pace"),
        ({"speed": "1"}, 400, "speed", "pace"),
        ({"speed": "\ud800"}, 400, "speed", "pace"),  # half a character, which an answer in UTF-8 cannot repeat
        ({"stream_format": "tape"}, 400, "stream_format", "sse"),
    ],
)
def test_texts(served: Running, change: dict[str, Any], status: int, param: str, words: str) -> None:
    check(served.say(**(GOOD | change)), status, param, words)


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status"),
    [
        ("POST", HEAR, b"{}", "application/json", 415),
        ("POST", HEAR, b"", None, 415),
        ("POST", HEAR, b"--frame\r\nnonsense", "multipart/form-data; boundary=frame", 400),
        ("POST", HEAR, b"--frame\r\n", "multipart/form-data", 400),
        ("POST", SAY, b"a=b", "application/x-www-form-urlencoded", 415),
        ("POST", SAY, b"{", "application/json", 400),
        ("POST", SAY, b"[" * 100_000, "application/json", 400),
        ("POST", SAY, b"\xff\xfe", "application/json", 400),
        ("POST", SAY, b"[]", "application/json", 400),
        ("GET", HEAR, None, None, 405),
        ("DELETE", "/v1/models", None, None, 405),
        ("POST", "/v1/audio/translations", b"", None, 404),
        ("GET", "/../../etc/passwd", None, None, 404),
    ],
)
def test_bodies_and_addresses(served: Running, method: str, path: str, body: bytes | None, kind: str | None, status: int) -> None:
    answer = served.ask(method, path, body, {"Content-Type": kind} if kind else {})
    check(answer, status, "body" if body == b"[]" else None)
    assert ("allow" in answer.headers) == (status == 405)


def test_other_sites_are_refused(served: Running) -> None:
    body, kind = form([MODEL, ("file", CLIP)])
    check(served.ask("POST", HEAR, body, {"Content-Type": kind, "Sec-Fetch-Site": "cross-site"}), 403)
    assert served.ask("POST", HEAR, body, {"Content-Type": kind, "Sec-Fetch-Site": "same-origin"}).status == 200


def test_unknown_fields_are_ignored(served: Running) -> None:
    """As OpenAI's other servers do: clients send fields that are newer than the server."""
    assert served.post(HEAR, [MODEL, ("file", CLIP), ("chunking_strategy", "auto"), ("colour", "blue")]).status == 200
    assert served.say(**GOOD, instructions="Speak softly.", colour="blue").status == 200


def test_empty_fields_are_not_there(served: Running) -> None:
    empty = [(name, "") for name in ("response_format", "language", "temperature", "prompt", "stream")]
    assert served.post(HEAR, [MODEL, ("file", CLIP), *empty]).status == 200
    check(served.post(HEAR, [("model", ""), ("file", CLIP)]), 400, "model", "missing")


def test_nothing_is_logged_of_a_broken_body(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    check(served.ask("POST", HEAR, b"--secret", {"Content-Type": "multipart/form-data; boundary=frame"}), 400)
    assert caplog.records == []


def test_the_errors_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as found:
        client.audio.transcriptions.create(model="whisper-1", file=DIGITS)
    assert found.value.code == "model_not_found" and found.value.param == "model"
    with pytest.raises(openai.BadRequestError):
        client.audio.speech.create(model="tiny-voice", voice="alloy", input="Hello.", speed=2)


def test_the_server_goes_on_and_has_nothing_under_way(served: Running, client: openai.OpenAI) -> None:
    assert client.audio.transcriptions.create(model="tiny-en", file=DIGITS).text
    assert served.ask("GET", "/health").body == b'{"status":"ok"}'
    assert b"\nmelcli_requests_under_way 0\n" in served.ask("GET", "/metrics").body


@pytest.fixture(scope="module")
def strict() -> Iterator[Running]:
    """A server that takes little, and asks for a key."""
    with running(spoken={}, limits=Limits(upload=1_200_000, audio=4.0), api_key="open sesame") as found:
        yield found


def test_sizes(strict: Running) -> None:
    key = {"Authorization": "Bearer open sesame"}
    body, kind = form([MODEL, ("file", ("a.wav", bytes(3_000_000)))])
    check(strict.ask("POST", HEAR, body, {"Content-Type": kind, **key}), 413, None, "2,200,000 bytes")
    parts = (body[at : at + 65536] for at in range(0, len(body), 65536))
    answer = strict.ask("POST", HEAR, parts, {"Content-Type": kind, "Transfer-Encoding": "chunked", **key})
    check(answer, 413, None, "2,200,000 bytes")
    check(strict.ask("POST", HEAR, form([MODEL, ("file", ("a.wav", bytes(2_000_000)))])[0], {"Content-Type": kind, **key}), 413, "file")


def test_recordings_that_are_too_long(strict: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload of more than a megabyte lies in a file without a name: nothing is left of it, nor ever to be seen."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    audio_io.save(tmp_path / "long.flac", 0.3 * torch.randn(30 * 16000), 16000)
    audio_io.save(tmp_path / "fits.wav", 0.3 * torch.randn(3 * 16000), 16000)
    audio_io.save(tmp_path / "big.wav", 0.3 * torch.randn(3 * 192000), 192000)
    client = strict.client("open sesame")
    with pytest.raises(openai.APIStatusError) as found:
        client.audio.transcriptions.create(model="tiny-en", file=tmp_path / "long.flac")
    assert found.value.status_code == 413 and found.value.code == "audio_too_long"
    assert client.audio.transcriptions.create(model="tiny-en", file=tmp_path / "fits.wav").text == ""
    assert (tmp_path / "big.wav").stat().st_size > 1_100_000
    assert client.audio.transcriptions.create(model="tiny-en", file=tmp_path / "big.wav").text == ""
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer closed"}, {"Authorization": "open sesame"}, {"Authorization": "Bearer "}])
def test_keys(strict: Running, header: dict[str, str]) -> None:
    body, kind = form([MODEL, ("file", CLIP)])
    check(strict.ask("POST", HEAR, body, {"Content-Type": kind, **header}), 401)
    check(strict.ask("GET", "/v1/models", None, header), 401)
    assert strict.ask("GET", "/health").status == strict.ask("GET", "/metrics").status == strict.ask("GET", "/").status == 200
    with pytest.raises(openai.AuthenticationError):
        strict.client("closed").models.list()
