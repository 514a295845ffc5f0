"""Several processes train as one does: the same steps, the same losses, killed and resumed, whatever they share."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from melcli import launch
from melcli import recipe as recipes
from melcli.data.packing import BatchPlan
from melcli.errors import ConfigError
from melcli.models import checkpoint, lora
from melcli.recipe import TRAINING
from melcli.train import train
from melcli.training import parallel, tune
from melcli.training.run import Run
from tests.training.llm_makers import smollm2
from tests.training.test_train import RECIPE, losses
from tests.training.tones import make_tones

STEPS = 8
SAME_STEPS = [  # no dropout, whose random numbers no two ways of running share; the rest is as in test_train, augmentation included
    f"train.steps={STEPS}",
    "train.tokens_per_batch=256",
    "train.save_every=4",
    "train.eval_every=4",
    "train.eval_limit=5",
    "train.average=2",
    "train.dtype=float32",
    "model.backbone.attention_dropout=0",
    "data.workers=0",
]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    """A recipe of speech with some text among it, so that batches of text alone come, too."""
    folder = tmp_path_factory.mktemp("tones")
    make_tones(folder)
    path = folder / "tones.yaml"
    text = "    - {source: tones.jsonl}\n"
    path.write_text(RECIPE.format(root=folder).replace(text, text + "    - {source: tones.jsonl, task: text, repeat: 8}\n"))
    return path


@pytest.fixture(scope="module")
def alone(recipe_file, tmp_path_factory) -> Path:
    """The run of one process whose every step has two batches."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert train(recipes.load(str(recipe_file), [*SAME_STEPS, "train.accumulate=2"]), out) is not None
    return out


def command(recipe_file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "melcli", "train", str(recipe_file), *SAME_STEPS, "-o", str(out), "--devices", "2", *more]


def workers(launcher: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(launcher).children() if p.status() != psutil.STATUS_ZOMBIE]


def start_and_kill_one(kind: str, recipe_file: Path, out: Path) -> None:
    running = subprocess.Popen(command(recipe_file, out, f"train.parallel={kind}"), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    said = ""
    for line in running.stderr:
        said += line
        if line.startswith("step 6/"):  # after the checkpoint of step 4, before the next
            workers(running.pid)[-1].send_signal(signal.SIGKILL)
            break
    said += running.stderr.read()
    assert running.wait(timeout=100) not in (0, None), said
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["checkpoint-4"], said
    assert not (out / "model").exists()


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=2e-3), name  # of weights, which Adam moves by the sign of tiny gradients, too


@pytest.mark.parametrize(("kind", "killed"), [("ddp", False), ("fsdp", True), pytest.param("ddp", True, marks=pytest.mark.slow, id="ddp-killed")])
def test_two_processes_train_as_one_does(kind, killed, recipe_file, alone, tmp_path):
    out = tmp_path / "run"
    if killed:
        start_and_kill_one(kind, recipe_file, out)
    resume = ["--resume", "auto"] if killed else []
    resumed = subprocess.run(command(recipe_file, out, f"train.parallel={kind}", *resume), capture_output=True, text=True, timeout=200, check=False)
    assert resumed.returncode == 0, resumed.stderr
    assert f"{kind}: each of 2 processes" in resumed.stderr
    assert f"step {STEPS}/{STEPS}" in resumed.stderr and ("step 4/" in resumed.stderr) != killed
    ours, theirs = losses(out, STEPS), losses(alone, STEPS)
    assert [step for step, *_ in ours] == list(range(1, STEPS + 1))
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-4, rel=1e-4)
    assert max(loss for _, loss, _ in ours) - min(loss for _, loss, _ in ours) > 0.5  # a curve, not a line
    same(*(load_file(run / "model" / "model.safetensors") for run in (out, alone)))
    assert (out / "model" / "config.json").read_text() == (alone / "model" / "config.json").read_text()
    model, _ = checkpoint.load(str(out))
    assert type(model).__name__ == "SpeechLM"
    assert sorted(p.name for p in (out / "snapshots").glob("step-*")) == [f"step-{step:07d}.safetensors" for step in (4, 8)]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> tuple[list[str], Path]:
    """A recipe that trains adapters and, faster, the speech side of a language model that is frozen otherwise; and one process's run of it."""
    folder = tmp_path_factory.mktemp("adapters")
    make_tones(folder, 24)
    (folder / "tones.yaml").write_text(RECIPE.format(root=folder))
    settings = [
        *SAME_STEPS,
        f"model.init={smollm2(folder / 'llm')}",
        "model.backbone=null",
        "train.steps=3",
        "train.save_every=3",
        "train.eval_every=3",
    ]
    settings += ["tune.llm=lora", "tune.lora={rank: 4, alpha: 8}", "tune.speech_lr=1e-2"]
    assert train(recipes.load(str(folder / "tones.yaml"), [*settings, "train.accumulate=2"]), folder / "run") is not None
    return [str(folder / "tones.yaml"), *settings], folder / "run"


@pytest.mark.parametrize(("kind", "merge"), [("ddp", False), ("fsdp", True)])
def test_two_processes_train_adapters_as_one_does(kind, merge, adapters, tmp_path):
    arguments, alone = adapters
    line = [sys.executable, "-m", "melcli", "train", *arguments, f"train.parallel={kind}", f"tune.lora.merge={str(merge).lower()}"]
    both = subprocess.run([*line, "-o", str(tmp_path), "--devices", "2"], capture_output=True, text=True, timeout=200, check=False)
    assert both.returncode == 0, both.stderr
    assert "written and read again" in both.stderr and ("adapters added to the weights" in both.stderr) == merge
    for one, other in zip(losses(tmp_path, 3), losses(alone, 3), strict=True):
        assert one == pytest.approx(other, abs=1e-4, rel=1e-4)
    wanted, _ = checkpoint.load(str(alone))
    written, _ = checkpoint.load(str(tmp_path))
    same(written.state_dict(), (lora.merge_lora(wanted) if merge else wanted).state_dict())
    kept, expected = (load_file(run / "snapshots" / "step-0000003.safetensors") for run in (tmp_path, alone))
    same(kept, expected)
    assert not any(name.startswith("llm.") and "lora_" not in name for name in kept)  # what does not train is not kept
    records = [json.loads((run / "model" / TRAINING).read_text()) for run in (tmp_path, alone)]
    assert len({(record["steps"], record["tokens"], record["parameters"], record["trained_parameters"]) for record in records}) == 1


def test_one_process_with_two_batches_a_step_has_the_steps_of_two_processes(recipe_file, monkeypatch):
    alone = Run(recipes.load(str(recipe_file), [*SAME_STEPS, "train.accumulate=2"]), Path("nowhere"))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    both = Run(recipes.load(str(recipe_file), SAME_STEPS), Path("nowhere"))
    assert (alone.world, both.world, alone.steps, both.steps) == (1, 2, STEPS, STEPS)
    assert len(alone.dataset()) == len(both.dataset()) == 2 * STEPS
    for step in range(2 * STEPS):
        assert alone.plan.locate(step) == both.plan.locate(step)
    assert any(all(alone.data.tasks[i] == "text" for row in alone.plan.locate(step)[1] for i in row) for step in range(2 * STEPS))


def test_every_epoch_holds_whole_steps():
    assert len(BatchPlan([10] * 999, fingerprint="x", world_size=4, tokens_per_batch=20, row_tokens=20).batches(0)) % 4 == 0


def test_the_memory_that_is_said_is_one_devices(recipe_file, monkeypatch):
    model = Run(recipes.load(str(recipe_file), SAME_STEPS), Path("nowhere")).model
    monkeypatch.setattr(tune, "GB", 1.0)

    def parts(layout: str) -> dict[str, float]:
        said = tune.memory(model, 256, 128, 4, False, layout, 4)
        return {name: float(size) for name, size in re.findall(r"(\w+) ([\d.]+)", said.partition(":")[2])}

    all_of_it = parts("ddp")
    quarter = {name: size / 4 for name, size in all_of_it.items()}
    assert parts("none") == all_of_it and min(all_of_it.values()) > 1000
    assert parts("zero1") == pytest.approx(all_of_it | {"Adam": quarter["Adam"]}, abs=0.1)
    assert parts("fsdp") == pytest.approx(quarter | {"activations": all_of_it["activations"]}, abs=0.1)


def test_the_layers_of_a_backbone_are_found(recipe_file):
    for fields, name in (
        ("{model_type: llama, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 16}", "LlamaDecoderLayer"),
        ("{model_type: gpt2, n_embd: 16, n_layer: 2, n_head: 2}", "GPT2Block"),
    ):
        run = Run(recipes.load(str(recipe_file), [f"model.backbone={fields}"]), Path("nowhere"))
        assert parallel.layer_classes(run.model.llm) == [name]


def test_one_process_shares_nothing_and_says_so(recipe_file, capsys):
    assert parallel.choose("ddp", 1, "cpu")[0] == parallel.choose("fsdp", 1, "cuda")[0] == "none"
    recipe = recipes.load(str(recipe_file), [*SAME_STEPS, "train.parallel=fsdp"])
    assert train(recipe, Path("nowhere"), dry_run=True) is None
    assert "train.parallel fsdp asks for several, see --devices" in " ".join(capsys.readouterr().err.split())


def test_without_deepspeed_or_gpus_zero1_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(parallel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"train\.parallel: zero1 needs .*pip install melcli\[deepspeed\]"):
        parallel.choose("zero1", 2, "cuda")
    monkeypatch.setattr(parallel.importlib.util, "find_spec", lambda name: "there")
    with pytest.raises(ConfigError, match="zero1 needs GPUs"):
        parallel.choose("zero1", 2, "cpu")
    assert parallel.choose("zero1", 2, "cuda") == ("zero1", "each of 2 processes holds all weights and its share of the optimiser's states")


def test_a_checkpoint_is_resumed_by_what_wrote_it(tmp_path):
    mark = tmp_path / "complete"
    for written, kind in (("none", "ddp"), ("ddp", "none"), ("", "ddp"), ("fsdp", "fsdp")):
        mark.write_text(written)
        parallel.check_layout(mark, kind)
    for written, kind, message in (
        ("fsdp", "ddp", "train.parallel=fsdp, and is resumed with it, not with ddp"),
        ("fsdp", "none", "with it and --devices"),
    ):
        mark.write_text(written)
        with pytest.raises(ConfigError, match=message):
            parallel.check_layout(mark, kind)


def test_best_weights_bring_their_own_embeddings(recipe_file):
    """Tied weights are two names of one tensor: those of the last step must not come back by the other name."""
    model = Run(recipes.load(str(recipe_file), SAME_STEPS), Path("nowhere")).model
    last = parallel.moving_state(model)
    best = {name: tensor + 1 for name, tensor in last.items()}
    parallel.load_full(model, last | best)
    assert torch.equal(model.get_input_embeddings().weight, best["llm.model.embed_tokens.weight"])
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_signal_to_one_process_stops_all_after_the_same_step():
    code = """
        import os, signal
        from melcli import launch
        launch.join()
        from transformers import TrainerControl
        from melcli.training.trainer import StopOnSignal
        stop, control = StopOnSignal(), TrainerControl()
        stop.on_train_begin(None, None, control)
        for step in range(4):
            if (step, os.environ["RANK"]) == (2, "1"):
                os.kill(os.getpid(), signal.SIGTERM)
            stop.on_step_end(None, None, control)
            assert control.should_training_stop == control.should_save == (step >= 2), step
        import torch
        torch.distributed.destroy_process_group()
    """
    with pytest.MonkeyPatch.context() as patch:
        real = subprocess.Popen
        patch.setattr(launch.subprocess, "Popen", lambda command, env: real([sys.executable, "-c", textwrap.dedent(code)], env=env))
        assert launch.launch(2, []) == 0
