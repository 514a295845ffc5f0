"""Sweeps: which trainings a recipe stands for, how they run as processes, and the table of what came out."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from melcli import recipe as recipes
from melcli import sweep
from melcli.errors import ConfigError, UsageError
from melcli.recipe import TRAINING, digest
from melcli.sweeping import run as sweep_run
from melcli.sweeping import table as sweep_table
from melcli.train import train
from tests.training.tones import make_tones

RECIPE = """
name: tones
data:
  root: {root}
  train: [{{source: tones.jsonl}}]
  eval: [{{source: "tones.jsonl?limit=3"}}]
  workers: 0
model:
  speech_input: {{kind: mel-patch, patch: 8}}
  backbone: {{model_type: llama, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2, intermediate_size: 32}}
  tokenizer: {{vocab_size: 32}}
train: {{steps: 4, tokens_per_batch: 128, row_tokens: 64, eval_every: 4, save_every: 2, log_every: 1, log_to: []}}
"""


def write(folder: Path, sweep_section: str) -> str:
    path = folder / "sweep.yaml"
    path.write_text(RECIPE.format(root=folder) + sweep_section)
    return str(path)


def plan(folder: Path, sweep_section: str, *settings: str) -> list[sweep.Member]:
    return sweep.members(recipes.read(write(folder, sweep_section), list(settings)))


def test_members_are_the_product_of_cases_and_grid(tmp_path: Path) -> None:
    members = plan(
        tmp_path,
        """
sweep:
  cases: {plain: , eager: {model.init: ../lm/model, train.clip: 2}}
  axes: {hours: {one: {data.max_seconds: 5.0}, all: {}}}
  grid: {seed: [1, 2], train.lr: [1e-3, 0.5]}
""",
    )
    assert len(members) == 16 == len({member.label for member in members}) == len({digest(member.recipe) for member in members})
    assert members[0].label == "plain,hours=one,seed=1,lr=0.001"
    assert members[0].values == {"case": "plain", "hours": "one", "seed": "1", "train.lr": "0.001"}
    last = members[-1].recipe
    assert members[-1].label == "eager,hours=all,seed=2,lr=0.5" and last.name == f"tones/{members[-1].label}"
    assert (last.model.init, last.train.clip, last.data.max_seconds, last.seed, last.train.lr) == ("../lm/model", 2, 20.0, 2, 0.5)
    assert last.sweep is None and members[0].recipe.data.max_seconds == 5


def test_nested_values_replace_and_have_short_names(tmp_path: Path) -> None:
    members = plan(
        tmp_path,
        """
sweep:
  grid:
    model.speech_input: [{kind: mel-conv, stride: 4, channels: 8}, {kind: mel-conv, stride: 4.0, channels: 8}, {kind: raw-frame}]
    model.init: [null, a/b c, "../lm"]
    data.train: [[{source: a.jsonl}, {source: b.jsonl}]]
    train.betas: [[0.9, 0.95]]
""",
    )
    labels = [member.label for member in members]
    assert labels[0] == "speech_input=mel-conv-4-8,init=none,train=a.jsonl+b.jsonl,betas=0.9+0.95"
    assert labels[4].startswith("speech_input=mel-conv-4.0-8,init=a-b-c") and labels[8].startswith("speech_input=raw-frame,init=lm")
    assert members[8].recipe.model.speech_input == {"kind": "raw-frame"} and members[0].recipe.train.betas == (0.9, 0.95)


def test_labels_tell_values_apart_and_fit_a_folders_name(tmp_path: Path) -> None:
    long = "x" * 300
    members = plan(tmp_path, f"\nsweep: {{grid: {{model.init: [a/b, a-b, {long}], train.clip: [1], data.max_seconds: [1], train.keep: [2]}}}}\n")
    assert [member.label[:10] for member in members] == ["init=a-b-1", "init=a-b-2", "init=xxxxx"] and max(len(m.label) for m in members) == 100
    short = plan(
        tmp_path, "\nsweep: {cases: {a: {}}, axes: {train.text: {b: {data.text: none}}}, grid: {data.text: [plain]}}\n".replace("data.text: none", "")
    )
    assert short[0].label == "a,train.text=b,data.text=plain"


def test_settings_change_the_base_and_the_sweep(tmp_path: Path) -> None:
    text = "\nsweep: {grid: {seed: [1, 2], train.lr: [1, 2]}}\n"
    changed = plan(tmp_path, text, "train.steps=9", "sweep.grid.seed=[5]", "sweep.grid.train.lr=[3]", "sweep.grid.train.clip=[1,2]")
    assert [member.label for member in changed] == ["seed=5,lr=3,clip=1", "seed=5,lr=3,clip=2"] and changed[0].recipe.train.steps == 9


@pytest.mark.parametrize(
    ("section", "settings", "expected"),
    [
        ("grid: {train.lrr: [1]}", [], "sweep.yaml:13: unknown key 'train.lrr'. Did you mean 'lr'? Valid here: accumulate,"),
        ("cases: {a: {}, b: {modle.init: x}}", [], "sweep.yaml:13: unknown key 'modle'. Did you mean 'model'?"),
        ("gird: {}", [], "sweep.yaml:13: unknown key 'sweep.gird'. Did you mean 'grid'?"),
        ("grid: {train.lr: [1, fast]}", [], "sweep.yaml:13: train.lr: Input should be a valid number"),
        ("grid: {train.lr: 1}", [], "sweep.yaml:13: sweep.grid.train.lr: Input should be a valid list, not 1."),
        ("grid: {train.lr: []}", [], "sweep.yaml:13: sweep.grid.train.lr holds no values."),
        ("grid: {train.lr: [1, 1]}", [], "sweep.yaml:13: sweep.grid.train.lr holds a value twice."),
        ("axes: {hours: {}}", [], "sweep.yaml:13: sweep.axes.hours holds no cases."),
        ("{}", [], "sweep.yaml:13: sweep needs grid, cases or axes"),
        ("grid: {name: [a]}", [], "sweep.yaml:13: 'name' cannot be swept;"),
        ("{grid: {train.lr: [1]}, cases: {a: {train.lr: 2}}}", [], "sweep.yaml:13: 'train.lr' is set at sweep.yaml:13 too, where case is swept"),
        ("{grid: {model.speech_input: [{kind: a}], model.speech_input.patch: [1]}}", [], "sweep.yaml:13: 'model.speech_input.patch' is set at"),
        ("grid: {seed: [1, 2]}", ["seed=3"], "setting 'seed=3': the recipe sweeps over 'seed'; set sweep.grid.seed to change that."),
        ("cases: {a: {model.speech_input: {kind: x}}}", ["model.speech_input.patch=2"], "setting 'model.speech_input.patch=2': the recipe sweeps"),
    ],
)
def test_mistakes_are_found_before_anything_runs(tmp_path: Path, section: str, settings: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, f"sweep: {section}\n" if section.startswith("{") else f"sweep: {{{section}}}\n", *settings)
    assert str(caught.value).replace(f"{tmp_path}/", "").startswith(expected)


def test_a_digest_stands_for_what_is_made(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    base = digest(recipes.load(path))
    others = ["name=other", "data.root=elsewhere", "data.cache.folder=elsewhere", "data.workers=7", "train.log_every=3", "train.clip=1.0"]
    assert base == digest(recipes.load(path, others))
    assert base not in {digest(recipes.load(path, [setting])) for setting in ("seed=1", "train.lr=2e-3", "data.max_seconds=9", "model.init=x")}


def test_only(tmp_path: Path) -> None:
    members = plan(tmp_path, "sweep: {grid: {seed: [1, 2, 3], train.lr: [1, 2]}}\n")
    assert [m.label for m in sweep_run.select(members, ["seed=2,*", "seed=3,lr=1"])] == ["seed=2,lr=1", "seed=2,lr=2", "seed=3,lr=1"]
    assert sweep_run.select(members, []) == members
    with pytest.raises(UsageError, match=r"--only seed=2,lr=5: no member is called so\. Did you mean 'seed=2,lr=.'\? --dry-run lists all 6"):
        sweep_run.select(members, ["seed=2,lr=5"])


def finish(folder: Path, member: sweep.Member, wer: float, steps: int = 4) -> None:
    model = folder / member.label / "model"
    model.mkdir(parents=True)
    took = {"steps": steps, "of": 4, "tokens": 1000, "seconds": 8.0, "parameters": 50, "trained_parameters": 40, "digest": digest(member.recipe)}
    (model / TRAINING).write_text(json.dumps(took))
    (model / "evaluation.json").write_text(json.dumps({"tones.jsonl?limit=3": wer}))


def test_voices_are_told_by_the_distance_of_their_mels(tmp_path: Path) -> None:
    members = plan(tmp_path, "sweep: {grid: {seed: [1, 2]}}\n", "data.task=tts", "model.speech_output={kind: vae}")
    for member, distance in zip(members, (4.0, 5.0), strict=True):
        finish(tmp_path, member, distance)
        (tmp_path / member.label / "model" / "evaluation.json").write_text(json.dumps({"tones.jsonl?limit=3 [mel dB]": distance}))
    sweep_table.write_tables(members, tmp_path, {})
    text = (tmp_path / "sweep.md").read_text()
    assert "mel distance dB tones.jsonl?limit=3" in text and "4.50 ± 0.71" in text and "WER" not in text


def test_tables(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    members = plan(tmp_path, "sweep: {cases: {a: {}, b: {train.clip: 2}}, grid: {seed: [1, 2, 3]}}\n")
    for member, wer in zip(members, (10.0, 20.0, 36.0, 50.0), strict=False):
        finish(tmp_path, member, wer)
    finish(tmp_path, members[4], 1.0, steps=2)
    found = sweep_table.write_tables(members, tmp_path, {"b,seed=3": "no | disk"}, draw=True)
    assert [one.state for one in found] == ["done"] * 4 + ["begun", "failed"]
    written = json.loads((tmp_path / "sweep.json").read_text())
    wer = "tones.jsonl?limit=3"
    assert [one["values"] for one in written["means"]] == [{"case": "a"}, {"case": "b"}]
    assert written["means"][0]["rates"][wer] == {"mean": 22.0, "sd": 13.1149}  # sqrt((12² + 2² + 14²) / 2)
    assert written["means"][1] == {"values": {"case": "b"}, "seeds": 1, "rates": {wer: {"mean": 50.0, "sd": None}}}
    assert written["members"][0] | {"digest": ""} == {
        "label": "a,seed=1",
        "values": {"case": "a", "seed": "1"},
        "state": "done",
        "error": None,
        "rates": {wer: 10.0},
        "steps": 4,
        "tokens": 1000,
        "seconds": 8.0,
        "tokens_per_second": 125.0,
        "parameters": 50,
        "trained_parameters": 40,
        "digest": "",
    }
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open()))
    assert [row[f"WER {wer}"] for row in rows] == ["10.0", "20.0", "36.0", "50.0", "", ""] and rows[2]["seed"] == "3"
    assert rows[0]["recipe"] == digest(members[0].recipe) and rows[5]["state"] == "failed: no | disk"
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    assert lines[2].startswith("| a | 1 | done | 10.00 | 4 | 1,000 | 8.0 | 125 | 50 | 40 |") and "| a | 3 | 22.00 ± 13.11 |" in lines
    assert "no \\| disk" in lines[7] and (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    (member,) = plan(tmp_path, "sweep: {grid: {seed: [1]}}\n")
    (other,) = plan(tmp_path, "sweep: {grid: {seed: [1]}}\n", "train.steps=8")
    finish(tmp_path, member, 1.0)
    assert sweep_run.outcomes([member], tmp_path)[0].state == "done"
    with pytest.raises(ConfigError, match="seed=1 holds a training by another recipe"):
        sweep_run.run([other], tmp_path)


def test_a_sweep_runs_goes_on_and_says_what_failed(tmp_path: Path) -> None:
    """As a user runs it: one member is half done, one cannot be trained, one is not asked for."""
    make_tones(tmp_path, 6)
    path = write(tmp_path, "sweep: {cases: {a: {}, b: {model.backbone.hidden_act: nothing}}, grid: {train.clip: [1.0, 2.0]}}\n")
    members = sweep.members(recipes.read(path))
    out, first = tmp_path / "out", tmp_path / "out" / members[0].label
    train(members[0].recipe, first, smoke=2)
    smoke = json.loads((first / "model" / TRAINING).read_text())
    assert smoke["steps"] == 2 and smoke["of"] == 4 and [one.state for one in sweep_run.outcomes(members, out)] == ["begun", "new", "new", "new"]
    command = [sys.executable, "-m", "melcli", "train", path, "-o", str(out), "--jobs", "2", "--only", "?,clip=1.0"]
    run = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 1, run.stderr
    assert "[a,clip=1.0] resuming from" in run.stderr and "1 of 4 failed:\n  b,clip=1.0: " in run.stderr
    assert "2 of 4 are not done; the same command goes on with them" in run.stderr
    assert "resuming from" in (first / "train.log").read_text()
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["state"].partition(":")[0] for row in rows] == ["done", "to do", "failed", "to do"] and "nothing" in rows[2]["state"]
    took = rows[0]
    assert took["steps"] == "4" and int(took["tokens"]) > smoke["tokens"] and float(took["WER tones.jsonl?limit=3"]) > 0
    assert float(took["seconds"]) > smoke["seconds"] > 0  # the time before it was ended counts
    assert run.stdout.splitlines()[1].split()[:3] == ["a", "1.0", "done"] and members[0].recipe == recipes.load(str(first / "recipe.yaml"))
    assert [one.state for one in sweep_run.outcomes(members, out)] == ["done", "new", "new", "new"]


def test_one_training_does_not_take_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recipe tones is a sweep of many trainings"):
        train(recipes.load(write(tmp_path, "sweep: {grid: {seed: [1]}}\n")), tmp_path / "out")
