"""Full disks, closed ones, inputs that go, damaged shards, two runs on one folder, too little memory: one clear line, and nothing lost."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from melcli import listening
from melcli.data.folders import walk
from melcli.errors import UsageError
from melcli.exporting import place as export_place
from melcli.files import alone
from melcli.models import speaker
from melcli.models.speaker import Speaker
from melcli.scoring import results
from tests.chaos import RECIPE, SCENARIOS, Scenario, contents
from tests.forked import Ended, Server
from tests.models.conftest import make_speaker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="fork, mounts and limits of memory")
BY_NAME = {one.name: one for one in SCENARIOS if one.name != "skipping"}
ROOM = {"featurize": 100, "train": 700, "transcribe": 8, "score": 12, "synthesize": 60, "export": 200}
"""Kilobytes that are left on a full disk: enough to begin."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("forked")) as server:
        yield server


@pytest.fixture(scope="module")
def inputs(server: Server) -> Path:
    """What the commands read, see chaos.py; not to be changed."""
    folder = server.place / "inputs"
    folder.mkdir()
    made = server.run(folder, call="tests.test_faults:prepare", folder=folder)
    assert made.code == 0, made.err
    return folder


def prepare(folder: str) -> int:
    from tests.chaos import prepare

    return prepare(Path(folder))


def one_line(ran: Ended, code: int, *words: str) -> None:
    """The command ended with this code and one line that holds these words."""
    lines = [line for line in ran.err.splitlines() if line.strip()]
    assert ran.code == code and len(lines) == 1 and all(word in lines[0] for word in words), f"{ran.code}: {ran.err}"


@pytest.mark.parametrize("scenario", BY_NAME.values(), ids=list(BY_NAME))
def test_a_full_disk_is_one_line_and_a_larger_one_goes_on(server: Server, inputs: Path, scenario: Scenario) -> None:
    if not server.mounts:
        pytest.skip("needs the right to mount a small disk")
    disk, arguments = server.place / "small", scenario.arguments(inputs)
    seen = server.inside(disk)
    _clear(seen)
    filler = seen / "filler"
    filler.write_bytes(bytes(4 * 2**20 - 1024 * ROOM[scenario.name] - 4096))
    one_line(server.run(*arguments, folder=disk), 1, "error: out", "cannot be written: No space left on device")
    scenario.check(seen / "out")
    filler.unlink()
    again = server.run(*arguments, folder=disk)
    assert again.code == 0, again.err
    found = contents(scenario, seen / "out")
    whole = server.place / f"whole-{scenario.name}"
    whole.mkdir()
    assert server.run(*arguments, folder=whole).code == 0
    assert found == contents(scenario, whole / "out")


def _clear(disk: Path) -> None:
    for path in sorted(disk.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("scenario", BY_NAME.values(), ids=list(BY_NAME))
def test_a_place_that_cannot_be_written_to_is_one_line(server: Server, inputs: Path, scenario: Scenario) -> None:
    """A mount, since tests may run as root, which no permission keeps out."""
    if not server.mounts:
        pytest.skip("needs the right to mount a closed disk")
    one_line(server.run(*scenario.arguments(inputs), folder=server.place / "closed"), 1, "error: ", "out", "Read-only file system")


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "transcribe"])
def test_two_runs_on_one_folder(server: Server, inputs: Path, tmp_path: Path, name: str) -> None:
    """transcribe writes files of their own, and several of it may share a folder."""
    out = tmp_path / "out"
    holds = {"score": lambda: results.claim(out / results.file_name(str(inputs / "ears"), "tones")), "export": lambda: export_place._alone(out)}
    with holds.get(name, lambda: alone(out, "run"))():
        one_line(server.run(*BY_NAME[name].arguments(inputs), folder=tmp_path), 2, "error: ", "out", "another")


@pytest.mark.parametrize("name", ["featurize", "transcribe", "score"])
def test_an_input_that_goes_is_named_and_the_others_are_done(server: Server, inputs: Path, tmp_path: Path, name: str) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    for source in ("0.wav", "1.wav", "2.wav", "ears"):
        (recordings / source).symlink_to(inputs / source)
    rows = [{"audio": f"{number}.wav", "text": "low"} for number in range(3)]
    (recordings / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [one if one != inputs else recordings / "tones.jsonl" for one in BY_NAME[name].arguments(recordings)]
    arguments = [recordings / "tones.jsonl" if one == recordings else one for one in arguments]
    ran = server.run(*arguments, folder=tmp_path, vanish=(recordings / "0.wav", recordings / "2.wav"))
    assert ran.code == 1 and ("2.wav" in ran.err or "  2: no such file" in ran.err) and "Traceback" not in ran.err, f"{ran.code}: {ran.err}"
    if name == "transcribe":
        assert {path.name for path in (tmp_path / "out").glob("*.txt")} == {"0.txt", "1.txt"}
    else:
        rows = (tmp_path / "out").glob("*.jsonl")
        assert sum(len(path.read_text().splitlines()) for path in rows if path.name != "failed.jsonl") == 2


def test_training_on_a_damaged_shard_says_which_file(server: Server, inputs: Path, tmp_path: Path) -> None:
    assert server.run("featurize", inputs / "tones.jsonl", "-o", "shards", "-q", folder=tmp_path).code == 0
    recipe = RECIPE.format(root=tmp_path).replace("tones.jsonl}", "shards}").replace('"tones.jsonl?limit=4"', f'"{inputs}/tones.jsonl?limit=4"')
    (tmp_path / "tones.yaml").write_text(recipe)
    (path,) = (tmp_path / "shards").glob("*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :])
    ran = server.run("train", "tones.yaml", "-o", "out", "-q", folder=tmp_path)
    one_line(ran, 2, f"error: {path}", "damaged (checksum)", "run featurize again")
    path.unlink()
    assert server.run("featurize", inputs / "tones.jsonl", "-o", "shards", "-q", folder=tmp_path).code == 0
    assert path.read_bytes() == whole


def hears(folder: str) -> None:
    """Print what a model hears in 160 noises, as many at once as memory allows: more than kernels and threads take, which differs."""
    import torch

    from melcli.models import checkpoint
    from melcli.models.speech_lm_recogniser import SpeechLMRecogniser

    model, processor = checkpoint.load(f"{folder}/ears")
    generator = torch.Generator().manual_seed(0)
    waves = [0.1 * torch.randn(16000 * 12, generator=generator) for _ in range(160)]
    found = {i: one.text for batch in SpeechLMRecogniser(model, processor).recognise(waves) for i, one in batch.items()}
    print([found[i] for i in range(len(waves))])


def test_a_folder_is_held_by_the_process_and_not_by_its_workers(tmp_path: Path) -> None:
    """What a killed training forked to load its data lives a little longer, and holds nothing."""
    with alone(tmp_path / "out", "run"):
        forking = multiprocessing.get_context("fork")
        ready = forking.Event()
        worker = forking.Process(target=lambda: (ready.set(), time.sleep(60)))
        worker.start()
        ready.wait(60)
    try:
        with alone(tmp_path / "out", "run"):
            pass
        with alone(tmp_path / "out", "run"), pytest.raises(UsageError, match="another run is writing there"), alone(tmp_path / "out", "run"):
            pass
    finally:
        worker.kill()
        worker.join()


def test_memory_that_does_not_hold_a_batch_is_met_by_halves(server: Server, inputs: Path) -> None:
    """Really too little memory: the limit goes down until the batch is halved, and the result stays."""
    expected = server.run(inputs, call="tests.test_faults:hears")
    assert expected.code == 0 and expected.err == "", expected.err
    for megabytes in range(352, 32, -16):
        ran = server.run(inputs, call="tests.test_faults:hears", memory=megabytes)
        if "at once; going on with fewer" in ran.err and ran.code == 0:
            assert ran.out == expected.out and ran.err.count("the memory does not hold") == 1
            return
        assert ran.code != 0 or ran.out == expected.out
    pytest.fail(f"no limit halved a batch; the last run said {ran.err[-500:]}")


def test_texts_are_said_in_fewer_at_a_time_where_memory_is_short(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    voice = Speaker(*make_speaker())
    texts = ["one two", "three", "the cat sat", "seven", "four"]
    expected = voice.speak(texts)
    speak, tried = speaker.speak, []

    def short(model, prompts, temperature):
        tried.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return speak(model, prompts, temperature)

    monkeypatch.setattr(speaker, "speak", short)
    for _ in range(2):
        for one, other in zip(voice.speak(texts), expected, strict=True):
            assert one.reason == other.reason and torch.allclose(one.mel_TM, other.mel_TM, atol=1e-3)
    assert tried[0] == 5 and tried.count(5) == 1, "what did not fit once is not tried again"
    assert capsys.readouterr().err.count("the memory does not hold 5 texts at once; going on with fewer") == 1
    monkeypatch.setattr(speaker, "speak", lambda *_: short(None, [None] * 9, 0))
    with pytest.raises(UsageError, match="too small for this model"):
        voice.speak(["one"])


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    """One that nobody writes to."""
    os.mkfifo(tmp_path / "pipe.wav")
    yield tmp_path / "pipe.wav"
    os.close(os.open(tmp_path / "pipe.wav", os.O_RDWR))  # whoever still waits goes on


def test_a_read_that_never_ends_is_interrupted(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(listening, "LEAVE_SECONDS", 0.1)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(listening.ahead(iter(map(open, [pipe]))))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_pipe_in_a_folder_is_not_waited_for(pipe: Path) -> None:
    (pipe.parent / "a.wav").write_bytes(b"")
    assert walk(pipe.parent) == ["a.wav"]
