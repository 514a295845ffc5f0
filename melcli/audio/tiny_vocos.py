"""Our own small vocoder as a vocoder: loaded, saved, called whole or in pieces.

Shapes: B batch, T mel frames, M mel bins, S samples.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from melcli.audio.mel_spec import MelSpec
from melcli.audio.tiny_vocos_net import TinyVocosConfig, TinyVocosNet, turns, white
from melcli.audio.vocoder import Vocoder, VocoderStream, refuse_other
from melcli.audio.vocoder_files import SAFE, check, fill, folder_of, settings, tensors
from melcli.errors import CheckpointError
from melcli.files import replacing, write_text
from melcli.registry import PACKAGE

EMBEDDED = PACKAGE / "assets" / "tiny-vocoder"
MODEL_TYPE = "tiny_vocos"


class TinyVocos(Vocoder):
    """Audio by a TinyVocosNet. The same mel always gives the same audio: its noise and its first pulse are fixed."""

    family = "tiny-vocoder"

    def __init__(self, net: TinyVocosNet, device: str | torch.device = "cpu") -> None:
        super().__init__(net.config.mel, net.config.reach, device)
        self.net = net.to(self.device).eval()

    @classmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> TinyVocos:
        folder = EMBEDDED if source is None else folder_of(source, offline)
        config = read_config(folder)
        refuse_other(source or cls.family, config.mel, spec)
        return cls(read_net(folder, config), device)

    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        return self.spoken(mel_BTM, first, mel_BTM.new_empty(len(mel_BTM), 0), None)[0]

    def spoken(self, mel_BTM: Tensor, first: int, known_BT: Tensor, turned_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """wave_BS, the pitch of each frame and the turns that the pulses have made at each.

        first: which frame of the whole the first one is. known_BT: pitches of the first frames where they are known. turned_B: turns at the first
        frame, 0 where None.
        """
        net, hop, rate = self.net, self.spec.hop_length, self.spec.rate
        level_BTM = net.levels(mel_BTM)
        hertz_BT = net.pitches(net.pitch_logits(level_BTM))
        hertz_BT[:, : known_BT.shape[1]] = known_BT
        turns_BT = turns(hertz_BT, hop, rate) + (0 if turned_B is None else turned_B[:, None])
        white_S = white(first, mel_BTM.shape[1] + 2, hop).to(self.device)
        wave_BS = net.render(*net.filters(level_BTM, hertz_BT), turns_BT, hertz_BT, white_S.expand(len(mel_BTM), -1))
        return wave_BS, hertz_BT, turns_BT

    def stream(self) -> TinyVocosStream:
        return TinyVocosStream(self)


class TinyVocosStream(VocoderStream):
    """Remembers, beside the frames, their pitches and the place of the pulses, which depend on everything before."""

    vocoder: TinyVocos

    def __init__(self, vocoder: TinyVocos) -> None:
        super().__init__(vocoder)
        self.pitches_T = self.held_TM.new_empty(0)  # of the held frames whose samples were returned
        self.turned = torch.zeros(1, dtype=torch.float64, device=vocoder.device)  # at the first held frame

    @torch.inference_mode()
    def _samples(self, ready: int, last: int | None) -> Tensor:
        hop, start = self.vocoder.spec.hop_length, self.first * self.vocoder.spec.hop_length
        wave_BS, hertz_BT, turns_BT = self.vocoder.spoken(self.held_TM[None], self.first, self.pitches_T[None], self.turned)
        found_S = self.vocoder.finished(wave_BS[0])[self.ready * hop - start : (ready * hop if last is None else last) - start]
        self.ready = ready
        keep = max(0, ready - self.vocoder.context)
        self.turned = turns_BT[:, min(keep - self.first, turns_BT.shape[1] - 1)]
        self.pitches_T = hertz_BT[0, keep - self.first : ready - self.first]
        self.held_TM, self.first = self.held_TM[keep - self.first :], keep
        return found_S


def read_config(folder: Path) -> TinyVocosConfig:
    """The settings in a folder. Raises CheckpointError."""
    fields = settings(folder)
    if fields.pop("model_type", None) != MODEL_TYPE:
        raise CheckpointError(f"{folder / 'config.json'}: its model_type is not {MODEL_TYPE!r}, which this vocoder's is")
    try:
        return TinyVocosConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f"{folder / 'config.json'}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_net(folder: Path, config: TinyVocosConfig) -> TinyVocosNet:
    """The network in a folder, float32. Raises CheckpointError."""
    found = tensors(folder)
    if max(config.layers, config.pitch_layers) > len(found):
        raise CheckpointError(f"{folder}: holds {len(found)} tensors, and its config.json tells of {max(config.layers, config.pitch_layers)} layers")
    with torch.device("meta"):  # sizes that a file claims take no memory
        check(TinyVocosNet(config), found, folder)
    net = TinyVocosNet(config)
    fill(net, found, folder)
    return net


def write(folder: Path, net: TinyVocosNet, dtype: torch.dtype = torch.float32) -> None:
    """Writes config.json and model.safetensors, each whole or not at all."""
    fields = {"model_type": MODEL_TYPE, **net.config.model_dump(mode="json")}
    with replacing(folder / SAFE) as temporary:
        save_file({name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in net.state_dict().items()}, temporary, {"format": "pt"})
    write_text(folder / "config.json", json.dumps(fields, indent=2) + "\n")
