"""`melcli train` of a recipe with a `unified:`: from pairs of speech and text to a small unified encoder.

Shapes: B pairs, T frames, M mel bins, S samples, V vectors of an utterance, W width of a vector, U utterances.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING

from melcli.audio.augment import SpecAugment, spec_augment
from melcli.audio.mel import log_mel
from melcli.audio.mel_spec import MelSpec, preset
from melcli.data.load import load_utterance
from melcli.data.utterance import Utterance
from melcli.errors import ConfigError
from melcli.models import unified_encoder
from melcli.models.hardware import DTYPES
from melcli.models.unified_encoder import UnifiedEncoder, UnifiedEncoderConfig
from melcli.models.written_config import check_fields
from melcli.training import setup, steps
from melcli.training.steps import StepsRun
from melcli.training.texts import characters
from melcli.training.unified_card import card
from melcli.training.unified_data import Pairs, PairSource, read_pairs, waves_of
from melcli.training.unified_loss import Contrast, Spelling, distance, recalls
from melcli.unified_recipe import UnifiedRecipe, UnifiedSection

MEANS = 2000  # training pairs that the branches' means are taken over
TOGETHER = 64  # utterances encoded at once


@dataclass(frozen=True)
class UnifiedResult:
    """Where the encoder is, and its retrieval in percent by evaluation source."""

    folder: Path
    recalls: dict[str, dict[str, float]]


class UnifiedRun(StepsRun):
    """A training that is set up and not yet started."""

    def __init__(self, recipe: UnifiedRecipe, out: Path, offline: bool = False) -> None:
        super().__init__(recipe, out, offline)
        t, section = recipe.train, recipe.unified
        utterances, repeats, self.left_out = read_pairs(recipe.data.train, recipe.data, offline)
        self.hours = sum((u.duration or 0) * times for u, times in zip(utterances, repeats, strict=True)) / 3600
        self.frozen = section.speech.frozen
        mask = setup._options(SpecAugment, recipe.data.spec_augment, "data.spec_augment")
        if mask is not None and self.frozen:
            raise ConfigError("data.spec_augment: the states of a frozen branch are made once; leave it out, or speech.frozen: false")
        self.mask = mask
        torch.manual_seed(recipe.seed)
        self.encoder, self.begun = begin(section, characters([u.text or "" for u in utterances]), offline)
        self.encoder.to(self.device)
        if self.frozen:
            for module in (self.encoder.front, self.encoder.trunk):
                module.requires_grad_(False)
        if mask is not None and self.encoder.reads != "mel":
            raise ConfigError("data.spec_augment masks mel features, and unified.speech reads waveforms: leave it out")
        self.spec = self.encoder.config.mel
        self.pairs = PairSource(utterances, repeats, self._read, t.alike, recipe.seed)
        self.letters = {character: i for i, character in enumerate(self.encoder.config.alphabet, 1)}
        parts: dict[str, nn.Module] = {"contrast": Contrast(t.temperature)}
        if t.spelling:
            parts["spelling"] = Spelling(section.width, len(self.letters) + 1, t.spelling_rate)
        self.heads = nn.ModuleDict(parts).to(self.device)
        self.trained = [p for p in [*self.encoder.parameters(), *self.heads.parameters()] if p.requires_grad]
        plain = [p for p in self.trained if p.dim() < 2]
        groups = [{"params": [p for p in self.trained if p.dim() > 1], "weight_decay": t.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=t.lr, betas=t.betas)
        self._held: dict[str, tuple[list[Tensor], list[str]]] | None = None

    def decisions(self) -> dict[str, str]:
        """What was decided, and why."""
        t, config = self.recipe.train, self.encoder.config
        count = sum(p.numel() for p in self.encoder.parameters())
        left = "; ".join(f"{n} {why}" for why, n in self.left_out.items())
        return {
            "device": f"{self.device}: {self.device_reason}",
            "dtype": f"{str(self.dtype).removeprefix('torch.')}: {self.dtype_reason}; weights stay float32",
            "data": f"{len(self.pairs.utterances)} pairs, {self.hours:.2f} h with repeats; decoded when first drawn"
            + (f"; left out: {left}" if left else ""),
            "mel": f"{self.spec.rate} Hz, {self.spec.n_mels} bins, {self.spec.frame_rate:g} frames/s",
            "encoder": f"{count:,} parameters, {sum(p.numel() for p in self.encoder.parameters() if p.requires_grad):,} of them train; "
            f"{config.vectors} vectors of {config.width} an utterance; {len(config.alphabet)} characters",
            "speech": self.begun,
            "batches": f"{t.batch} pairs of like length",
            "length": f"{t.steps} steps = {t.steps * t.batch / len(self.pairs.utterances):.1f} epochs",
        }

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"encoder": self.encoder, "losses": self.heads, "optimizer": self.optimizer}

    def batch(self) -> Pairs:
        return self.pairs.batch(self.step, self.recipe.train.batch)

    def losses(self, pairs: Pairs) -> tuple[Tensor, dict[str, Tensor]]:
        t = self.recipe.train
        with self.autocast():
            speech_BVW, text_BVW = self._speech(self._masked(pairs.features)), self.encoder.text(pairs.texts)
        said = {"contrast": self.heads["contrast"](speech_BVW, text_BVW, pairs.same_BB.to(self.device)), "distance": distance(speech_BVW, text_BVW)}
        loss = said["contrast"] + t.align * said["distance"]
        if t.spelling:
            targets = [[self.letters[c] for c in text if c in self.letters] for text in pairs.texts]
            said |= {"spelt": self.heads["spelling"](text_BVW, targets), "heard": self.heads["spelling"](speech_BVW, targets)}
            loss = loss + t.spelling * (said["spelt"] + said["heard"]) / 2
        return loss, said

    def evaluate(self) -> dict[str, float]:
        """Retrieval in percent, by evaluation source and measure."""
        return {f"{source} {name}": value for source, found in self.retrieval().items() for name, value in found.items()}

    def retrieval(self) -> dict[str, dict[str, float]]:
        """Retrieval in percent over the evaluation sources."""
        if self._held is None:
            self._held = {}
            for entry in self.recipe.data.eval:
                utterances, _, _ = read_pairs([entry], self.recipe.data, self.offline, self.recipe.train.eval_limit)
                found = waves_of(utterances, self.spec.rate)
                self._held[entry.source] = ([self._features(wave_S).half() for _, wave_S in found], [u.text or "" for u, _ in found])
        return {source: recalls(*self._encoded(*held), held[1]) for source, held in self._held.items()}

    def means(self) -> None:
        """Measure what all vectors of a branch share, on training pairs."""
        utterances = self.pairs.utterances
        some = list(range(len(utterances)))[:: max(1, len(utterances) // MEANS)][:MEANS]
        kept = [(feature, utterances[i].text or "") for i in some if (feature := self.pairs.features(i)) is not None]
        speech_UVW, text_UVW = self._encoded([feature for feature, _ in kept], [text for _, text in kept])
        self.encoder.speech_mean_VW.copy_(speech_UVW.mean(0))
        self.encoder.text_mean_VW.copy_(text_UVW.mean(0))

    def finish(self, seconds: float) -> UnifiedResult:
        """Measure means and retrieval, write the encoder, read it again and compare."""
        folder, t, encoder = self.out / "model", self.recipe.train, self.encoder
        self.means()
        result = UnifiedResult(folder, self.retrieval())
        record = self.record(seconds, encoder) | {"pairs": len(self.pairs.utterances)}
        extra = self.documents(record, result.recalls, card(self.recipe, encoder.config, record, result.recalls))
        unified_encoder.save(folder, encoder, DTYPES[t.weights], extra)
        again = unified_encoder.load(folder)
        pairs = self.pairs.batch(0, 2)
        with torch.no_grad():
            ours, theirs = encoder.cpu().eval().text(pairs.texts), again.text(pairs.texts)
            speech = [(one.pool(pairs.features) if self.frozen else _heard(one, pairs.features)) for one in (encoder, again)]
        gap = max(float((ours - theirs).abs().max()), float((speech[0] - speech[1]).abs().max()))
        self.check_written(folder, "vectors", gap, (1e-4 if t.weights == "float32" else 0.1) * max(1.0, float(ours.abs().max())))
        return result

    # --- its parts -----------------------------------------------------------------------------------------------------------------------------

    def _features(self, wave_S: Tensor) -> Tensor:
        """What is kept of a waveform: mel or samples, or the states of a frozen branch."""
        wave_S = nn.functional.pad(wave_S, (0, max(0, self.spec.span - len(wave_S))))
        x_TM = log_mel(self.spec, wave_S) if self.encoder.reads == "mel" else wave_S[:, None]
        if not self.frozen:
            return x_TM
        with torch.no_grad():
            self.encoder.eval()
            return self.encoder.states(x_TM.to(self.device), torch.tensor([len(x_TM)], device=self.device))[0].cpu()

    def _read(self, utterance: Utterance) -> Tensor:
        return self._features(load_utterance(utterance, self.spec.rate))

    def _speech(self, features: list[Tensor]) -> Tensor:
        """Vectors [B, V, W] of what `_features` gave."""
        features = [one.to(self.device).float() for one in features]
        if self.frozen:
            return self.encoder.pool(features)
        return self.encoder.speech(torch.cat(features), torch.tensor([len(one) for one in features], device=self.device))

    def _masked(self, features: list[Tensor]) -> list[Tensor]:
        self.encoder.train()
        if self.mask is None:
            return features
        generator = torch.Generator().manual_seed((self.recipe.seed << 33) + self.step)
        return [spec_augment(one, self.mask, generator, self.spec.frame_rate) for one in features]

    @torch.no_grad()
    def _encoded(self, features: list[Tensor], texts: list[str]) -> tuple[Tensor, Tensor]:
        self.encoder.eval()
        groups = [slice(i, i + TOGETHER) for i in range(0, len(texts), TOGETHER)]
        speech = torch.cat([self._speech(features[group]) for group in groups]).float()
        return speech, torch.cat([self.encoder.text(texts[group]) for group in groups]).float()


def begin(section: UnifiedSection, alphabet: str, offline: bool) -> tuple[UnifiedEncoder, str]:
    """The encoder of a recipe where training begins, and what its speech branch begins as. Raises ConfigError and CheckpointError."""
    for branch, backbone in (("speech", section.speech.backbone), ("text", section.text.backbone)):
        if backbone is not None and backbone.get("model_type") in CONFIG_MAPPING:  # of any other the encoder says that it is none
            check_fields(backbone, f"unified.{branch}.backbone")
    sizes = {name: getattr(section, name) for name in ("vectors", "width", "hidden", "heads")} | {"alphabet": alphabet}
    speech = section.speech
    if speech.init is None:
        spec = preset(section.mel)
        parts: dict[str, Any] = {"input": setup.settle_speech_input(speech.input, offline), "speech_backbone": speech.backbone}
        encoder = UnifiedEncoder(UnifiedEncoderConfig(mel=spec, text_backbone=section.text.backbone, **parts, **sizes))
        encoder.front.load_pretrained({name: value for name, value in speech.input.items() if name != "kind"}, offline)
        return encoder, "random" if speech.input.get("model") is None else f"random layers on {speech.input['model']}"
    return _from_ours(section, speech.init, sizes, offline)


def _from_ours(section: UnifiedSection, name: str, sizes: dict[str, Any], offline: bool) -> tuple[UnifiedEncoder, str]:
    """Begin with the speech input and the layers of a speech model of ours."""
    from melcli.models import checkpoint
    from melcli.models.encoder import NOT_KEPT

    folder = checkpoint.resolve(name, offline=offline, flag="unified.speech.init")
    model, _ = checkpoint.load(str(folder), dtype=torch.float32)
    if model.config.lora is not None:
        raise ConfigError(f"unified.speech.init {name}: it has live adapters; `melcli export --merge-lora` adds them to its weights")
    if model.speech_input.reads not in ("mel", "wave"):
        raise ConfigError(f"unified.speech.init {name}: it hears nothing, its speech input is {model.config.speech_input['kind']}")
    fields = model.config.text_config.to_diff_dict()
    backbone = {key: value for key, value in fields.items() if key not in NOT_KEPT} | {"model_type": model.config.text_config.model_type}
    by_itself = model.config.ctc_at_input  # its layers were not taught to hear: see models/listener.py
    if by_itself:
        backbone = {key: value for key, value in backbone.items() if key != "layer_types"} | {"num_hidden_layers": 0}
    spec: MelSpec = model.config.mel_spec
    parts = {"input": model.config.speech_input, "speech_backbone": backbone, "text_backbone": section.text.backbone}
    encoder = UnifiedEncoder(UnifiedEncoderConfig(mel=spec, **parts, **sizes))
    encoder.front.load_state_dict(model.speech_input.state_dict())
    if not by_itself:
        decoder = model.llm.get_decoder()
        decoder.set_input_embeddings(nn.Identity())
        encoder.trunk.layers.load_state_dict(decoder.state_dict())
    return encoder, f"{name}'s speech input{'' if by_itself else ' and layers'}" + (", left as they are" if section.speech.frozen else "")


def train_unified(recipe: UnifiedRecipe, out: Path | None = None, **options: Any) -> UnifiedResult | None:
    """Train as the recipe says; the options are those of `melcli.train.train`, and so is the run's folder. None where nothing was finished."""
    return steps.train(UnifiedRun, recipe, out, **options)


def _heard(encoder: UnifiedEncoder, features: list[Tensor]) -> Tensor:
    return encoder.speech(torch.cat(features), torch.tensor([len(one) for one in features]))
