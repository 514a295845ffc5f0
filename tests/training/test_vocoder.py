"""Training a vocoder as a user runs it: on made voices, small enough for seconds, real from recipe to audio."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from melcli import recipe as recipes
from melcli.audio.io import save
from melcli.audio.mel import LogMel, log_mel
from melcli.audio.mel_spec import preset
from melcli.audio.vocoder import load_vocoder
from melcli.errors import CheckpointError, ConfigError
from melcli.train_vocoder import train_vocoder
from melcli.training.discriminators import Discriminators
from melcli.training.vocoder_loss import distance, log_mels, magnitudes, pitch_loss, spectral
from melcli.vocoder_recipe import LossSection

SPEC = preset("speecht5")
RECIPE = """
name: voices
seed: 3
data:
  root: {root}
  train: [{{source: voices.jsonl}}]
  eval: [{{source: "voices.jsonl?limit=2"}}]
vocoder: {{width: 32, layers: 2, pitch_width: 24, pitch_layers: 1}}
train:
  steps: 8
  batch: 3
  crop_seconds: 0.3
  lr: 2.0e-3
  warmup: 4
  loss: {{ffts: [1024, 256]}}
  average: 0.9
  eval_every: 100
  save_every: 4
  log_every: 1
  log_to: []
"""


def voice(number: int) -> torch.Tensor:
    """A second of vowels: gliding pulses through a resonance that moves, and some noise."""
    generator = torch.Generator().manual_seed(number)
    time_S = torch.arange(SPEC.rate) / SPEC.rate
    hertz_S = (100 + 15 * number) * (1 + 0.15 * torch.sin(2 * math.pi * (1 + number / 7) * time_S))
    turns_S = (hertz_S.double() / SPEC.rate).cumsum(0)
    wave_S = torch.zeros(SPEC.rate)
    for k in range(1, 30):
        place_S = (k * hertz_S - 700 - 300 * torch.sin(2 * math.pi * 2 * time_S)) / 400
        wave_S += torch.exp(-(place_S**2)) * torch.cos(2 * math.pi * k * turns_S).float()
    return 0.1 * wave_S * (time_S * 3).sin().abs() + 0.003 * torch.randn(SPEC.rate, generator=generator)


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    rows = []
    for number in range(8):
        save(folder / f"{number}.wav", voice(number), SPEC.rate)
        rows.append(json.dumps({"audio": f"{number}.wav", "id": str(number)}))
    (folder / "voices.jsonl").write_text("\n".join(rows) + "\n")
    path = folder / "voices.yaml"
    path.write_text(RECIPE.format(root=folder))
    return path


def command(recipe_file: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "melcli", "train", str(recipe_file), "-o", str(out), *more]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.time() + 200
    while not path.exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)


def test_a_killed_and_resumed_training_is_an_uninterrupted_one(apart, recipe_file, tmp_path):
    whole = apart("train", recipe_file, "-o", tmp_path / "whole")
    assert whole.stdout.strip() == str(tmp_path / "whole" / "model")
    assert "data wait" in whole.stderr and "voices.jsonl?limit=2 mel error" in whole.stderr
    cut = tmp_path / "cut"
    process = subprocess.Popen(command(recipe_file, cut), env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    wait_for(cut / "checkpoints" / "checkpoint-4" / "complete", process)
    process.kill()
    process.wait(60)
    resumed = apart("train", recipe_file, "-o", cut, "--resume", "auto")
    assert resumed.returncode == 0 and "resuming from" in resumed.stderr
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "whole", cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    states = [load_file(folder / "checkpoints" / "checkpoint-8" / "state.safetensors") for folder in (tmp_path / "whole", cut)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_sigterm_saves_and_stops(recipe_file, tmp_path):
    process = subprocess.Popen(
        command(recipe_file, tmp_path / "run", "train.steps=5000", "train.save_every=5000"),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("step 2/"):
            process.send_signal(signal.SIGTERM)
            break
    _, rest = process.communicate(timeout=100)
    assert process.returncode == 143
    (found,) = (tmp_path / "run" / "checkpoints").glob("checkpoint-*")
    assert f"stopped at step {found.name.removeprefix('checkpoint-')} of 5000; continue with --resume auto" in rest
    assert not (tmp_path / "run" / "model").exists()


def test_a_little_training_beats_none_and_noise(recipe_file, tmp_path):
    """Mel -> vocoder -> mel of a voice that was trained on."""
    settings = ["train.steps=70", "train.batch=6", "train.crop_seconds=0.5", "train.dtype=float32", "data.eval=[]", "data.mel_noise=0"]
    settings += ["train.save_every=1000", "train.log_every=35"]
    errors = {}
    log_mel_of = LogMel(SPEC)
    mel_TM = log_mel_of.many([voice(2)])[0]
    floor = float(mel_TM.max()) - 2.5
    for steps in (1, 70):
        out = tmp_path / str(steps)
        train_vocoder(recipes.load(str(recipe_file), [*settings, f"train.steps={steps}"]), out)
        again_TM = log_mel_of.many([load_vocoder(str(out), SPEC)(mel_TM[None])[0]])[0]
        errors[steps] = float((again_TM.clamp_min(floor) - mel_TM.clamp_min(floor)).abs().mean())
    noise_S = float(voice(2).std()) * torch.randn(SPEC.rate, generator=torch.Generator().manual_seed(0))
    noise = float((log_mel(SPEC, noise_S)[: len(mel_TM)].clamp_min(floor) - mel_TM.clamp_min(floor)).abs().mean())
    assert errors[70] < 0.75 * errors[1] < noise / 3


def test_the_adversarial_stage_runs_and_resumes(recipe_file, tmp_path):
    settings = ["train.adversarial={start: 2, channels: 2}", "train.save_every=3", "train.dtype=float32"]
    whole = recipes.load(str(recipe_file), [*settings, "train.steps=5"])
    train_vocoder(whole, tmp_path / "whole")
    train_vocoder(whole, tmp_path / "cut", smoke=3)
    train_vocoder(whole, tmp_path / "cut", resume="auto")
    states = [load_file(tmp_path / name / "checkpoints" / "checkpoint-5" / "state.safetensors") for name in ("whole", "cut")]
    assert any(name.startswith("judges/") for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_dry_run_and_smoke(apart, recipe_file, tmp_path):
    dry = apart("train", recipe_file, "-o", tmp_path / "dry", "--dry-run")
    assert dry.returncode == 0 and "one step went through" in dry.stderr and "parameters; sees" in dry.stderr
    assert not (tmp_path / "dry").exists()
    smoke = apart("train", recipe_file, "-o", tmp_path / "smoke", "--smoke", "2", "data.eval=[]")
    assert smoke.returncode == 0 and "step 2/8" in smoke.stderr and "step 3/8" not in smoke.stderr
    record = json.loads((tmp_path / "smoke" / "model" / "training.json").read_text())
    assert (record["steps"], record["of"]) == (2, 8)
    again = apart("train", recipe_file, "-o", tmp_path / "smoke")
    assert again.returncode == 2 and "holds a run already: add --resume auto" in again.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["vocoder.widht=3"], "unknown key 'vocoder.widht'. Did you mean 'width'?"),
        (["vocoder.kind=vocos"], "vocoder.kind cannot be 'vocos'. Did you mean 'tiny-vocos'? Valid here: tiny-vocos."),
        (["vocoder.kernel=6"], "vocoder: kernel 6 is even"),
        (["vocoder.mel=phi4mm"], "vocoder: tiny-vocos reads mels with padding center"),
        (["vocoder.mel=speecht"], "unknown mel preset 'speecht'"),
        (["train.crop_seconds=0.01"], "train.crop_seconds 0.01 is less than the longest window, 1024 samples: 0.064 s"),
        (["train.steps=0"], "train.steps: Input should be greater than 0, not 0."),
        (["data.train=[]"], "data.train"),
        (["data.train=[{source: nothing}]"], "neither a file nor a corpus"),
        (["data.gain_db=[3, 1]"], "gain_db [3.0, 1.0] is not a range"),
        (["sweep.grid.seed=[1,2]"], "unknown key 'sweep'"),
        (["--devices", "2"], "--devices 2: "),
        (["--jobs", "2"], "--jobs and --only are for recipes with a sweep"),
        (["--resume", "nowhere"], "--resume nowhere: no checkpoint of a vocoder's training there"),
    ],
)
def test_what_cannot_be_is_one_line(recipe_file, tmp_path, settings, message, capsys):
    from melcli.cli import main

    with pytest.raises(SystemExit) as ended:
        main(command(recipe_file, tmp_path / "run", *settings)[3:])
    said = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert len([line for line in said if line.startswith("error:")]) == 1
    assert message in said[-1]
    assert not (tmp_path / "run" / "model").exists()


def test_a_misspelt_key_has_its_line(recipe_file, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(recipe_file.read_text().replace("  batch: 3", "  bacth: 3"))
    line = path.read_text().splitlines().index("  bacth: 3") + 1
    with pytest.raises(ConfigError, match=rf"broken.yaml:{line}: unknown key 'train.bacth'. Did you mean 'batch'"):
        recipes.load(str(path))


def test_discriminators_may_join_later_and_a_checkpoint_of_another_size_is_refused(recipe_file, tmp_path):
    train_vocoder(recipes.load(str(recipe_file), ["data.eval=[]"]), tmp_path, smoke=1)
    judged = recipes.load(str(recipe_file), ["data.eval=[]", "train.adversarial={start: 0, channels: 2}"])
    assert train_vocoder(judged, tmp_path, smoke=1, resume="auto") is not None
    assert (tmp_path / "checkpoints" / "checkpoint-2" / "complete").exists()
    with pytest.raises(CheckpointError, match="wrong shape for"):
        train_vocoder(recipes.load(str(recipe_file), ["data.eval=[]", "vocoder.width=16"]), tmp_path, resume="auto")


def test_recordings_that_cannot_be_read_are_left_out(recipe_file, tmp_path, capsys):
    root = recipe_file.parent
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    rows = [json.dumps({"audio": str(root / "0.wav"), "id": "good"}), json.dumps({"audio": str(tmp_path / "bad.wav"), "id": "bad", "duration": 1.0})]
    (tmp_path / "mixed.jsonl").write_text("\n".join(rows))
    mixed = [f"data.train=[{{source: {tmp_path / 'mixed.jsonl'}}}]", "data.eval=[]"]
    assert train_vocoder(recipes.load(str(recipe_file), mixed), tmp_path / "run", smoke=2) is not None
    assert capsys.readouterr().err.count("left out of training") == 1
    (tmp_path / "mixed.jsonl").write_text(rows[1])
    with pytest.raises(ConfigError, match="recordings in a row could not be read"):
        train_vocoder(recipes.load(str(recipe_file), mixed), tmp_path / "none", smoke=2)


# --- losses ---


def noise(*shape: int, seed: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_one():
    a, b, c = (magnitudes(noise(2, 4096, seed=seed), 512) for seed in range(3))
    scale_B = torch.ones(2)
    assert float(distance(a, a, scale_B).max()) == 0
    assert torch.allclose(distance(a, b, scale_B), distance(b, a, scale_B))
    assert bool((distance(a, c, scale_B) <= distance(a, b, scale_B) + distance(b, c, scale_B) + 1e-6).all())


def test_the_energy_distance_prefers_the_right_distribution():
    """Of noise, the plain distance prefers a rendering without any spread; the energy distance does not."""
    section = LossSection(ffts=(256,))
    rows = 24
    real_BS = noise(rows, 8000, seed=0)
    right = spectral(real_BS, noise(rows, 8000, seed=1), noise(rows, 8000, seed=2), SPEC, section)
    clicks_S = torch.zeros(8000)
    clicks_S[::16] = 0.4  # flat spectrum, no randomness
    flat_BS = clicks_S.expand(rows, -1)
    flat = spectral(real_BS, flat_BS, flat_BS, SPEC, section)
    quiet = spectral(real_BS, 0.3 * noise(rows, 8000, seed=1), 0.3 * noise(rows, 8000, seed=2), SPEC, section)
    assert right["stft"] < 0.8 * min(flat["stft"], quiet["stft"])
    assert right["mel"] < 0.8 * min(flat["mel"], quiet["mel"])


def test_mels_of_the_loss_are_the_extractors():
    wave_S = voice(1)
    inner_TM = log_mels(wave_S[None], SPEC)[0] / math.log(10)
    whole_TM = log_mel(SPEC, wave_S)[2 : 2 + len(inner_TM)]
    assert torch.allclose(inner_TM, whole_TM.clamp_min(-5), atol=1e-3)


def test_losses_of_silence_have_a_gradient():
    wave_BS = torch.zeros(2, 4096, requires_grad=True)
    losses = spectral(torch.zeros(2, 4096), wave_BS, wave_BS * 1.0, SPEC, LossSection(ffts=(1024,)))
    (losses["stft"] + losses["mel"]).backward()
    assert bool(torch.isfinite(wave_BS.grad).all())


def test_the_pitch_loss_is_least_at_the_pitch():
    hertz_BT, voiced_BT = torch.full((1, 4), 120.0), torch.tensor([[True, True, True, False]])
    steps_K = torch.arange(194)
    losses = [float(pitch_loss(-0.2 * (steps_K - at).abs().expand(1, 4, -1), hertz_BT, voiced_BT, 60.0, 60)) for at in (30, 60, 90)]
    assert losses[1] < min(losses[0], losses[2])
    wrong_where_unvoiced = torch.zeros(1, 4, 194)
    wrong_where_unvoiced[:, 3, 0] = 5.0
    extra = float(pitch_loss(wrong_where_unvoiced, hertz_BT, voiced_BT, 60.0, 60)) - math.log(194)
    assert 0 < extra < 0.1


def test_discriminators_learn_to_tell():
    torch.manual_seed(0)
    judges = Discriminators(2)
    real_BS, made_BS = noise(4, 4096, seed=0), 0.1 * torch.sin(torch.arange(4096) * 0.3).expand(4, -1)
    optimizer = torch.optim.AdamW(judges.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = judges.own_loss(real_BS, made_BS)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.98 * losses[0]
    assert losses == sorted(losses, reverse=True)
    made_BS = made_BS.clone().requires_grad_()
    fooled, matched = judges.requires_grad_(False).generator_loss(real_BS, made_BS)
    (fooled + matched).backward()
    assert float(made_BS.grad.abs().sum()) > 0
