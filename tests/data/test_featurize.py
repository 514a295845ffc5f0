"""featurize: right values, the same bytes however it is run, and going on after a kill."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import PRESETS
from melcli.data import shard_maker
from melcli.data.load import load_utterance
from melcli.data.manifest import read_source
from melcli.data.shard_maker import ShardDone, cut
from melcli.data.shards import FeatureShards
from melcli.data.utterance import Utterance
from melcli.errors import ShardError, UsageError, WriteError
from melcli.featurize import FAILED, HISTOGRAM_EDGES, Estimate, featurize

RATE = 16000
COUNT = 40


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 files of 0.3 to 1.5 s of noise, in four formats and three rates, with a manifest that does not say how long they are."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    kinds = [("wav", RATE), ("flac", 8000), ("ogg", 44100), ("wav", 8000)]
    rows = []
    for index in range(COUNT):
        suffix, rate = kinds[index % 4]
        seconds = 0.3 + 1.2 * index / COUNT
        soundfile.write(folder / f"{index}.{suffix}", rng.normal(0, 0.1, round(seconds * rate)).astype("float32"), rate)
        rows.append(json.dumps({"id": f"u{index}", "audio": f"{index}.{suffix}", "text": f"word {index}"}))
    (folder / "all.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """About ten shards of the recordings; an unknown duration counts as a second."""
    monkeypatch.setattr(shard_maker, "SHORTEST_SHARD_SECONDS", 4.0)
    monkeypatch.setattr(shard_maker, "TYPICAL_SECONDS", 1.0)
    monkeypatch.setattr(shard_maker, "BATCH_SECONDS", 1.5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_features_are_those_of_each_utterance_alone(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    source = str(recordings / "all.jsonl")
    done = featurize(source, tmp_path, jobs=2)
    utterances, spec = read_source(source), PRESETS["phi4mm"]
    shards = FeatureShards.open(tmp_path, spec)
    assert done.shards == 10 and done.utterances == len(shards) == COUNT and done.exit_code == 0 and not (tmp_path / FAILED).exists()
    mels = []
    for index, utterance in enumerate(utterances):
        wave_S = load_utterance(utterance, RATE)
        mels.append(log_mel(spec, wave_S))
        assert (shards.utterances[index].id, shards.utterances[index].text) == (utterance.id, utterance.text)
        assert shards.utterances[index].duration == pytest.approx(len(wave_S) / RATE, abs=1e-4)
        assert shards.frames[index] == len(mels[-1])
        torch.testing.assert_close(shards.mel(index).float(), mels[-1], atol=0.01, rtol=1e-3)
    mel_TM = torch.cat(mels).double()
    torch.testing.assert_close(shards.mean_M.double(), mel_TM.mean(0), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(shards.std_M.double(), mel_TM.std(0, correction=0), atol=1e-3, rtol=1e-4)
    assert done.frames == len(mel_TM) and sum(done.histogram) == COUNT
    assert done.hours * 3600 == pytest.approx(sum(u.duration or 0 for u in utterances), abs=0.02)
    assert done.histogram[:2] == (sum(u.duration < HISTOGRAM_EDGES[1] for u in utterances), sum(u.duration >= HISTOGRAM_EDGES[1] for u in utterances))
    assert done.size == sum(len(content) for name, content in contents(tmp_path).items() if name.startswith("shard-"))


def test_every_way_of_running_gives_the_same_bytes(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    source = str(recordings / "all.jsonl")
    featurize(source, tmp_path / "one", jobs=1)
    featurize(source, tmp_path / "three", jobs=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    again = featurize(source, tmp_path / "one", jobs=2)
    assert again.skipped_shards == again.shards == 10 and again.utterances == COUNT
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


SCRIPT = """
import os, signal, sys
from pathlib import Path
from melcli.data import shard_maker
from melcli import featurize

if __name__ == "__main__":
    source, out, jobs, kill_after = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    shard_maker.SHORTEST_SHARD_SECONDS, shard_maker.TYPICAL_SECONDS = 4.0, 1.0
    featurize.PROCESS_JOBS = 2  # processes
    done = []

    def progress(shard):
        done.append(shard)
        if len(done) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    featurize.featurize(source, out, jobs=jobs, progress=progress)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_and_run_again_is_one_run(recordings: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    """jobs 1 runs in a thread, 2 in spawned processes; the parent is killed with SIGKILL after its third shard."""
    monkeypatch.setattr(shard_maker, "BATCH_SECONDS", 60.0)
    (tmp_path / "run.py").write_text(SCRIPT)
    source, out = str(recordings / "all.jsonl"), tmp_path / "out"
    command = [sys.executable, str(tmp_path / "run.py"), source, str(out), str(jobs)]
    path = {"PYTHONPATH": str(Path(shard_maker.__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": ""}
    killed = subprocess.run([*command, "3"], env=path, check=False, timeout=120, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    there = contents(out)
    assert 3 <= sum(name.startswith("shard-") and name.endswith(".safetensors") for name in there) < 10 and "features.json" not in there
    (out / ".shard-00009.safetensors.123.tmp").write_bytes(b"half")
    with pytest.raises(ShardError, match="interrupted"):
        FeatureShards.open(out)
    done = featurize(source, out, jobs=1)
    assert 3 <= done.skipped_shards < 10 == done.shards
    featurize(source, tmp_path / "whole", jobs=1)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_shard_broken_on_disk_is_made_again(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    source = str(recordings / "all.jsonl")
    featurize(source, tmp_path, jobs=1)
    before = contents(tmp_path)
    path = tmp_path / "shard-00004.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "shard-00006.jsonl").unlink()
    assert featurize(source, tmp_path, jobs=1).skipped_shards == 8
    assert contents(tmp_path) == before


def test_other_features_are_refused_or_replaced(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    source = str(recordings / "all.jsonl")
    featurize(source, tmp_path, jobs=1)
    before = contents(tmp_path)
    for changes, says in (
        ({"mel": "speecht5"}, r"features of another mel \(n_fft 512 is not 1024"),
        ({"dtype": "float32"}, 'another dtype \\("float16", not "float32"\\)'),
        ({"seed": 3}, r"another seed \(0, not 3\)"),
    ):
        with pytest.raises(ShardError, match=f"{says}.*--overwrite"):
            featurize(source, tmp_path, jobs=1, **changes)
    with pytest.raises(ShardError, match="features of other utterances"):
        featurize(f"{source}?limit=7", tmp_path, jobs=1)
    assert contents(tmp_path) == before
    (tmp_path / "notes.txt").write_text("mine")
    assert featurize(f"{source}?limit=7", tmp_path, jobs=1, overwrite=True).utterances == 7
    assert len(FeatureShards.open(tmp_path)) == 7 and len(list(tmp_path.glob("shard-*"))) == 4 and (tmp_path / "notes.txt").exists()


def test_bad_files_are_listed_and_tried_again(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    good = read_source(str(recordings / "all.jsonl"), durations=False)[:8]
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.wav").write_text("this is no audio at all")
    (bad / "empty.wav").write_bytes(b"")
    soundfile.write(bad / "short.wav", np.full(100, 0.1, dtype="float32"), RATE)
    soundfile.write(bad / "nan.wav", np.full(RATE, np.nan, dtype="float32"), RATE, subtype="FLOAT")
    broken = [Utterance(name, (str(bad / f"{name}.wav"),), "x") for name in ("text", "empty", "short", "nan", "missing")]
    mixed = [utterance for pair in zip(good, [*broken, None, None, None], strict=True) for utterance in pair if utterance is not None]
    done = featurize(mixed, tmp_path / "out", jobs=2)
    assert done.exit_code == 1 and done.utterances == 8
    assert [failure.id for failure in done.failures] == ["text", "empty", "short", "nan", "missing"]
    assert all(failure.id in failure.error and "\n" not in failure.error for failure in done.failures)
    assert "6 ms of audio, shorter than one window (25 ms)" in done.failures[2].error
    listed = [json.loads(line) for line in (tmp_path / "out" / FAILED).read_text().splitlines()]
    assert [row["id"] for row in listed] == [failure.id for failure in done.failures] and set(listed[0]) == {"id", "audio", "error"}
    shards = FeatureShards.open(tmp_path / "out")
    assert [u.id for u in shards.utterances] == [u.id for u in good] and shards.summary["failed"] == 5
    before = contents(tmp_path / "out")
    assert featurize(mixed, tmp_path / "out", jobs=1).failures == done.failures
    assert contents(tmp_path / "out") == before
    for utterance in broken:
        soundfile.write(utterance.audio[0], np.full(RATE, 0.1, dtype="float32"), RATE)
    mended = featurize(mixed, tmp_path / "out", jobs=1)
    assert mended.exit_code == 0 and mended.utterances == 13 and not (tmp_path / "out" / FAILED).exists()
    assert [u.id for u in FeatureShards.open(tmp_path / "out").utterances] == [u.id for u in mixed]


def test_nothing_but_bad_files(tmp_path: Path) -> None:
    done = featurize([Utterance("a", (str(tmp_path / "a.wav"),))], tmp_path / "out", jobs=1)
    assert done.exit_code == 1 and done.utterances == 0
    assert len(FeatureShards.open(tmp_path / "out")) == 0


def test_augmented_copies(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    augment = pytest.importorskip("melcli.audio.augment").Augment()
    few = read_source(str(recordings / "all.jsonl"))[:6]
    done = featurize(few, tmp_path / "a", jobs=2, augment=augment, copies=3, seed=1)
    featurize(few, tmp_path / "b", jobs=1, augment=augment, copies=3, seed=1)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    shards = FeatureShards.open(tmp_path / "a")
    assert done.utterances == 18 and [u.id for u in shards.utterances[::6]] == ["u0#0", "u0#1", "u0#2"]
    assert shards.utterances[7].extra == {"copy": 1} and shards.utterances[7].text == "word 1"
    first, second = shards.mel(0), shards.mel(6)
    assert first.shape != second.shape or not torch.equal(first, second)
    # what is drawn for an utterance does not depend on which others there are
    featurize(few[3:], tmp_path / "c", jobs=1, augment=augment, copies=3, seed=1)
    assert torch.equal(FeatureShards.open(tmp_path / "c").mel(0), shards.mel(3))
    featurize(few, tmp_path / "d", jobs=1, augment=augment, copies=3, seed=2)
    other = FeatureShards.open(tmp_path / "d").mel(0)
    assert other.shape != first.shape or not torch.equal(other, first)


def test_cut_is_bounded_and_complete() -> None:
    utterances = [Utterance(str(i), ("x",), duration=10.0 + i % 7 if i % 5 else None) for i in range(3000)]
    shards = cut(utterances, copies=2)
    assert [item for shard in shards for item in shard] == [(i, copy) for copy in range(2) for i in range(3000)]
    assert max(map(len, shards)) <= shard_maker.SHARD_UTTERANCES
    for shard in shards:
        assert sum(utterances[i].duration or shard_maker.TYPICAL_SECONDS for i, _ in shard) <= shard_maker.SHARD_SECONDS
    assert len(shards) < 50
    hour = [Utterance(str(i), ("x",), duration=5.0) for i in range(720)]
    assert 30 <= len(cut(hour)) <= 40  # enough for a few jobs
    assert [len(shard) for shard in cut([replace(hour[0], duration=9999.0)] * 3)] == [1, 1, 1]
    assert len(cut([Utterance(str(i), ("x",), duration=0.1) for i in range(1200)])) == 3  # by their number


def test_estimate_and_progress(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    announced: list[Estimate] = []
    shards: list[ShardDone] = []
    done = featurize(str(recordings / "all.jsonl"), tmp_path, jobs=1, announce=announced.append, progress=shards.append)
    (plan,) = announced
    assert plan.utterances == COUNT and plan.shards == len(shards) == done.shards
    assert plan.hours == pytest.approx(done.hours, rel=0.01)
    mels = sum(FeatureShards.open(tmp_path).frames) * 80 * 2
    assert plan.size == pytest.approx(mels, rel=0.05)
    assert sum(shard.utterances for shard in shards) == COUNT


@pytest.mark.parametrize(
    ("arguments", "says"),
    [({"dtype": "int8"}, "--dtype int8"), ({"copies": 2}, "--copies 2"), ({"copies": 0}, "--copies 0"), ({"jobs": 0}, "--jobs 0")],
)
def test_wrong_arguments(recordings: Path, tmp_path: Path, arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        featurize(str(recordings / "all.jsonl"), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_out_is_a_file(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="out is a file, expected a folder"):
        featurize(str(recordings / "all.jsonl"), tmp_path / "out")


def test_threads_of_torch_are_given_back(recordings: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        featurize(f"{recordings / 'all.jsonl'}?limit=2", tmp_path, jobs=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_plot(recordings: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from melcli.plot import plot_features

    featurize(f"{recordings / 'all.jsonl'}?limit=5", tmp_path, jobs=1)
    (path,) = plot_features(tmp_path)
    assert path.parent == tmp_path and path.read_bytes()[:4] == b"\x89PNG" and path.stat().st_size > 5000
    with pytest.raises(ShardError, match=r"x\.doc"):
        plot_features(tmp_path, tmp_path / "x.doc")


def test_two_runs_into_one_folder(recordings: Path, tmp_path: Path, small_shards: None) -> None:
    source = str(recordings / "all.jsonl")
    refused: list[str] = []

    def meanwhile(shard: ShardDone) -> None:
        with pytest.raises(UsageError) as caught:
            featurize(source, tmp_path, jobs=1)
        refused.append(str(caught.value))

    assert featurize(source, tmp_path, jobs=1, progress=meanwhile).utterances == COUNT
    assert len(refused) == 10 and all("another featurize is writing there" in line for line in refused)
    assert featurize(source, tmp_path, jobs=1).skipped_shards == 10  # free again


def test_nothing_of_others_is_replaced(recordings: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    rows = (recordings / "all.jsonl").read_text().replace('"audio": "', f'"audio": "{recordings}/')
    (tmp_path / "shard-00000.jsonl").write_text(rows)
    for options in ("", "?limit=3"):
        with pytest.raises(UsageError, match=r"shard-00000\.jsonl is what is read and would be overwritten"):
            featurize(f"{tmp_path / 'shard-00000.jsonl'}{options}", tmp_path, overwrite=True)
    assert (tmp_path / "shard-00000.jsonl").read_text() == rows
    weights = tmp_path / "weights" / "shard-00007.safetensors"
    weights.parent.mkdir()
    save_file({"weight": torch.ones(3)}, weights)
    for overwrite in (False, True):
        with pytest.raises(ShardError, match=r"shard-00007\.safetensors, which is no feature shard"):
            featurize(f"{recordings / 'all.jsonl'}?limit=2", weights.parent, overwrite=overwrite)
    assert weights.exists()


def test_a_device_that_is_not_there(recordings: Path, tmp_path: Path) -> None:
    absent = next(name for name, there in (("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available())) if not there)
    with pytest.raises(UsageError, match=f"--device {absent}: there is none here"):
        featurize(str(recordings / "all.jsonl"), tmp_path / "out", device=absent)


def test_a_full_disk_is_one_line(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"shard-00000\.safetensors: cannot be written: No space left") as caught:
        featurize(str(recordings / "all.jsonl"), tmp_path, jobs=1)
    assert caught.value.exit_code == 1 and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signal masks")
def test_interrupted_processes_say_nothing(recordings: Path, tmp_path: Path) -> None:
    """Ctrl-C goes to every process of the terminal; only the parent answers."""
    (tmp_path / "run.py").write_text(
        "import sys\nfrom melcli import cli, featurize\nfrom melcli.data import shard_maker\n"
        "if __name__ == '__main__':\n"
        "    shard_maker.SHORTEST_SHARD_SECONDS, shard_maker.TYPICAL_SECONDS, featurize.PROCESS_JOBS = 4.0, 1.0, 2\n"
        "    real = featurize.as_completed\n"
        "    featurize.as_completed = lambda futures: (print('started', flush=True), real(futures))[1]\n"
        "    cli.main(['featurize', *sys.argv[1:], '--jobs', '2'])\n"
    )
    env = {"PYTHONPATH": str(Path(shard_maker.__file__).parents[2]), "OMP_NUM_THREADS": "1", "PATH": ""}
    command = [sys.executable, str(tmp_path / "run.py"), str(recordings / "all.jsonl"), "-o", str(tmp_path / "out")]
    run = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stdout is not None and run.stdout.readline() == "started\n"
    time.sleep(0.7)  # the workers are importing torch
    os.killpg(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 130 and said.splitlines()[-1] == "interrupted" and "Traceback" not in said
