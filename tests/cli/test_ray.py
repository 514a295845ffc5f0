"""`--ray`: the same files and the same exit codes on a real Ray cluster of one node, whose workers are killed too. Skipped without the extra."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from melcli import ray_pool, registry
from melcli.audio import io
from melcli.data import shard_maker
from melcli.data.utterance import Utterance
from melcli.inputs import AudioInput
from tests.cli.conftest import Melcli

# A cluster that only these tests can join. Ray reads this when it is imported.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'melcli[ray]'")

CLIPS = sorted((Path(registry.__file__).parent / "assets" / "clips").glob("*.wav"))
COUNT = 10
CORES = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of one node, which is ended by its own process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("ray")
    options = ["--head", "--block", f"--port={port}", f"--num-cpus={CORES}", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen([program, "start", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = iter(head.stdout.readline, "")
        assert any("Ray runtime started" in line for line in lines)
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten stretches of speech, a manifest of them with texts, and one with a file that is no audio as well."""
    folder = tmp_path_factory.mktemp("recordings")
    wave_S = torch.cat([io.load(clip, 16000) for clip in CLIPS])
    rows = []
    for index in range(COUNT):
        io.save(folder / f"{index}.wav", wave_S[4000 * index : 4000 * index + 12000 + 3000 * index], 16000)
        rows.append(json.dumps({"audio": f"{index}.wav", "id": f"u{index}", "text": f"word {index}", "duration": 1}))
    (folder / "good.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "broken.wav").write_text("this is not audio\n" * 50)
    broken = json.dumps({"audio": "broken.wav", "id": "broken", "text": "x", "duration": 1})
    (folder / "all.jsonl").write_text("\n".join([*rows[:4], broken, *rows[4:]]) + "\n")
    return folder


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of the only result file, without the times."""
    (file,) = folder.glob("*.jsonl")
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in file.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_are_the_same_to_the_byte(melcli: Melcli, cluster: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_maker, "SHORTEST_SHARD_SECONDS", 3.0)
    monkeypatch.chdir(tmp_path)
    command = ["featurize", recordings / "all.jsonl", "--augment", "--copies", 2]
    here = melcli(*command, "-o", "here", "--jobs", 1)
    there = melcli(*command, "-o", "there", "--ray", cluster)
    assert len(list(tmp_path.glob("here/shard-*.safetensors"))) > 4
    assert (there.code, there.err) == (here.code, here.err) == (1, here.err) and "broken.wav" in there.err
    assert there.out == here.out.replace("here", "there") and contents(tmp_path / "there") == contents(tmp_path / "here")
    (tmp_path / "there" / "shard-00001.safetensors").unlink()
    (tmp_path / "there" / "features.json").unlink()
    written = (tmp_path / "there" / "shard-00004.safetensors").stat().st_mtime_ns
    again = melcli(*command, "-o", "there", "--ray", cluster)
    assert "there already" in again.out and contents(tmp_path / "there") == contents(tmp_path / "here")
    assert (tmp_path / "there" / "shard-00004.safetensors").stat().st_mtime_ns == written


def test_transcripts_are_the_same(melcli: Melcli, cluster: str, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "CORES", 1)  # two actors
    command = ["transcribe", recordings / "all.jsonl", tmp_path / "absent.wav", "-f", "json"]
    here, there = melcli(*command), melcli(*command, "--ray", cluster)
    assert there.code == here.code == 1 and len(json.loads(there.out)) == COUNT and there.out == here.out
    lines = [line for line in there.err.splitlines() if not line.startswith("  ray ")]
    assert "  ray  2 actors, 1 core each" in there.err.splitlines() and lines[-3:] == here.err.splitlines()[-3:] and len(lines) < 12


def test_score_goes_on_with_either(melcli: Melcli, cluster: str, recordings: Path, tmp_path: Path) -> None:
    command = ["score", "--set", recordings / "good.jsonl", "-f", "json"]
    whole = melcli(*command, "-o", tmp_path / "whole")
    for name, first, second in (("a", [], ["--ray", cluster]), ("b", ["--ray", cluster], [])):
        folder = tmp_path / name
        assert melcli(*command, "-o", folder, "--limit", 4, *first).code == 0
        begun = next(folder.glob("*.jsonl")).read_text().splitlines()
        ran = melcli(*command, "-o", folder, *second)
        assert ran.code == whole.code == 0, ran.err
        assert next(folder.glob("*.jsonl")).read_text().splitlines()[:4] == begun  # times included: not done again
        assert rows_of(folder) == rows_of(tmp_path / "whole")
        assert next(folder.glob("*.settings.json")).read_text() == next((tmp_path / "whole").glob("*.settings.json")).read_text()


def test_what_the_model_says_of_a_flag_is_one_line(melcli: Melcli, cluster: str, recordings: Path) -> None:
    for flags in (["--ctc-weight", 0.5, "--beam", 1], ["--model", recordings], ["--device", "cuda"]):
        here, there = melcli("transcribe", recordings / "0.wav", *flags), melcli("transcribe", recordings / "0.wav", *flags, "--ray", cluster)
        assert there.code == here.code == 2 and there.out == "" and there.err.startswith("error: ") and there.err.count("\n") == 1
        assert there.err == here.err or "no GPU" in there.err


def actors() -> list[int]:
    """Processes of the actors that transcribe."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                title = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if title.startswith(b"ray::MapWorker("):
                found.append(int(entry.name))
    return found


def inputs(folder: Path) -> list[AudioInput]:
    return [AudioInput(f"u{index}", Utterance(f"u{index}", (str(folder / f"{index}.wav"),))) for index in range(COUNT)]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_a_worker_that_is_killed_loses_nothing(cluster: str, recordings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ray_pool.joined(cluster):
        found = []
        for transcript in ray_pool.RayTranscriber.load("tiny-en", batch_size=1).transcribe(inputs(recordings)):
            if not found:
                (actor,) = actors()
                os.kill(actor, signal.SIGKILL)
            found.append((transcript.name, transcript.error))
    assert sorted(found) == sorted((item.name, None) for item in inputs(recordings))
    assert capfd.readouterr() == ("", "  ray  1 actor, 2 cores each\n")


@dataclass(frozen=True)
class Poison:
    """An input that ends the process of any worker that hears it."""

    name: str
    owner: int = field(default_factory=os.getpid)

    @property
    def utterance(self) -> Utterance:
        return Utterance(self.name, ("poison",)) if os.getpid() == self.owner else os._exit(1)


def test_what_kills_every_worker_is_a_failure_and_the_rest_is_done(cluster: str, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "RETRIES", 1)
    monkeypatch.setattr(ray_pool, "PARTS", COUNT)  # one utterance each
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    given = inputs(recordings)
    given[3] = Poison(given[3].name)
    with ray_pool.joined(cluster):
        found = {one.name: one.error for one in ray_pool.RayTranscriber.load("tiny-en").transcribe(given)}
    assert len(found) == COUNT and [name for name, error in found.items() if error] == ["u3"] and "worker died" in str(found["u3"])


def test_a_shard_that_kills_every_worker_is_one_line(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "RETRIES", 0)
    with ray_pool.joined(cluster), ray_pool.Tasks() as tasks:
        error = tasks.submit(os._exit, 1).exception(60)
        assert tasks.submit(max, 1, 2).result(60) == 2
    assert isinstance(error, ray_pool.ClusterError) and error.exit_code == 1 and "\n" not in str(error)


def test_ctrl_c_and_ray_of_its_own(recordings: Path, tmp_path: Path) -> None:
    """A run that starts Ray itself is interrupted, says so and nothing else, leaves no process, and is gone on with without Ray."""
    shutil.copytree(recordings, tmp_path / "many")
    rows = [
        {"audio": f"{index % COUNT}.wav", "start": 0.001 * (index // COUNT), "id": f"v{index}", "text": "x", "duration": 1} for index in range(200)
    ]
    (tmp_path / "many" / "many.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "melcli", "score", "--manifest", "many/many.jsonl", "-o", "out", "-q", "--batch-size", "1", "-f", "json"]
    run = subprocess.Popen(
        [*command, "--ray", "local"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while run.poll() is None and not any(file.stat().st_size for file in tmp_path.glob("out/*.jsonl")):
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out, err) == (130, "", "interrupted\n")
    begun = next(tmp_path.glob("out/*.jsonl")).read_text().splitlines()
    assert 0 < len(begun) < len(rows)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and subprocess.run(["pgrep", "-g", str(run.pid)], capture_output=True, check=False).returncode == 0:
        time.sleep(0.2)
    assert subprocess.run(["pgrep", "-g", str(run.pid)], capture_output=True, check=False).returncode == 1
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    after = next(tmp_path.glob("out/*.jsonl")).read_text().splitlines()
    assert len(after) == len(rows) and set(begun) <= set(after)
