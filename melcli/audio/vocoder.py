"""From mel spectrograms to audio: what every vocoder is, how one is found by name, and how one is fed in pieces.

Shapes: B batch, T mel frames, M mel bins, S samples.

    vocoder = load_vocoder("auto", preset("speecht5"))
    wave_BS = vocoder(mel_BTM)

A vocoder reads exactly one MelSpec and refuses every other. Frame t of its mel stands for the samples from t * hop on, and T frames give
`samples_of(spec, T)` samples: the fewest that have T frames again, so that mel -> audio -> mel keeps its length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from melcli import registry
from melcli.audio.mel_spec import PRESETS, MelSpec
from melcli.errors import AudioError, ConfigError, nearest

KNEE = 0.95
"""Of full scale: what is below comes out as it is."""

OWN, ALWAYS = "tiny-vocoder", "griffin-lim"
"""What `auto` takes: ours where the mel is the one it reads, else the one that reads any."""


def samples_of(spec: MelSpec, frames: int) -> int:
    """Samples of the audio that a vocoder makes of so many frames: those that the frames of a recording of this length are centred on."""
    if frames <= 0:
        return 0
    return max(0, (frames - 1 + spec.drop_last) * spec.hop_length + spec.span - 2 * spec.fft_pad)


class Vocoder(ABC):
    """Audio from log-mel frames as `spec` says they are.

    context: frames before and after a sample's own that it depends on; further ones change nothing.
    """

    family: ClassVar[str]  # its name in the registry
    spec: MelSpec
    context: int

    def __init__(self, spec: MelSpec, context: int, device: str | torch.device = "cpu") -> None:
        self.spec = spec
        self.context = context
        self.device = torch.device(device)

    @classmethod
    @abstractmethod
    def open(cls, source: str | None, spec: MelSpec, *, device: str, offline: bool) -> Vocoder:
        """A vocoder of this family. source: folder or hub id; None for the published or embedded one that reads `spec`."""

    @abstractmethod
    def wave(self, mel_BTM: Tensor, first: int = 0) -> Tensor:
        """wave_BS of rows of one length, T at least 1, finite: at least `samples_of` samples, from that of frame 0 on; more are cut off.

        first: which frame of the whole mel the first one is, for vocoders with noise, which belongs to a place.
        """

    @torch.inference_mode()
    def __call__(self, mel_BTM: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """wave_BS, float32 in [-1, 1] on the vocoder's device; S is `samples_of(spec, T)`.

        frames_B: true lengths, all T by default. A row's audio does not depend on what it is batched with, and is zero after its own end.
        Raises AudioError where the mel has NaN or infinite values or another number of bins.
        """
        mel_BTM = self.checked(mel_BTM, 3)
        rows, frames, _ = mel_BTM.shape
        lengths = [frames] * rows if frames_B is None else [int(n) for n in frames_B]
        if len(lengths) != rows or not all(0 <= n <= frames for n in lengths):
            raise AudioError(f"frames_B holds {lengths}, and there are {rows} rows of {frames} frames")
        wave_BS = mel_BTM.new_zeros(rows, samples_of(self.spec, frames))
        for length in sorted(set(lengths) - {0}):
            # rows of one length at a time: convolutions see zeros after the end, not padding
            chosen = [row for row, n in enumerate(lengths) if n == length]
            samples = samples_of(self.spec, length)
            wave_BS[chosen, :samples] = self.finished(self.wave(mel_BTM[chosen, :length]))[:, :samples]
        return wave_BS

    def stream(self) -> VocoderStream:
        """A stream into which one mel is pushed piece by piece."""
        return VocoderStream(self)

    def checked(self, mel: Tensor, axes: int) -> Tensor:
        """The mel as float32 on the vocoder's device, with AudioError for one that cannot be."""
        if mel.dim() != axes or mel.shape[-1] != self.spec.n_mels:
            wanted = " x ".join(["rows", "frames", str(self.spec.n_mels)][3 - axes :])
            raise AudioError(f"{self.family} takes mel values of shape {wanted}, not {' x '.join(map(str, mel.shape))}")
        mel = mel.to(self.device, torch.float32)
        if not bool(torch.isfinite(mel).all()):
            raise AudioError("the mel spectrogram holds NaN or infinite values")
        return mel

    @staticmethod
    def finished(wave: Tensor) -> Tensor:
        """Samples as they are handed out, in [-1, 1]: peaks above KNEE are rounded off, sample by sample, so that none is cut."""
        wave = wave.float()
        return torch.where(wave.abs() <= KNEE, wave, wave.sign() * (KNEE + (1 - KNEE) * torch.tanh((wave.abs() - KNEE) / (1 - KNEE))))


class VocoderStream:
    """One mel in pieces, its audio in pieces: joined they are the whole call's within float tolerance, however it was cut.

    Each piece is computed with `context` frames on either side, so audio comes that many frames late, and small pieces cost more.
    """

    def __init__(self, vocoder: Vocoder) -> None:
        self.vocoder = vocoder
        self.held_TM = torch.empty(0, vocoder.spec.n_mels, device=vocoder.device)  # from frame `first` on
        self.first = 0
        self.ready = 0  # frames whose samples were returned
        self.flushed = False

    def push(self, mel_TM: Tensor) -> Tensor:
        """The next frames in; wave_S, the samples that they complete, out: there may be none."""
        if self.flushed:
            raise AudioError("the stream was flushed: a new mel needs a new stream")
        self.held_TM = torch.cat([self.held_TM, self.vocoder.checked(mel_TM, 2)])
        end = self.first + len(self.held_TM) - self.vocoder.context
        return self._samples(end, None) if end > self.ready else self.held_TM.new_empty(0)

    def flush(self) -> Tensor:
        """wave_S, the samples that are left. Nothing can be pushed afterwards."""
        if self.flushed:
            return self.held_TM.new_empty(0)
        self.flushed = True
        total = self.first + len(self.held_TM)
        return self._samples(total, samples_of(self.vocoder.spec, total)) if total else self.held_TM.new_empty(0)

    @torch.inference_mode()
    def _samples(self, ready: int, last: int | None) -> Tensor:
        """Those of the frames up to `ready`, or up to sample `last`."""
        hop, start = self.vocoder.spec.hop_length, self.first * self.vocoder.spec.hop_length
        wave_S = self.vocoder.finished(self.vocoder.wave(self.held_TM[None], self.first))[0]
        found_S = wave_S[self.ready * hop - start : (ready * hop if last is None else last) - start]
        self.ready = ready
        keep = max(0, ready - self.vocoder.context)
        self.held_TM, self.first = self.held_TM[keep - self.first :], keep
        return found_S


def refuse_other(name: str, reads: MelSpec, given: MelSpec) -> None:
    """Raises ConfigError, naming what differs, where a vocoder's mel is not the one it is to get."""
    if difference := given.difference(reads):
        raise ConfigError(f"vocoder {name} reads another mel specification: {difference} as it needs; {ALWAYS} reads any")


def load_vocoder(name: str, spec: MelSpec, *, device: str = "cpu", offline: bool = False) -> Vocoder:
    """The vocoder of that name, ready to use.

    name: `auto`, one of the registry, or a folder or hub id with the weights of one of its families, which its files tell.
    spec: what the mel is. Raises ConfigError naming what differs where the vocoder reads another, or where a package it needs is missing;
    CheckpointError where its weights are missing or broken.
    """
    if name == "auto":
        name = OWN if spec == PRESETS["speecht5"] and (registry.PACKAGE / "assets" / OWN / "model.safetensors").exists() else ALWAYS
    if name in registry.names("vocoder"):
        return registry.get("vocoder", name).load().open(None, spec, device=device, offline=offline)
    from melcli.audio.vocoder_files import is_source

    if not is_source(name):
        known = ["auto", *registry.names("vocoder")]
        raise ConfigError(
            f"no vocoder is called '{name}'.{nearest(name, known)} Valid are {', '.join(known)}, and a folder or hub id with one's weights."
        )
    return _family(name, offline).open(name, spec, device=device, offline=offline)


def _family(source: str, offline: bool) -> type[Vocoder]:
    from melcli.audio.vocoder_files import family_of

    return registry.get("vocoder", family_of(source, offline)).load()
