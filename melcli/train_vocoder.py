"""`melcli train` of a recipe with a `vocoder:`: from audio alone to a tiny-vocos vocoder.

Shapes: B crops, S samples, T mel frames.
"""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from melcli import config as yaml_config
from melcli import console
from melcli.audio.mel import LogMel
from melcli.audio.mel_spec import preset
from melcli.audio.tiny_vocos import TinyVocos, read_config, read_net, write
from melcli.audio.tiny_vocos_net import TinyVocosConfig, TinyVocosNet, turns
from melcli.audio.vocoder import Vocoder, load_vocoder
from melcli.errors import CheckpointError, ConfigError
from melcli.files import write_text
from melcli.models.hardware import DTYPES, keep_freed_memory, pick_device, pick_dtype
from melcli.training import vocoder_state
from melcli.training.discriminators import Discriminators
from melcli.training.progress import clock
from melcli.training.vocoder_card import card
from melcli.training.vocoder_data import Crops, CropSource, held_out, read_sources
from melcli.training.vocoder_loss import pitch_loss, spectral
from melcli.vocoder_recipe import VocoderRecipe

NEAR = 1 / 12  # octaves: a pitch within a semitone counts as found


@dataclass(frozen=True)
class VocoderResult:
    """Where the vocoder is, and the mean absolute difference of mels before and after it by evaluation source."""

    folder: Path
    errors: dict[str, float]


class VocoderRun:
    """A training that is set up and not yet started."""

    def __init__(self, recipe: VocoderRecipe, out: Path, offline: bool = False) -> None:
        self.recipe, self.out = recipe, out
        t = recipe.train
        spec = preset(recipe.vocoder.mel)
        try:
            self.config = TinyVocosConfig(mel=spec, **recipe.vocoder.model_dump(exclude={"mel"}))
        except ValueError as error:
            raise ConfigError(f"vocoder: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None  # type: ignore[attr-defined]
        self.frames = max(1, round(t.crop_seconds * spec.frame_rate))
        least = max((spec.win_length, *t.loss.ffts))
        if self.frames * spec.hop_length < least:
            raise ConfigError(f"train.crop_seconds {t.crop_seconds:g} is less than the longest window, {least} samples: {least / spec.rate:g} s")
        self.device, self.device_reason = pick_device()
        self.dtype, self.dtype_reason = pick_dtype(t.dtype, self.device)
        if self.device == "cpu":
            keep_freed_memory()
        utterances, repeats = read_sources(recipe.data.train, Path(recipe.data.root), offline)
        self.hours = sum((u.duration or 0) * times for u, times in zip(utterances, repeats, strict=True)) / 3600
        self.crops = CropSource(utterances, repeats, spec, self.config.grid, self.frames, recipe.data, recipe.seed)
        self.held_out = held_out(recipe.data, spec.rate, t.eval_limit, offline)
        self.log_mel = LogMel(spec)
        torch.manual_seed(recipe.seed)
        self.net = TinyVocosNet(self.config).to(self.device)
        self.mean = TinyVocosNet(self.config).to(self.device)
        self.mean.load_state_dict(self.net.state_dict())
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=t.lr, betas=t.betas, weight_decay=t.weight_decay, fused=True)
        self.judges = Discriminators(t.adversarial.channels).to(self.device) if t.adversarial else None
        self.judges_optimizer = (
            torch.optim.AdamW(self.judges.parameters(), lr=t.adversarial.lr, betas=(0.8, 0.99), fused=True) if self.judges else None
        )
        self.step = 0

    def decisions(self) -> dict[str, str]:
        """What was decided, and why."""
        t, spec = self.recipe.train, self.config.mel
        count = sum(p.numel() for p in self.net.parameters())
        crop = self.frames * spec.hop_length / spec.rate
        judged = f"from step {t.adversarial.start} on, {sum(p.numel() for p in self.judges.parameters()):,} parameters" if self.judges else "none"
        return {
            "device": f"{self.device}: {self.device_reason}",
            "dtype": f"{str(self.dtype).removeprefix('torch.')}: {self.dtype_reason}; weights and spectra stay float32",
            "data": f"{len(self.crops.utterances)} recordings, {self.hours:.2f} h with repeats; decoded when first drawn",
            "mel": f"{self.recipe.vocoder.mel}: {spec.rate} Hz, {spec.frame_rate:g} frames/s, {spec.n_mels} bins",
            "vocoder": f"{count:,} parameters; sees {self.config.reach} frames either side, {self.config.reach / spec.frame_rate:.2f} s",
            "discriminators": judged,
            "batches": f"{t.batch} crops of {crop:.3f} s, {t.batch * crop:.0f} s a step",
            "length": f"{t.steps} steps = {t.steps * t.batch * crop / 3600:.1f} h of audio",
        }

    def tensors(self) -> dict[str, Tensor]:
        """All that a training is, besides the step."""
        found = vocoder_state.flat("net", self.net.state_dict()) | vocoder_state.flat("mean", self.mean.state_dict())
        found |= vocoder_state.of_optimizer("optimizer", self.optimizer)
        if self.judges is not None and self.judges_optimizer is not None:
            found |= vocoder_state.flat("judges", self.judges.state_dict())
            found |= vocoder_state.of_optimizer("judges_optimizer", self.judges_optimizer)
        return found

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError where it is of another recipe."""
        found, self.step = vocoder_state.read(folder)
        parts: list[tuple[str, nn.Module]] = [("net", self.net), ("mean", self.mean)]
        optimizers = [("optimizer", self.optimizer)]
        if self.judges is not None and self.judges_optimizer is not None and any(name.startswith("judges/") for name in found):
            parts.append(("judges", self.judges))
            optimizers.append(("judges_optimizer", self.judges_optimizer))
        for name, module in parts:
            vocoder_state.fill(module, vocoder_state.part(name, found), folder)
        for name, optimizer in optimizers:
            vocoder_state.fill_optimizer(optimizer, vocoder_state.part(name, found))

    def learn(self, crops: Crops) -> dict[str, float]:
        """One optimiser step; its losses."""
        t = self.recipe.train
        rate = t.lr * self._schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        real_BS = crops.wave_BS.to(self.device)
        one_BS, other_BS, pitch, found = self._renderings(crops, real_BS)
        losses = spectral(real_BS, one_BS, other_BS, self.config.mel, t.loss)
        loss = t.loss.stft * losses["stft"] + t.loss.mel * losses["mel"] + t.loss.pitch * pitch
        said = {**losses, "pitch": pitch, "found": found}
        if self.judges is not None and t.adversarial is not None and self.step >= t.adversarial.start:
            said["judges"] = self._judge(real_BS, one_BS)
            self.judges.requires_grad_(False)
            fooled, matched = self.judges.generator_loss(real_BS, one_BS)
            self.judges.requires_grad_(True)
            loss = loss + t.adversarial.weight * fooled + t.adversarial.features * matched
            said |= {"fooled": fooled, "matched": matched}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), t.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            console.warn(f"step {self.step}: the gradient is not finite, and the step is left out")
        self.step += 1
        self._average()
        return {name: float(value.detach()) for name, value in {"loss": loss, **said, "grad_norm": norm}.items()}

    def _renderings(self, crops: Crops, real_BS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two independent renderings of the crops' mels, the pitch loss, and the share of voiced frames whose pitch was found."""
        net, spec = self.net, self.config.mel
        grid, hop = self.config.grid, spec.hop_length
        generator = torch.Generator().manual_seed((self.recipe.seed << 33) + self.step)
        mel_BTM = torch.stack(self.log_mel.many(list(real_BS)))
        hertz_BT, voiced_BT = crops.hertz_BT.to(self.device), crops.voiced_BT.to(self.device)
        level_BTM = net.levels(mel_BTM)
        level_BTM[::2] += self.recipe.data.mel_noise * torch.randn(level_BTM[::2].shape, generator=generator).to(self.device)
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            logits_BTK = net.pitch_logits(level_BTM)
        pitch = pitch_loss(logits_BTK, hertz_BT, voiced_BT, grid.low, grid.steps)
        guess_BT = net.pitches(logits_BTK.detach())
        near_BT = (guess_BT / hertz_BT).log2().abs() < NEAR
        found = (near_BT & voiced_BT).sum() / voiced_BT.sum().clamp_min(1)
        # the trunk lives with the estimator's pitch where it is right, or nobody knows
        hertz_BT = torch.where(near_BT | ~voiced_BT, guess_BT, hertz_BT)
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            filters = net.filters(level_BTM, hertz_BT)
        waves = []
        for _ in range(2):
            begun_B = torch.rand(len(real_BS), 1, generator=generator, dtype=torch.float64).to(self.device)
            white_BS = torch.randn(len(real_BS), (mel_BTM.shape[1] + 2) * hop, generator=generator).to(self.device)
            waves.append(net.render(*filters, turns(hertz_BT, hop, spec.rate) + begun_B, hertz_BT, white_BS))
        return waves[0], waves[1], pitch, found

    def _judge(self, real_BS: Tensor, made_BS: Tensor) -> Tensor:
        assert self.judges is not None and self.judges_optimizer is not None
        with torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.judges.own_loss(real_BS, made_BS)
        self.judges_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.judges_optimizer.step()
        return loss

    def _schedule(self) -> float:
        t = self.recipe.train
        if self.step < t.warmup:
            return (self.step + 1) / t.warmup
        if t.schedule == "constant":
            return 1.0
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (self.step - t.warmup) / max(1, t.steps - t.warmup))))

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.train.average, (1 + self.step) / (10 + self.step))  # short while it is young
        torch._foreach_lerp_(list(self.mean.parameters()), list(self.net.parameters()), 1 - decay)

    def errors(self) -> dict[str, float]:
        """Mean absolute difference of mels before and after the vocoder, in the mel's units, by evaluation source."""
        return copy_errors(TinyVocos(self.mean, self.device), self.log_mel, self.held_out)


def copy_errors(vocoder: Vocoder, log_mel: LogMel, sets: dict[str, list[Tensor]]) -> dict[str, float]:
    """Copy synthesis: mel -> audio -> mel. Values 50 dB and more below a recording's loudest are not heard, and count as 50 dB."""
    found = {}
    for name, waves in sets.items():
        total, count = 0.0, 0
        for wave_S in waves:
            if len(wave_S) < log_mel.spec.span:
                continue
            before_TM = log_mel.many([wave_S])[0]
            after_TM = log_mel.many([vocoder(before_TM[None])[0].cpu()])[0] if len(before_TM) * log_mel.spec.hop_length > log_mel.spec.span else None
            if after_TM is None:
                continue
            decades = 2.5 * log_mel.spec.power
            floor = float(before_TM.max()) - decades * (math.log(10) if log_mel.spec.log == "ln" else 1.0) * log_mel.spec.scale
            total += float((before_TM.clamp_min(floor) - after_TM.clamp_min(floor)).abs().sum())
            count += before_TM.numel()
        found[name] = round(total / max(count, 1), 4)
    return found


def train_vocoder(
    recipe: VocoderRecipe,
    out: Path | None = None,
    *,
    resume: str | None = None,
    smoke: int | None = None,
    dry_run: bool = False,
    offline: bool = False,
) -> VocoderResult | None:
    """Train as the recipe says; the options are those of `melcli.train.train`, and so is the run's folder. None where nothing was finished."""
    out = out or Path("runs") / recipe.name
    start = None if dry_run else vocoder_state.resume_from(out, resume)
    run = VocoderRun(recipe, out, offline)
    console.decided(run.decisions())
    if dry_run:
        losses = run.learn(run.crops.batch(0, recipe.train.batch))
        console.note(f"one step went through: loss {losses['loss']:.3f}")
        return None
    if start is not None:
        run.resume(start)
        console.note(f"resuming from {start}")
    write_text(out / "recipe.yaml", yaml_config.dump_yaml(recipe))
    began = time.perf_counter()
    done = Loop(run).go(min(recipe.train.steps, run.step + smoke) if smoke else recipe.train.steps)
    if not done:
        console.note(f"stopped at step {run.step} of {recipe.train.steps}; continue with --resume auto")
        return None
    return _finish(run, time.perf_counter() - began)


class Loop:
    """Steps until the end or SIGTERM, with lines of progress, evaluations and checkpoints."""

    def __init__(self, run: VocoderRun) -> None:
        self.run, self.t = run, run.recipe.train
        self.stopped = False
        self.board = None
        if "tensorboard" in self.t.log_to:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run.out / "checkpoints" / "runs"), purge_step=run.step + 1)

    def go(self, last: int) -> bool:
        """Whether step `last` was reached."""
        before = signal.signal(signal.SIGTERM, self._stop)
        try:
            self._steps(last)
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
            if self.board is not None:
                self.board.close()
        return self.run.step >= last

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def _steps(self, last: int) -> None:
        run, sums, began, waited = self.run, {}, time.perf_counter(), 0.0
        while run.step < last and not self.stopped:
            asked = time.perf_counter()
            crops = run.crops.batch(run.step, self.t.batch)
            waited += time.perf_counter() - asked
            for name, value in run.learn(crops).items():
                sums[name] = sums.get(name, 0.0) + value
            if run.step % self.t.log_every == 0 or run.step == last:
                steps = (run.step - 1) % self.t.log_every + 1
                self._say({name: value / steps for name, value in sums.items()}, time.perf_counter() - began, waited, steps)
                sums, began, waited = {}, time.perf_counter(), 0.0
            if run.step % self.t.eval_every == 0 and run.held_out:
                self._evaluate()
                began = time.perf_counter()
            if run.step % self.t.save_every == 0 or run.step == last or self.stopped:
                vocoder_state.save(run.out / "checkpoints", run.step, run.tensors(), self.t.keep)

    def _say(self, means: dict[str, float], seconds: float, waited: float, steps: int) -> None:
        run, spec = self.run, self.run.config.mel
        audio = steps * self.t.batch * run.frames / spec.frame_rate
        parts = "  ".join(f"{name} {value:.3f}" for name, value in means.items() if name not in ("loss", "grad_norm"))
        left = clock(seconds / steps * (self.t.steps - run.step))
        console.note(
            f"step {run.step}/{self.t.steps}  loss {means['loss']:.4f}  {parts}  grad {means['grad_norm']:.2f}  {audio / seconds:.1f} s/s"
            f"  data wait {100 * waited / seconds:.0f} %  left {left}"
        )
        if self.board is not None:
            for name, value in means.items():
                self.board.add_scalar(f"train/{name}", value, run.step)

    def _evaluate(self) -> None:
        for name, error in self.run.errors().items():
            console.note(f"  evaluation at step {self.run.step}: {name} mel error {error:.4f}")
            if self.board is not None:
                self.board.add_scalar(f"eval/{name}", error, self.run.step)


def _finish(run: VocoderRun, seconds: float) -> VocoderResult:
    """Write the averaged weights as a vocoder, read it again and compare."""
    folder, t = run.out / "model", run.recipe.train
    result = VocoderResult(folder, run.errors())
    write(folder, run.mean, DTYPES[t.weights])
    limits = {
        name: copy_errors(load_vocoder("griffin-lim", run.config.mel), run.log_mel, {name: waves})[name] for name, waves in run.held_out.items()
    }
    record = {
        "steps": run.step,
        "of": t.steps,
        "seconds": round(seconds, 3),
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "audio_hours": round(run.step * t.batch * run.frames / run.config.mel.frame_rate / 3600, 3),
    }
    write_text(folder / "recipe.yaml", yaml_config.dump_yaml(run.recipe))
    write_text(folder / "evaluation.json", json.dumps({"mel_error": result.errors, "griffin_lim": limits}, indent=2) + "\n")
    write_text(folder / "training.json", json.dumps(record, indent=2) + "\n")
    write_text(folder / "README.md", card(run.recipe, record, result.errors, limits))
    mel_BTM = run.log_mel.many([run.crops.batch(0, 1).wave_BS[0]])[0][None]
    again = TinyVocos(read_net(folder, read_config(folder)))
    gap = float((again(mel_BTM) - TinyVocos(run.mean.cpu())(mel_BTM)).abs().max())
    if gap > (0.05 if t.weights != "float32" else 1e-4):
        raise CheckpointError(f"{folder}: read again, the vocoder's samples differ by {gap:.2g}")
    console.note(f"written and read again: samples within {gap:.1e}")
    return result
