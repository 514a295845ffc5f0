"""Speech from the model, patch by patch: several texts at once with a key-value cache, each with chance of its own and guards of its own.

Shapes: B rows, L positions of the prompts, K positions held, D width, X numbers a patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from melcli.data.tasks import Example
from melcli.models.cache import roomy_cache
from melcli.models.guards import Guard
from melcli.models.masks import added, for_layers, padded_mask
from melcli.models.noise import Seeded
from melcli.models.speech_lm import SpeechLM

COMPACT_AT = 0.75  # rows that are done leave the batch once fewer than this share still speaks


@dataclass(slots=True)
class Prompt:
    """What stands before the first patch: the encoded text, with a place for each patch of a voice's frames voice_TM, and of speech that was heard
    before, [T, M] or samples [S, 1]; the row's seed and guard. first: the position of the first patch, where it is not the next."""

    example: Example
    seed: int
    guard: Guard
    voice_TM: Tensor | None = None
    heard: Tensor | None = None
    first: int | None = None


@dataclass(slots=True)
class Track:
    """What a row has said: its patches, the probability of the end before each (and after the last), the deviation of each; why it ended, None while
    it has not."""

    guard: Guard
    patches: list[Tensor] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    stds: list[float] = field(default_factory=list)
    reason: str | None = None


@torch.inference_mode()
def speak(model: SpeechLM, prompts: Sequence[Prompt], temperature: float) -> Iterator[list[Track]]:
    """Says all prompts at once; gives the tracks of all, in order, after each step, until all have ended."""
    output = model.speech_output
    noise = Seeded([prompt.seed for prompt in prompts])
    tracks = [Track(prompt.guard) for prompt in prompts]
    rows = _Rows(model, prompts, noise)
    alive = tracks
    h_BD = rows.first_BD
    while True:
        said = output.say(h_BD, noise, temperature)
        stops, ends, stds = said.stop_N.tolist(), said.end_N.tolist(), [] if said.std_N is None else said.std_N.tolist()
        for row, track in enumerate(alive):
            if track.reason is not None:
                continue
            track.stops.append(stops[row])
            if track.guard.may_stop(len(track.patches)) and ends[row]:
                track.reason = "stop"
                continue
            track.patches.append(said.patch_NX[row])
            if stds:
                track.stds.append(stds[row])
            track.reason = track.guard.check(output.frames(said.patch_NX[row : row + 1]))
        yield tracks
        at_work = [row for row, track in enumerate(alive) if track.reason is None]
        if not at_work:
            return
        patch_NX = said.patch_NX
        if len(at_work) <= COMPACT_AT * len(alive):
            rows.select(at_work)
            noise.select(at_work)
            alive, patch_NX = [alive[row] for row in at_work], patch_NX[at_work]
        h_BD = rows.advance(output.read(patch_NX, noise))


class _Rows:
    """Left-padded prompts that were read, and the patches read since. first_BD: the state after each prompt."""

    def __init__(self, model: SpeechLM, prompts: Sequence[Prompt], noise: Seeded) -> None:
        self.model = model
        self.backbone = model.llm.get_decoder() if hasattr(model.llm, "get_decoder") else model.llm.base_model
        self.cache = roomy_cache(model.config.text_config.num_hidden_layers, max(prompt.guard.most for prompt in prompts) + 1)
        width = max(len(prompt.example.input_ids) for prompt in prompts)
        x_BLD = torch.stack([_padded(self._embed(prompt, row, noise), width) for row, prompt in enumerate(prompts)])
        positions = [prompt.example.positions or list(range(len(prompt.example.input_ids))) for prompt in prompts]
        position_BL = torch.stack([_padded(torch.tensor(each, device=model.device), width) for each in positions])
        self.valid_BK = torch.stack([_padded(torch.ones(len(each), dtype=torch.bool, device=model.device), width) for each in positions])
        config = model.config
        at_speech = [torch.tensor(prompt.example.input_ids, device=model.device) == config.speech_token_id for prompt in prompts]
        mask = padded_mask(self.valid_BK, torch.stack([_padded(each, width) for each in at_speech]), config.speech_attention == "bidirectional")
        self.first_BD = self._run(x_BLD, position_BL, mask)
        self.first = [position_L[-1] + 1 if prompt.first is None else prompt.first for prompt, position_L in zip(prompts, positions, strict=True)]
        self.speeds, self.said = [prompt.example.speed for prompt in prompts], 0

    def _embed(self, prompt: Prompt, row: int, noise: Seeded) -> Tensor:
        """A row of its own draws from the row's own generator."""
        ids = torch.tensor([prompt.example.input_ids], device=self.model.device)
        voice = {}
        if prompt.voice_TM is not None:
            voice = {"spoken": prompt.voice_TM.to(self.model.device), "noise": noise.of(row)}
            voice["spoken_lengths_U"] = torch.tensor([len(prompt.voice_TM)], device=self.model.device)
        heard, lengths_U = None, None
        if prompt.heard is not None:
            heard, lengths_U = prompt.heard.to(self.model.device), torch.tensor([len(prompt.heard)], device=self.model.device)
        return self.model.embed(ids, heard, lengths_U, **voice)[0][0]

    def advance(self, x_BD: Tensor) -> Tensor:
        """Read a patch a row; the state after it, [B, D]."""
        self.valid_BK = torch.cat([self.valid_BK, self.valid_BK.new_ones(len(self.valid_BK), 1)], 1)
        position_B = [first + round(self.said * speed) for first, speed in zip(self.first, self.speeds, strict=True)]
        self.said += 1
        position_B1 = torch.tensor(position_B, device=x_BD.device)[:, None]
        return self._run(x_BD[:, None].to(self.model.dtype), position_B1, self.valid_BK[:, None, None, :])

    def _run(self, x_BLD: Tensor, position_BL: Tensor, allowed_B1LK: Tensor) -> Tensor:
        place_BK = self.valid_BK.long().cumsum(1) - 1  # how far back is counted in places, as in training; positions may be spread
        back_BLK = place_BK[:, -x_BLD.shape[1] :, None] - place_BK[:, None]
        mask = for_layers(allowed_B1LK, back_BLK, self.model.config.text_config)
        if self.model.llm.config._attn_implementation == "eager":
            mask = added(mask, self.model.dtype)
        out = self.backbone(inputs_embeds=x_BLD, attention_mask=mask, position_ids=position_BL, past_key_values=self.cache, use_cache=True)
        return out.last_hidden_state[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows."""
        index = torch.tensor(rows, device=self.valid_BK.device)
        for layer in self.cache.layers:
            layer.select(index)
        self.valid_BK = self.valid_BK[index]
        self.first, self.speeds = [self.first[row] for row in rows], [self.speeds[row] for row in rows]


def _padded(x: Tensor, width: int) -> Tensor:
    """Zeros on the left."""
    return torch.cat([x.new_zeros(width - len(x), *x.shape[1:]), x])
