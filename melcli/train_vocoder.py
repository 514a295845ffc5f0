"""`melcli train` of a recipe with a `vocoder:`: from audio alone to a tiny-vocos vocoder.

Shapes: B crops, S samples, T mel frames.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from melcli.audio.mel import LogMel
from melcli.audio.mel_spec import preset
from melcli.audio.tiny_vocos import TinyVocos, read_config, read_net, write
from melcli.audio.tiny_vocos_net import TinyVocosConfig, TinyVocosNet, turns
from melcli.audio.vocoder import Vocoder, load_vocoder
from melcli.errors import ConfigError
from melcli.files import put_in_place, write_text, writing
from melcli.models.hardware import DTYPES
from melcli.training import steps
from melcli.training.discriminators import Discriminators
from melcli.training.steps import StepsRun
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


class VocoderRun(StepsRun):
    """A training that is set up and not yet started."""

    measured = "{name} mel error {value:.4f}"
    later = ("judges", "judges_optimizer")  # they may join a training that began without them

    def __init__(self, recipe: VocoderRecipe, out: Path, offline: bool = False) -> None:
        super().__init__(recipe, out, offline)
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
        utterances, repeats = read_sources(recipe.data.train, Path(recipe.data.root), offline)
        self.hours = sum((u.duration or 0) * times for u, times in zip(utterances, repeats, strict=True)) / 3600
        self.crops = CropSource(utterances, repeats, spec, self.config.grid, self.frames, recipe.data, recipe.seed)
        self.held_out = held_out(recipe.data, spec.rate, t.eval_limit, offline)
        self.log_mel = LogMel(spec)
        torch.manual_seed(recipe.seed)
        self.net = TinyVocosNet(self.config).to(self.device)
        self.mean = TinyVocosNet(self.config).to(self.device)
        self.mean.load_state_dict(self.net.state_dict())
        self.trained = list(self.net.parameters())
        self.optimizer = torch.optim.AdamW(self.trained, lr=t.lr, betas=t.betas, weight_decay=t.weight_decay, fused=True)
        self.judges = Discriminators(t.adversarial.channels).to(self.device) if t.adversarial else None
        self.judges_optimizer = (
            torch.optim.AdamW(self.judges.parameters(), lr=t.adversarial.lr, betas=(0.8, 0.99), fused=True) if self.judges else None
        )

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

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        found = {"net": self.net, "mean": self.mean, "judges": self.judges, "optimizer": self.optimizer, "judges_optimizer": self.judges_optimizer}
        return {name: part for name, part in found.items() if part is not None}

    def batch(self) -> Crops:
        return self.crops.batch(self.step, self.recipe.train.batch)

    def losses(self, crops: Crops) -> tuple[Tensor, dict[str, Tensor]]:
        """Those of the vocoder; the discriminators take a step of their own on the way."""
        t = self.recipe.train
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
        return loss, said

    def learn(self, crops: Crops) -> dict[str, float]:
        losses = super().learn(crops)
        self._average()
        return losses

    def pace(self, steps: int, seconds: float, waited: float) -> str:
        audio = steps * self.recipe.train.batch * self.frames / self.config.mel.frame_rate
        return f"{audio / seconds:.1f} s/s  data wait {100 * waited / seconds:.0f} %"

    def _renderings(self, crops: Crops, real_BS: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Two independent renderings of the crops' mels, the pitch loss, and the share of voiced frames whose pitch was found."""
        net, spec = self.net, self.config.mel
        grid, hop = self.config.grid, spec.hop_length
        generator = torch.Generator().manual_seed((self.recipe.seed << 33) + self.step)
        mel_BTM = torch.stack(self.log_mel.many(list(real_BS)))
        hertz_BT, voiced_BT = crops.hertz_BT.to(self.device), crops.voiced_BT.to(self.device)
        level_BTM = net.levels(mel_BTM)
        level_BTM[::2] += self.recipe.data.mel_noise * torch.randn(level_BTM[::2].shape, generator=generator).to(self.device)
        with self.autocast():
            logits_BTK = net.pitch_logits(level_BTM)
        pitch = pitch_loss(logits_BTK, hertz_BT, voiced_BT, grid.low, grid.steps)
        guess_BT = net.pitches(logits_BTK.detach())
        near_BT = (guess_BT / hertz_BT).log2().abs() < NEAR
        found = (near_BT & voiced_BT).sum() / voiced_BT.sum().clamp_min(1)
        # the trunk lives with the estimator's pitch where it is right, or nobody knows
        hertz_BT = torch.where(near_BT | ~voiced_BT, guess_BT, hertz_BT)
        with self.autocast():
            filters = net.filters(level_BTM, hertz_BT)
        waves = []
        for _ in range(2):
            begun_B = torch.rand(len(real_BS), 1, generator=generator, dtype=torch.float64).to(self.device)
            white_BS = torch.randn(len(real_BS), (mel_BTM.shape[1] + 2) * hop, generator=generator).to(self.device)
            waves.append(net.render(*filters, turns(hertz_BT, hop, spec.rate) + begun_B, hertz_BT, white_BS))
        return waves[0], waves[1], pitch, found

    def _judge(self, real_BS: Tensor, made_BS: Tensor) -> Tensor:
        assert self.judges is not None and self.judges_optimizer is not None
        with self.autocast():
            loss = self.judges.own_loss(real_BS, made_BS)
        self.judges_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.judges_optimizer.step()
        return loss

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.recipe.train.average, (1 + self.step) / (10 + self.step))  # short while it is young
        torch._foreach_lerp_(list(self.mean.parameters()), list(self.net.parameters()), 1 - decay)

    def evaluate(self) -> dict[str, float]:
        """Mean absolute difference of mels before and after the vocoder, in the mel's units, by evaluation source."""
        return copy_errors(TinyVocos(self.mean, self.device), self.log_mel, self.held_out)

    def finish(self, seconds: float) -> VocoderResult:
        """Write the averaged weights as a vocoder, read it again and compare."""
        folder, t = self.out / "model", self.recipe.train
        result = VocoderResult(folder, self.evaluate())
        limits = copy_errors(load_vocoder("griffin-lim", self.config.mel), self.log_mel, self.held_out) if self.held_out else {}
        record = self.record(seconds, self.net)
        record["audio_hours"] = round(self.step * t.batch * self.frames / self.config.mel.frame_rate / 3600, 3)
        evaluation = {"mel_error": result.errors, "griffin_lim": limits}
        partial = folder.with_name(f".{folder.name}.partial")
        with writing(folder):
            shutil.rmtree(partial, ignore_errors=True)
            write(partial, self.mean, DTYPES[t.weights])
            for name, text in self.documents(record, evaluation, card(self.recipe, record, result.errors, limits)).items():
                write_text(partial / name, text)
            put_in_place(partial, folder)
        mel_BTM = self.log_mel.many([self.crops.batch(0, 1).wave_BS[0]])[0][None]
        again = TinyVocos(read_net(folder, read_config(folder)))
        gap = float((again(mel_BTM) - TinyVocos(self.mean.cpu())(mel_BTM)).abs().max())
        self.check_written(folder, "samples", gap, 1e-4 if t.weights == "float32" else 0.05)
        return result


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


def train_vocoder(recipe: VocoderRecipe, out: Path | None = None, **options: Any) -> VocoderResult | None:
    """Train as the recipe says; the options are those of `melcli.train.train`, and so is the run's folder. None where nothing was finished."""
    return steps.train(VocoderRun, recipe, out, **options)
