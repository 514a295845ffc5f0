"""Commands killed at random moments, and run again: nothing half-written is taken for whole, and the second run completes the first.

    python -m tests.chaos --kills 60 --seed 1

Half of the moments are drawn from the time that an undisturbed run takes, half from the changes that it makes to its folder: the signal then comes
right before a file is opened for writing, renamed or removed. A killed run may be killed again when it is run again. After every kill each file under
its final name must be whole; at the end the folder must hold what an undisturbed run leaves, no more and no less.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forked import Forked, melcli, warm

AGAIN = 0.3  # how often the run after a kill is killed as well
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CODES = {signal.SIGKILL: {-signal.SIGKILL}, signal.SIGTERM: {143, -signal.SIGTERM}, signal.SIGINT: {130}}

RECIPE = """
name: tones
seed: 5
data:
  root: {root}
  train: [{{source: tones.jsonl}}]
  eval: [{{source: "tones.jsonl?limit=4"}}]
  workers: 0
model:
  speech_input: {{kind: mel-conv, stride: 8, channels: 8, hidden: 32, norm: global}}
  backbone: {{model_type: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 96}}
  speech_attention: bidirectional
  ctc_weight: 0.5
  tokenizer: {{vocab_size: 32}}
train: {{steps: 6, tokens_per_batch: 256, row_tokens: 128, lr: 3.0e-3, eval_every: 2, save_every: 2, keep: 1, log_every: 1, average: 2, log_to: []}}
"""


@dataclass(frozen=True)
class Scenario:
    """A command to be killed. arguments: made of the folder with its inputs, run in a folder of its own in which it writes to `out`.

    check: looks at `out` after a kill and raises where something under its final name is not whole. same: what of a file must be as in an
    undisturbed run.
    """

    name: str
    arguments: Callable[[Path], list[object]]
    check: Callable[[Path], None]
    same: Callable[[Path], Any] = Path.read_bytes


def prepare(inputs: Path) -> int:
    """What the commands read: recordings, a recipe, a random model that hears, one that speaks, texts."""
    from tests.exporting.makers import save
    from tests.training.tones import make_tones
    from tests.voice_maker import save_voice

    make_tones(inputs, 24)
    (inputs / "tones.yaml").write_text(RECIPE.format(root=inputs))
    save(inputs / "ears")
    save_voice(inputs / "voice")
    texts = ["one two", "three", "four five six", "seven", "eight nine", "zero"]
    (inputs / "rows.jsonl").write_text("".join(json.dumps({"id": f"r{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return 0


def whole(path: Path) -> None:
    """Raises where a file of a kind that we know is not whole. Names that begin with a dot are nobody's results."""
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".jsonl":
        text = path.read_text(encoding="utf-8")
        assert not text or text.endswith("\n"), f"{path}: the last line is torn"
        for line in text.splitlines():
            json.loads(line)
    elif path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            for name in file.keys():
                file.get_tensor(name)
    elif path.suffix == ".wav":
        import soundfile

        wave, _ = soundfile.read(path)
        assert len(wave), f"{path}: no samples"
    else:
        path.read_text(encoding="utf-8")


def visible(folder: Path) -> list[Path]:
    """All files that are under a name of their own, none of them in a folder that is not."""
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)]


def check_files(out: Path) -> None:
    """Every file is whole."""
    for path in visible(out):
        whole(path)


def check_features(out: Path) -> None:
    """Every shard is whole; the set either says that it is unfinished or can be read to the last frame."""
    from melcli.data.shards import FeatureShards, read_head
    from melcli.errors import ShardError

    check_files(out)
    for path in out.glob("shard-*.safetensors"):
        read_head(path)
    if (out / "features.json").exists():
        shards = FeatureShards.open(out)
        assert sum(len(shards.mel(i)) for i in range(len(shards))) == shards.summary["frames"]
    elif out.exists():
        try:
            FeatureShards.open(out)
        except ShardError as error:
            assert "interrupted" in str(error) or "not a folder" in str(error), error
        else:
            raise AssertionError("an unfinished set was opened")


def check_run(out: Path) -> None:
    """Checkpoints that are marked as whole are; so are the tokenizer, the weights of evaluations and the model."""
    from melcli.training.trainer import whole_checkpoints

    for folder in whole_checkpoints(out / "checkpoints"):
        there = {path.name for path in folder.iterdir()}
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json"} <= there, (folder, there)
        for name in ("model.safetensors", "trainer_state.json"):
            whole(folder / name)
    for path in visible(out):
        if "checkpoints" not in path.parts:
            whole(path)
    index = out / "snapshots" / "index.json"
    for step in json.loads(index.read_text()) if index.exists() else ():
        assert (out / "snapshots" / f"step-{int(step):07d}.safetensors").exists(), f"the index names step {step}, which is gone"


def check_results(out: Path) -> None:
    """Lines of a result file are whole but for the last, which the next run cuts off."""
    for path in visible(out):
        if path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]:
                json.loads(line)
        else:
            whole(path)


def without(*keys: str) -> Callable[[Path], Any]:
    """The contents of a file, of JSON without these keys, which are times."""

    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(one) for key, one in value.items() if key not in keys}
        return [strip(one) for one in value] if isinstance(value, list) else value

    def read(path: Path) -> Any:
        if path.suffix == ".jsonl":
            return [strip(json.loads(line)) for line in path.read_text().splitlines()]
        if path.suffix == ".csv":  # the leaderboard's, whose third column is a speed
            return [[cell for number, cell in enumerate(line.split(",")) if number != 2] for line in path.read_text().splitlines()]
        return strip(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()

    return read


def trained(path: Path) -> Any:
    """What of a run's files is the same to the bit: not what tells of seconds, and not the checkpoints' own formats."""
    if "checkpoints" in path.parts and path.suffix != ".safetensors":
        return None
    return None if path.name == "README.md" else without("seconds")(path)


def voice(inputs: Path) -> list[object]:
    """Which voice speaks, and how."""
    return ["--model", inputs / "voice", "--vocoder", "griffin-lim", "-q"]


def spoken(path: Path) -> Any:
    """The rows of a manifest, and how long a recording is."""
    import soundfile

    return soundfile.info(path).frames if path.suffix == ".wav" else path.read_bytes()


SCENARIOS = (
    Scenario("featurize", lambda i: ["featurize", i / "tones.jsonl", "-o", "out", "--jobs", 2, "-q"], check_features),
    Scenario("train", lambda i: ["train", i / "tones.yaml", "-o", "out", "--resume", "auto", "-q"], check_run, trained),
    Scenario(
        "transcribe",
        lambda i: ["transcribe", i, "-o", "out", "-f", "all", "--skip-existing", "--no-vad", "--batch-size", 1, "--model", i / "ears", "-q"],
        check_files,
    ),
    Scenario(
        "score",
        lambda i: ["score", "--manifest", i / "tones.jsonl", "-o", "out", "--csv", "out/row.csv", "--batch-size", 1, "--model", i / "ears", "-q"],
        check_results,
        without("time"),
    ),
    Scenario(
        "synthesize",
        lambda i: ["synthesize", "--text-file", i / "rows.jsonl", "-o", "out", *voice(i)],
        check_files,
    ),
    Scenario(
        "skipping",  # synthesize again, what is there left out: the same rows and lengths, since batches of other texts may round otherwise
        lambda i: ["synthesize", "--text-file", i / "rows.jsonl", "-o", "out", "--skip-existing", *voice(i)],
        check_files,
        spoken,
    ),
    Scenario("export", lambda i: ["export", i / "ears", "-o", "out", "-q"], check_files),
)


def contents(scenario: Scenario, out: Path) -> Mapping[str, Any]:
    """What is compared of a folder: all its files by their names, hidden ones included."""
    return {path.relative_to(out).as_posix(): scenario.same(path) for path in sorted(out.rglob("*")) if path.is_file()}


class Chaos:
    """Kills of one scenario. inputs: what it reads; place: where its runs are."""

    def __init__(self, scenario: Scenario, inputs: Path, place: Path, rng: random.Random) -> None:
        self.scenario, self.place, self.rng = scenario, place, rng
        self.work = melcli(*scenario.arguments(inputs))
        self.done: Counter[str] = Counter()
        self.undisturbed = self._run("undisturbed").wait()
        assert self.undisturbed.code == 0, self.undisturbed.err
        self.expected = contents(scenario, place / "undisturbed" / "out")
        scenario.check(place / "undisturbed" / "out")

    def _run(self, name: str, **options: Any) -> Forked:
        folder = self.place / name
        folder.mkdir(parents=True, exist_ok=True)
        return Forked(self.work, folder, self.place / f"{name}.log", **options)

    def kill_some(self, count: int) -> None:
        """Kill as many runs, in as many folders as it takes."""
        number = 0
        while self.done["kills"] < count:
            number += 1
            assert number < 20 * count, "runs end before they are killed"
            self._one(f"run-{number}", count)

    def _one(self, name: str, count: int) -> None:
        killed = self._kill(name)
        while killed and self.done["kills"] < count and self.rng.random() < AGAIN:
            self._kill(name)
        again = self._run(name).wait()
        out = self.place / name / "out"
        assert again.code == 0, f"{name}: the run after the kill ended with {again.code}: {again.err}"
        found = contents(self.scenario, out)
        assert found.keys() == self.expected.keys(), f"{name}: {sorted(found.keys() ^ self.expected.keys())}"
        different = [path for path, value in self.expected.items() if found[path] != value]
        assert not different, f"{name}: not as in an undisturbed run: {different}"
        shutil.rmtree(self.place / name)

    def _kill(self, name: str) -> bool:
        number, by_change = self.rng.choice(SIGNALS), self.rng.random() < 0.5
        if by_change:
            ended = self._run(name, at_change=self.rng.randint(1, self.undisturbed.changes), number=number).wait()
        else:
            moment = self.rng.uniform(0.0, self.undisturbed.seconds)
            running, began = self._run(name), time.perf_counter()
            while running.running() and time.perf_counter() - began < moment:
                time.sleep(0.001)
            if running.running():
                running.kill(number)
            ended = running.wait()
        self.scenario.check(self.place / name / "out")
        if ended.code not in CODES[number]:
            assert ended.code == 0, f"{name}: {number.name} ended it with {ended.code}: {ended.err}"
            return False  # it was through already, or had nothing more to change
        said = ended.err.strip().splitlines()
        assert "Traceback" not in ended.err, f"{name}: {number.name}: {ended.err}"
        assert number == signal.SIGKILL or ended.code < 0 or said[-1] in ("interrupted", "terminated"), f"{name}: {ended.err}"
        self.done.update(["kills", number.name, "before a change" if by_change else "by the clock"])
        return True


COLUMNS = ("kills", "SIGKILL", "SIGTERM", "SIGINT", "by the clock", "before a change")


def run(kills: int, seed: int, only: str | None = None) -> tuple[Counter[str], list[str]]:
    """Kill every command (or one), `kills` of them in all. Returns counts, and what was lost or broken."""
    warm()
    chosen = [one for one in SCENARIOS if only in (None, one.name)]
    counts: Counter[str] = Counter()
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="melcli-chaos-") as place:
        inputs = Path(place) / "inputs"
        inputs.mkdir()
        made = Forked(lambda: prepare(inputs), inputs, Path(place) / "log").wait()
        assert made.code == 0, made.err
        for number, scenario in enumerate(chosen):
            chaos = Chaos(scenario, inputs, Path(place) / scenario.name, random.Random(f"{seed}/{scenario.name}"))
            try:
                chaos.kill_some((kills + len(chosen) - 1 - number) // len(chosen))
            except AssertionError as error:
                broken.append(f"{scenario.name}: {error}")
            counts.update(chaos.done)
            print(f"{scenario.name:<12}", *(f"{chaos.done[name]:>{max(7, len(name))}}" for name in COLUMNS), *broken[-1:], sep="  ", flush=True)
    return counts, broken


def main() -> None:
    """Kill, and print a table of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=[one.name for one in SCENARIOS])
    asked = parser.parse_args()
    print(f"seed {asked.seed}")
    print(f"{'command':<12}", *(f"{name:>7}" for name in COLUMNS), sep="  ")
    began = time.perf_counter()
    counts, broken = run(asked.kills, asked.seed, asked.only)
    print(f"{counts['kills']} kills in {time.perf_counter() - began:.0f} s; commands that lost or broke anything: {len(broken)}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
