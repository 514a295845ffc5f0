"""Many at once, and what goes wrong among them: nobody's answer is lost, mixed up or held up by another's fault."""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
import soundfile

from melcli.serving.limits import Limits
from melcli.serving.metrics import Metrics
from tests.serving.maker import DIGITS, GARDEN, Running, form, running

TEXTS = {path: path.with_suffix(".txt").read_text().strip() for path in (DIGITS, GARDEN)}


def value(served: Running, name: str) -> float:
    """A number of /metrics; 0 where it is not there yet."""
    for line in served.ask("GET", "/metrics").body.decode().splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_many_clients_share_batches(served: Running) -> None:
    names = ['melcli_batch_pieces_sum{model="transcribe"}', 'melcli_batch_pieces_count{model="transcribe"}']
    names += ['melcli_requests_total{endpoint="transcriptions",status="200"}', 'melcli_requests_total{endpoint="speech",status="200"}']
    before = [value(served, name) for name in names]

    def one(number: int) -> bool:
        client = served.client()
        if number % 4 == 3:
            return len(client.audio.speech.create(model="tiny-voice", voice="alloy", input="Hello.", response_format="wav").content) > 10_000
        path = (DIGITS, GARDEN)[number % 2]
        return client.audio.transcriptions.create(model="tiny-en", file=path).text == TEXTS[path]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(one, range(48)))
    pieces, batches, heard, spoken = (value(served, name) - old for name, old in zip(names, before, strict=True))
    assert (pieces, heard, spoken) == (36, 36, 12)
    assert batches <= 18  # two and more a batch, and mostly far more


def test_a_long_silence_holds_nobody_up(served: Running, tmp_path: Path) -> None:
    """There is no piece of it that the model could be given, until its end has been read."""
    soundfile.write(tmp_path / "hour.flac", np.zeros(1800 * 16000, dtype=np.int16), 16000)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(lambda: served.client().audio.transcriptions.create(model="tiny-en", file=tmp_path / "hour.flac").text)
        until = time.monotonic() + 60
        while value(served, "melcli_requests_under_way") < 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert served.client().audio.transcriptions.create(model="tiny-en", file=DIGITS).text == TEXTS[DIGITS]
        assert not long.done()
        assert long.result() == ""


def test_a_full_queue_and_a_slow_model() -> None:
    """The model waits for the test, as a large one would make others wait."""
    with running(spoken={}, limits=Limits(queue=2, seconds=8.0)) as served:
        ears = served.server.desks.ears["tiny-en"]
        gate, hear = threading.Event(), ears.transcriber.hear

        def slow(window):
            gate.wait(60)
            yield from hear(window)

        ears.transcriber.hear = slow
        body, kind = form([("model", "tiny-en"), ("file", ("a.wav", DIGITS.read_bytes()))])

        def ask():
            return served.ask("POST", "/v1/audio/transcriptions", body, {"Content-Type": kind})

        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(ask) for _ in range(2)]
            until = time.monotonic() + 60
            while value(served, "melcli_requests_under_way") < 2 and time.monotonic() < until:
                time.sleep(0.05)
            refused = ask()
            assert refused.status == 503 and refused.error["code"] == "overloaded" and int(refused.headers["retry-after"]) >= 1
            assert served.ask("GET", "/health").status == 200  # it is busy, not ill
            late = [one.result() for one in waiting]
        assert [(one.status, one.error["code"]) for one in late] == [(504, "timeout")] * 2
        gate.set()
        client = served.client().with_options(max_retries=5)  # a machine that is busy may need longer, too
        assert client.audio.transcriptions.create(model="tiny-en", file=DIGITS).text == TEXTS[DIGITS]


def test_a_client_that_hangs_up_and_a_batch_that_fails() -> None:
    with running(spoken={}) as served:
        ears = served.server.desks.ears["tiny-en"]
        gate, hear = threading.Event(), ears.transcriber.hear

        def broken(window):
            gate.wait(60)
            raise RuntimeError("the model fell over")
            yield

        ears.transcriber.hear = broken
        body, kind = form([("model", "tiny-en"), ("file", ("a.wav", DIGITS.read_bytes()))])
        gone = http.client.HTTPConnection(urlsplit(served.url).netloc)
        gone.request("POST", "/v1/audio/transcriptions", body, {"Content-Type": kind})
        until = time.monotonic() + 60
        while value(served, "melcli_requests_under_way") < 1 and time.monotonic() < until:
            time.sleep(0.05)
        gone.close()
        while value(served, "melcli_requests_under_way") > 0 and time.monotonic() < until:
            time.sleep(0.05)
        assert value(served, 'melcli_requests_total{endpoint="transcriptions",status="499"}') == 1
        assert ears.idle
        gate.set()
        with pytest.raises(openai.InternalServerError) as found:
            served.client().audio.transcriptions.create(model="tiny-en", file=DIGITS)
        assert found.value.status_code == 500 and "fell over" not in str(found.value)
        ears.transcriber.hear = hear
        assert served.client().audio.transcriptions.create(model="tiny-en", file=DIGITS).text == TEXTS[DIGITS]


def test_a_text_that_fails_is_over() -> None:
    """Its passages are made as they are wanted: what fails there must not be asked again and again."""
    with running(heard={}) as served:
        mouth = served.server.desks.mouths["tiny-voice"]
        items = mouth.synthesizer.items
        mouth.synthesizer.items = lambda request: (1 / 0 for _ in [request])
        assert served.say(model="tiny-voice", input="Hello.").status == 500
        until = time.monotonic() + 30
        while not mouth.idle and time.monotonic() < until:  # the answer may be there before the worker is
            time.sleep(0.01)
        assert mouth.idle
        mouth.synthesizer.items = items
        assert served.say(model="tiny-voice", input="Hello.").status == 200


def test_counts_as_prometheus_reads_them() -> None:
    metrics = Metrics()
    metrics.gauges |= {"melcli_ready": lambda: 1.0, "melcli_requests_under_way": lambda: 0.0}
    for seconds in (0.01, 0.2, 1000.0):
        metrics.observe("melcli_request_seconds", seconds, endpoint="speech")
    metrics.add("melcli_requests_total", endpoint="speech", status="200")
    lines = metrics.text().splitlines()
    assert 'melcli_requests_total{endpoint="speech",status="200"} 1' in lines
    buckets = [line.rpartition(" ")[2] for line in lines if line.startswith("melcli_request_seconds_bucket")]
    assert buckets == ["1", "1", "2", "2", "2", "2", "2", "2", "2", "2", "2", "3"]
    assert 'melcli_request_seconds_sum{endpoint="speech"} 1000.21' in lines
    assert sum(line.startswith("# TYPE") for line in lines) == sum(line.startswith("# HELP") for line in lines) == 7
