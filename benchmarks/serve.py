"""`melcli serve` under many clients beside one: throughput, latency, errors and lost requests.

    python benchmarks/serve.py --root ../shared/data [--clients 50] [--seconds 60] [--beam N] [--json FILE]

The server is a process of its own, the clients are threads of this one. Each sends the next recording when the last is answered. One client runs for
half of the time before and for half of it after the many, so that a machine that is busy at times is so for both. A request is lost when it has no
answer; an answer differs when its text is not what the server hears in the same recording alone (in a batch sums are rounded in another order).
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import soundfile
from figures import write

from melcli.data.load import load_utterance
from melcli.data.manifest import read_source

RATE = 16000
FRAME = "frame-of-a-form"


@dataclass
class Clip:
    """A recording as a request: its form, and its seconds."""

    body: bytes
    seconds: float


@dataclass
class Tally:
    """What some clients saw. latencies: of answers that came, in seconds. cpu: seconds of processor time that the server took meanwhile."""

    sent: int = 0
    latencies: list[float] = field(default_factory=list)
    audio: float = 0.0
    errors: list[str] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    took: float = 0.0
    cpu: float = float("nan")

    @property
    def lost(self) -> int:
        return self.sent - len(self.latencies) - len(self.errors)


def clips(source: str, root: Path, count: int) -> list[Clip]:
    """Recordings as forms."""
    found = []
    for utterance in itertools.islice((u for u in read_source(source, root=root) if (u.duration or 0) <= 18), count):
        wave_S = load_utterance(utterance, RATE)
        out = io.BytesIO()
        soundfile.write(out, wave_S.numpy(), RATE, format="WAV", subtype="PCM_16")
        head = f'--{FRAME}\r\nContent-Disposition: form-data; name="model"\r\n\r\nserved\r\n--{FRAME}\r\n'
        head += 'Content-Disposition: form-data; name="file"; filename="clip.wav"\r\n\r\n'
        found.append(Clip(head.encode() + out.getvalue() + f"\r\n--{FRAME}--\r\n".encode(), len(wave_S) / RATE))
    return found


def processor_seconds(pid: int) -> float:
    """Of a process, as Linux counts them; NaN elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def drive(url: str, pid: int, recordings: list[Clip], clients: int, seconds: float) -> Tally:
    """Clients in a closed loop for so long, one request each at least; what they began is waited for, and counts, as does the time that it took."""
    tally, lock, turn = Tally(), threading.Lock(), itertools.count()
    spent = processor_seconds(pid)
    began = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=300)
        for sent in itertools.count():
            if sent and time.perf_counter() - began >= seconds:
                return
            with lock:
                number = next(turn) % len(recordings)
                tally.sent += 1
            clip, since = recordings[number], time.perf_counter()
            try:
                connection.request("POST", "/v1/audio/transcriptions", clip.body, {"Content-Type": f"multipart/form-data; boundary={FRAME}"})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with lock:
                    tally.errors.append(f"{type(error).__name__}: {error}")
                continue
            with lock:
                if answer.status == 200:
                    tally.latencies.append(time.perf_counter() - since)
                    tally.audio += clip.seconds
                    tally.texts.append((number, json.loads(body)["text"]))
                else:
                    tally.errors.append(f"{answer.status}: {body[:200]!r}")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.took = time.perf_counter() - began
    tally.cpu = processor_seconds(pid) - spent
    return tally


def alone(url: str, pid: int, recordings: list[Clip], used: set[int]) -> dict[int, str]:
    """The text of each recording when nothing else is heard."""
    return {number: drive(url, pid, [recordings[number]], 1, 0.0).texts[0][1] for number in sorted(used)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data"))
    parser.add_argument("--source", default="librispeech:dev-clean?speakers=1272,1673,174,2412")
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--check", type=int, default=40, help="recordings that are heard once more alone, to compare their texts")
    parser.add_argument("--beam", type=int, help="of the server, 1 is greedy; the model's own unless given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    recordings = clips(options.source, options.root, options.utterances)
    command = [sys.executable, "-m", "melcli", "serve", "--port", "0", "--transcribe", f"served={options.model}", "--synthesize", "none", "-q"]
    command += ["--queue", str(2 * options.clients), *(["--beam", str(options.beam)] if options.beam else [])]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    try:
        drive(url, server.pid, recordings, min(options.clients, 8), 2.0)  # what happens only the first time
        first = drive(url, server.pid, recordings, 1, options.seconds / 2)
        many = drive(url, server.pid, recordings, options.clients, options.seconds)
        second = drive(url, server.pid, recordings, 1, options.seconds / 2)
        reference = alone(url, server.pid, recordings, set(sorted({number for number, _ in many.texts})[: options.check]))
    finally:
        server.terminate()
        code = server.wait(60)
    one_rate = (first.audio + second.audio) / (first.took + second.took)
    many_rate = many.audio / many.took
    thrift = many.audio / many.cpu / ((first.audio + second.audio) / (first.cpu + second.cpu))
    wrong = [(number, text) for number, text in many.texts if number in reference and reference[number] != text]
    checked = sum(number in reference for number, _ in many.texts)
    length = sum(clip.seconds for clip in recordings) / len(recordings)
    print(f"{len(recordings)} recordings, {length:.1f} s each on average; the server ended with exit code {code}\n")
    print(f"{'clients':>8}{'sent':>8}{'answers':>9}{'errors':>8}{'lost':>6}{'audio s/s':>11}{'s/cpu s':>9}{'p50 s':>8}{'p95 s':>8}{'p99 s':>8}")
    figures: dict[str, object] = {}
    for name, clients, tally in (("one", 1, first), ("many", options.clients, many), ("one_again", 1, second)):
        cuts = statistics.quantiles(tally.latencies, n=100, method="inclusive") if len(tally.latencies) > 1 else [float("nan")] * 99
        p50, p95, p99 = cuts[49], cuts[94], cuts[98]
        rate = tally.audio / tally.took
        counts = f"{clients:>8}{tally.sent:>8}{len(tally.latencies):>9}{len(tally.errors):>8}{tally.lost:>6}"
        print(f"{counts}{rate:>11.1f}{tally.audio / tally.cpu:>9.1f}{p50:>8.2f}{p95:>8.2f}{p99:>8.2f}")
        figures[name] = {
            "clients": clients,
            "sent": tally.sent,
            "answers": len(tally.latencies),
            "errors": len(tally.errors),
            "lost": tally.lost,
            "audio_seconds_per_second": round(rate, 2),
            "audio_seconds_per_processor_second": round(tally.audio / tally.cpu, 2),
            "latency": {"p50": round(p50, 3), "p95": round(p95, 3), "p99": round(p99, 3)},
        }
    for error in (*first.errors, *many.errors, *second.errors)[:5]:
        print(f"error: {error}")
    print(f"\naudio a second of processor time, {options.clients} clients / one: {thrift:.2f} (what a busy machine can still measure)")
    print(f"throughput of {options.clients} clients / one: {many_rate / one_rate:.2f}; {len(wrong)} of {checked} texts differ from those heard alone")
    write(
        options.json,
        {
            **figures,
            "ratio": round(many_rate / one_rate, 2),
            "ratio_of_processor_time": round(thrift, 2),
            "texts_checked": checked,
            "texts_that_differ": len(wrong),
        },
    )


if __name__ == "__main__":
    main()
