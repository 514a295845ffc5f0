"""Every flag reaches what it is for: the calls that commands make are recorded, and a flag that no case here covers fails the last test."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer

from melcli import cli, console
from tests.cli.conftest import FakeTranscriber, Melcli

RECIPE = """\
name: r
data: {train: [{source: a.jsonl}]}
model: {backbone: {model_type: llama}}
train: {steps: 3}
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The calls of featurize and train, which do nothing."""
    recorded: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(*arguments: Any, **options: Any) -> Any:
        recorded.append((arguments, options))
        fields = {"folder": "out", "utterances": 1, "hours": 0.1, "size": 1, "shards": 1, "skipped_shards": 0, "histogram": (), "failures": ()}
        fields |= {"chosen": "last", "rates": {}}
        return types.SimpleNamespace(**fields)

    for name in ("featurize", "train"):
        module = types.ModuleType(f"melcli.{name}")
        setattr(module, name, record)
        module.HISTOGRAM_EDGES, module.Estimate = (0.0, 1.0), object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    drawn = types.ModuleType("melcli.plot")
    drawn.plot_features = lambda folder: [f"{folder}/picture.png"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "melcli.plot", drawn)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return recorded


FEATURIZE = {
    "--mel=whisper-80": lambda a, o: a[2] == "whisper-80",
    "--jobs=3": lambda a, o: o["jobs"] == 3,
    "--dtype=float32": lambda a, o: o["dtype"] == "float32",
    "--device=cuda": lambda a, o: o["device"] == "cuda",
    "--augment": lambda a, o: o["augment"] is not None,
    "--copies=2": lambda a, o: o["copies"] == 2,
    "--seed=5": lambda a, o: o["seed"] == 5,
    "--overwrite": lambda a, o: o["overwrite"] is True,
    "--root=corpora": lambda a, o: o["root"] == Path("corpora"),
    "--offline": lambda a, o: o["offline"] is True and os.environ["HF_HUB_OFFLINE"] == "1",
    "--verbose": lambda a, o: console.level() == console.VERBOSE,
    "--quiet": lambda a, o: console.level() == console.QUIET,
}

TRAIN = {
    "--out=run": lambda a, o: a[1] == Path("run"),
    "--resume=auto": lambda a, o: o["resume"] == "auto",
    "--dry-run": lambda a, o: o["dry_run"] is True,
    "--smoke=2": lambda a, o: o["smoke"] == 2,
    "--seed=9": lambda a, o: a[0].seed == 9,
    "--offline": lambda a, o: os.environ["HF_HUB_OFFLINE"] == "1",
    "--verbose": lambda a, o: console.level() == console.VERBOSE,
    "--quiet": lambda a, o: console.level() == console.QUIET,
    "train.lr=0.5": lambda a, o: a[0].train.lr == 0.5,
}

LOADS = {
    "--model=m": ("model", "m"),
    "--batch-size=7": ("batch_size", 7),
    "--device=cuda": ("device", "cuda"),
    "--dtype=bfloat16": ("dtype", "bfloat16"),
    "--offline": ("offline", True),
}


@pytest.mark.parametrize("flag", FEATURIZE)
def test_featurize(melcli: Melcli, calls: list[Any], flag: str) -> None:
    ran = melcli("featurize", "digits", "-o", "out", flag)
    ((arguments, options),) = calls
    assert ran.code == 0 and arguments[:2] == ("digits", Path("out")) and FEATURIZE[flag](arguments, options)
    assert ran.out == "out: 1 utterances, 0.10 h, 0.0 MB in 1 shards\n"


def test_featurize_plots(melcli: Melcli, calls: list[Any]) -> None:
    assert melcli("featurize", "digits", "-o", "out", "--plot").out.splitlines()[-1] == "out/picture.png"


@pytest.mark.parametrize("flag", TRAIN)
def test_train(melcli: Melcli, calls: list[Any], tmp_path: Path, flag: str) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    ran = melcli("train", tmp_path / "r.yaml", flag)
    assert ran.code == 0, ran.err
    ((arguments, options),) = calls
    assert TRAIN[flag](arguments, options)


@pytest.mark.parametrize("flag", [*TRAIN, "--from=m"])
def test_finetune(melcli: Melcli, calls: list[Any], tmp_path: Path, flag: str) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    ran = melcli("finetune", tmp_path / "r.yaml", *([] if flag == "--from=m" else ["--from", "m"]), flag)
    assert ran.code == 0, ran.err
    ((arguments, options),) = calls
    assert flag == "--from=m" or TRAIN[flag](arguments, options)
    assert (arguments[0].model.init, arguments[0].model.backbone) == ("m", None)


def test_finetune_needs_a_model(melcli: Melcli, calls: list[Any], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    ran = melcli("finetune", tmp_path / "r.yaml")
    assert ran.code == 2 and ran.err.startswith("error: finetune needs a model to start from: give --from MODEL") and calls == []
    assert "init: m\n" in melcli("finetune", tmp_path / "r.yaml", "model.init=m", "--print-config").out


def test_finetune_on_several_devices(melcli: Melcli, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli import launch

    launched: list[Any] = []
    monkeypatch.setattr(launch, "launch", lambda devices, arguments: launched.append((devices, arguments)) or 0)
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert melcli("finetune", tmp_path / "r.yaml", "--from", "a/b", "train.lr=1", "--devices", 2).code == 0
    assert launched == [(2, ["train", str(tmp_path / "r.yaml"), 'model.init="a/b"', "model.backbone=null", "train.lr=1"])]


def test_train_prints_its_configuration(melcli: Melcli, calls: list[Any], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    ran = melcli("train", tmp_path / "r.yaml", "train.lr=0.25", "--print-config")
    (tmp_path / "printed.yaml").write_text(ran.out)
    assert "lr: 0.25" in ran.out and calls == []
    assert melcli("train", tmp_path / "printed.yaml", "--print-config").out == ran.out


def test_train_on_several_devices(melcli: Melcli, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli import launch

    launched: list[Any] = []
    monkeypatch.setattr(launch, "launch", lambda devices, arguments: launched.append((devices, arguments)) or 3)
    (tmp_path / "r.yaml").write_text(RECIPE)
    path = str(tmp_path / "r.yaml")
    ran = melcli("train", path, "train.lr=1", "-o", "run", "--resume", "auto", "--smoke", 5, "--seed", 2, "--dry-run", "-v", "--devices", 2)
    expected = ["train", path, "train.lr=1", "seed=2", "--out", "run", "--resume", "auto", "--smoke", "5", "--verbose", "--dry-run"]
    assert launched == [(2, expected)] and calls == [] and ran.code == 3
    melcli("train", path, "trian.lr=1", "--devices", 2)
    assert len(launched) == 1  # one complaint, not one a process
    joined: list[bool] = []
    monkeypatch.setattr(launch, "is_worker", lambda: True)
    monkeypatch.setattr(launch, "join", lambda: joined.append(True))
    assert melcli("train", path, "--devices", 2).code == 0 and len(calls) == len(launched) == len(joined) == 1


def test_train_of_a_sweep_hands_its_flags_on(melcli: Melcli, calls: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli import launch
    from melcli.sweeping import run as sweep_run

    told: list[Any] = []
    monkeypatch.setattr(sweep_run, "run", lambda members, out, **options: told.append((members, out, options)) or sweep_run.outcomes(members, out))
    (tmp_path / "s.yaml").write_text(RECIPE + "sweep: {grid: {seed: [1, 2]}}\n")
    path = tmp_path / "s.yaml"
    flags = ["--jobs", 3, "--only", "seed=2", "--smoke", 5, "--devices", 2, "--offline", "--resume", "auto", "-q"]
    ran = melcli("train", path, "train.lr=0.5", "-o", tmp_path / "out", *flags)
    assert ran.code == 0 and calls == [], ran.err
    ((members, out, options),) = told
    assert out == tmp_path / "out" and [m.recipe.train.lr for m in members] == [0.5, 0.5]
    assert [m.label for m in options["chosen"]] == ["seed=2"] and options["jobs"] == 3
    assert options["options"] == ["--devices", "2", "--smoke", "5", "--quiet", "--offline"]
    listed = melcli("train", path, "--dry-run", "--only", "seed=2")
    assert listed.code == 0 and listed.out.split()[3:6] == ["seed=2", "to", "do"] and "seed=1" not in listed.out and len(told) == 1
    refused = melcli("train", path, "--resume", "checkpoint-3")
    assert refused.code == 2 and "a sweep goes on from the last checkpoint" in refused.err
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert "--jobs and --only are for recipes with a sweep" in melcli("train", tmp_path / "r.yaml", "--jobs", 2).err
    assert "--jobs and --only are for recipes with a sweep" in melcli("train", tmp_path / "r.yaml", "--only", "x").err
    monkeypatch.setattr(launch, "is_worker", lambda: True)
    assert "a sweep starts its own processes" in melcli("train", path).err and calls == [] and len(told) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["r.yaml", "trian.lr=1"], "setting 'trian.lr=1': unknown key 'trian'. Did you mean 'train'?"),
        (["typo.yaml"], "typo.yaml:5: unknown key 'modle'. Did you mean 'model'?"),
        (["twice.yaml"], "twice.yaml:5: key 'name' is given twice"),
        (["absent.yaml"], "absent.yaml: no such file."),
        (["no-such-recipe"], "no recipe is called 'no-such-recipe'."),
        (["r.yaml", "--smoke", "0"], "Invalid value for '--smoke'"),
    ],
)
def test_train_refuses(melcli: Melcli, calls: list[Any], talks: Path, arguments: list[str], expected: str) -> None:
    for name, more in (("r", ""), ("typo", "modle: {}\n"), ("twice", "name: s\n")):
        Path(f"{name}.yaml").write_text(RECIPE + more)
    ran = melcli("train", *arguments)
    assert ran.code == 2 and ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1 and calls == []


HEARS = {
    "--vad": lambda o: o["vad"] is True,
    "--no-vad": lambda o: o["vad"] is False,
    "--max-chunk=7.5": lambda o: o["max_chunk"] == 7.5,
    "--prompt=Louder.": lambda o: o["hints"].prompt == "Louder.",
    "--hotwords=Ahab, white whale": lambda o: o["hints"].hotwords == ("Ahab", "white whale"),
    "--timestamps=word": lambda o: o["hints"].word_times,
}


@pytest.mark.parametrize("flag", HEARS)
def test_transcribe_hears_as_told(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, flag: str) -> None:
    assert melcli("transcribe", "a.wav", flag).code == 0
    (options,) = transcriber.loaded
    assert HEARS[flag](options)


@pytest.mark.parametrize("flag", LOADS)
def test_transcribe_and_score_load_a_model_as_told(
    melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    (talks / "dev.jsonl").write_text('{"audio": "a.wav", "text": "hello there", "duration": 1}\n')
    assert melcli("transcribe", "a.wav", flag).code == melcli("score", "--manifest", "dev.jsonl", flag).code == 0
    key, value = LOADS[flag]
    assert [loaded[key] for loaded in transcriber.loaded] == [value, value]


def test_beam(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    (talks / "dev.jsonl").write_text('{"audio": "a.wav", "text": "hello there", "duration": 1}\n')
    for command in (["transcribe", "a.wav"], ["score", "--manifest", "dev.jsonl"]):
        melcli(*command)
        melcli(*command, "--beam", 4, "--ctc-weight", 0.5)
    assert [(loaded["beam"], loaded["ctc_weight"]) for loaded in transcriber.loaded] == [(None, None), (4, 0.5)] * 2
    assert melcli("transcribe", "a.wav", "--ctc-weight", 2).code == 2


def test_plots_need_matplotlib(melcli: Melcli, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    ran = melcli("featurize", "digits", "-o", "out", "--plot")
    assert ran.code == 2 and "pip install 'melcli[plot]'" in ran.err and calls == []


@pytest.mark.parametrize("flag", ["--root=corpora", "--offline"])
def test_score_reads_sources_as_told(
    melcli: Melcli, transcriber: FakeTranscriber, talks: Path, calls: list[Any], monkeypatch: Any, flag: str
) -> None:
    from melcli.data import manifest
    from melcli.data.utterance import Utterance

    told: dict[str, Any] = {}
    monkeypatch.setattr(manifest, "read_source", lambda source, **options: told.update(options) or [Utterance("a", (str(talks / "a.wav"),), "x")])
    melcli("score", "--manifest", "digits", flag)
    assert told == {"root": Path("corpora") if "root" in flag else None, "offline": flag == "--offline"}


def test_score_hands_its_flags_on(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli import score
    from melcli.scoring.protocol import PLAIN

    told: list[dict[str, Any]] = []
    monkeypatch.setattr(score, "score", lambda **options: told.append(options) or [score.Report(PLAIN, "m")])
    melcli("score", "--set", "openasr", "--set", "a.jsonl", "--csv", "row.csv", "--overwrite", "--protocol", "none", "-o", "out")
    melcli("score", "--set", "openasr", "--hyp", "results", "--allow-missing")
    first, second = told
    assert first["sets"] == ["openasr", "a.jsonl"] and first["table"] == Path("row.csv") and first["protocol"] == "none"
    assert [(one["overwrite"], one["allow_missing"], one["output"]) for one in told] == [(True, False, Path("out")), (False, True, None)]
    assert second["hypotheses"] == [Path("results")] and second["protocol"] is None


def test_only_named_sets_warm_the_model_up(melcli: Melcli, transcriber: FakeTranscriber, talks: Path) -> None:
    (talks / "dev.jsonl").write_text('{"audio": "a.wav", "text": "hello there", "duration": 1}\n')
    melcli("score", "--set", "dev.jsonl")
    melcli("score", "--manifest", "dev.jsonl")
    assert [loaded["warm_up"] for loaded in transcriber.loaded] == [2, 0]


def test_score_on_several_devices(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli import launch

    launched: list[Any] = []
    monkeypatch.setattr(launch, "launch", lambda devices, arguments: launched.append((devices, arguments)) or 3)
    ran = melcli("score", "--set", "a", "--set", "b", "--devices", 2, "--beam", 4, "--ctc-weight", 0, "--overwrite", "-q", "-o", "out")
    expected = ["score", "--set", "a", "--set", "b", "--out", "out", "--overwrite", "--beam", "4", "--ctc-weight", "0.0", "--quiet"]
    assert launched == [(2, expected)] and ran.code == 3 and transcriber.loaded == []


def test_ray(melcli: Melcli, transcriber: FakeTranscriber, talks: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from melcli import ray_pool

    joined: list[str | None] = []
    monkeypatch.setattr(ray_pool, "joined", lambda address: joined.append(address) or contextlib.nullcontext())
    monkeypatch.setattr(ray_pool, "Tasks", lambda: "tasks")
    monkeypatch.setattr(ray_pool, "RayTranscriber", transcriber)
    monkeypatch.delitem(sys.modules, "melcli.transcribe")
    (talks / "dev.jsonl").write_text('{"audio": "a.wav", "text": "hello there", "duration": 1}\n')
    assert melcli("transcribe", "a.wav", "--ray", "auto").out == "hello there\n"
    assert (
        melcli("score", "--manifest", "dev.jsonl", "--ray", "head:6379").code == melcli("featurize", "digits", "-o", "out", "--ray=local").code == 0
    )
    assert joined == ["auto", "head:6379", "local"] and len(transcriber.loaded) == 2 and calls[0][1]["executor"] == "tasks"
    assert melcli("transcribe", "a.wav", "-o", "texts", "--ray", "auto").code == 0
    melcli("transcribe", "a.wav", "-o", "texts", "--ray", "auto", "--skip-existing")
    assert joined[3:] == ["auto", None]  # no cluster for nothing


@pytest.mark.parametrize(
    "arguments",
    [
        ["featurize", "digits", "-o", "out", "--jobs", "2"],
        ["featurize", "digits", "-o", "out", "--device", "cuda"],
        ["score", "--manifest", "dev.jsonl", "--devices", "2"],
        ["score", "--hyp", "results.jsonl"],
        ["score", "--compare", "a.jsonl", "b.jsonl"],
    ],
)
def test_what_ray_does_not_go_with(melcli: Melcli, calls: list[Any], arguments: list[str]) -> None:
    ran = melcli(*arguments, "--ray", "local")
    assert ran.code == 2 and ran.err.startswith("error: --") and ran.err.count("\n") == 1 and calls == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("locl", "--ray locl: valid are local, auto and HOST:PORT."),
        ("head:port", "--ray head:port: valid are local, auto and HOST:PORT."),
        ("ray://head:10001", "--ray ray://head:10001: Ray Data is not supported through a Ray client"),
        ("127.0.0.1:9", "--ray 127.0.0.1:9: cannot be reached: "),
        ("auto", "--ray needs Ray: pip install 'melcli[ray]'"),
    ],
)
def test_clusters_that_cannot_be(melcli: Melcli, talks: Path, monkeypatch: pytest.MonkeyPatch, address: str, expected: str) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where the extra is not installed
    ran = melcli("transcribe", "a.wav", "--ray", address)
    assert (ran.code, ran.out) == (2, "") and ran.err.startswith(f"error: {expected}") and ran.err.count("\n") == 1


TESTED = {
    "train": {*TRAIN, "--print-config", "--devices", "--jobs", "--only"},
    "finetune": {*TRAIN, "--print-config", "--devices", "--from"},
    "featurize": {*FEATURIZE, "--plot", "--out", "--ray"},
    "transcribe": {
        *LOADS,
        *(flag for flag in HEARS if flag != "--no-vad"),
        *("--timestamps", "--line-length", "--lines", "--stream"),  # test_transcribe.py
        *("--format", "--out", "--recursive", "--skip-existing", "--beam", "--ctc-weight", "--ray", "--quiet", "--verbose"),
    },
    "score": {
        *LOADS,
        "--set",
        "--csv",
        "--overwrite",
        "--allow-missing",
        "--devices",
        "--ray",
        "--manifest",
        "--hyp",
        "--protocol",
        "--limit",
        "--format",
        "--out",
        "--compare",
        "--report",
        "--worst",
        "--skip-layers",
        *(
            "--task",
            "--spoken",
            "--recogniser",
            "--similarity",
            "--mos",
            "--prompts",
            "--reference",
            "--vocoder",
            "--temperature",
            "--seed",
        ),  # test_score_tts.py
        *("--voice", "--written", "--lm"),  # test_score_replies.py
        "--root",
        "--beam",
        "--ctc-weight",
        "--quiet",
        "--verbose",
    },
    "export": {  # in tests/exporting
        *("--out", "--to", "--merge-lora", "--average", "--int8", "--push", "--offline", "--quiet", "--verbose"),
    },
    "serve": {  # in tests/serving/test_flags.py
        *("--transcribe", "--synthesize", "--host", "--port", "--api-key", "--voice", "--max-upload", "--max-seconds", "--max-text", "--queue"),
        *("--timeout", "--beam", "--batch-size", "--seed", "--device", "--dtype", "--offline", "--quiet", "--verbose"),
    },
    "doctor": {"--json", "--offline", "--quiet", "--verbose"},  # in test_names.py
    "branches": {  # in test_branches.py
        *("--model", "--vectors", "--protocol", "--text", "--limit", "--format", "--out", "--device", "--dtype", "--root", "--offline"),
        *("--quiet", "--verbose"),
    },
    "synthesize": {  # in test_synthesize.py
        "--text-file",
        "--out",
        "--model",
        "--voice",
        "--voice-text",
        "--lexicon",
        "--vocoder",
        "--temperature",
        "--seed",
        "--plot",
        "--check",
        "--check-with",
        "--skip-existing",
        "--device",
        "--dtype",
        "--offline",
        "--quiet",
        "--verbose",
        *("--continue", "--prompt", "--max-seconds", "--recursive"),  # in test_continue.py
    },
    "answer": {  # in test_answer.py
        "--model",
        "--format",
        "--out",
        "--recursive",
        "--skip-existing",
        "--vocoder",
        "--temperature",
        "--seed",
        "--max-seconds",
        "--device",
        "--dtype",
        "--offline",
        "--quiet",
        "--verbose",
    },
}


@pytest.mark.parametrize("command", TESTED)
def test_no_flag_is_untested(command: str) -> None:
    there = {option for p in typer.main.get_command(cli.app).commands[command].params for option in p.opts if option.startswith("--")}
    assert there - {"--help"} == {flag.partition("=")[0] for flag in TESTED[command] if flag.startswith("--")}
