"""What speech outputs share that read and say normalised mel frames.

Shapes: see speech_output.py; R frames a patch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from melcli.errors import ConfigError, nearest
from melcli.models.mel_norm import GlobalNorm
from melcli.models.noise import Noise
from melcli.models.postnet import PostNet
from melcli.models.prenet import PreNet
from melcli.models.speech_output import SpeechOutput, check_numbers
from melcli.models.spoken_layout import Layout

LOUDEST = 1000.0  # no log-mel value is beyond, up or down


class MelOutput(SpeechOutput):
    """Base of those outputs: normalisation, pre-net and post-net.

    norm: `global` for per-bin statistics of the training data, or `none`. frames: of a patch. prenet, dropout: width and dropout of the pre-net.
    postnet, postnet_layers: channels and layers of the convolutions, 0 layers for none. floor: recorded frames are raised to this log-mel value, in
    the units of the mel specification; None leaves them. Digital silence, 8 orders of magnitude below speech, is else nearly all a squared error
    sees. reads: numbers of a patch that the pre-net reads; unless given, a patch is its frames end to end, X = R x M.
    """

    def __init__(
        self,
        width: int,
        n_mels: int,
        *,
        frames: int = 1,
        norm: str = "global",
        floor: float | None = None,
        prenet: int = 256,
        dropout: float = 0.5,
        postnet: int = 256,
        postnet_layers: int = 5,
        reads: int | None = None,
    ) -> None:
        super().__init__()
        if norm not in ("global", "none"):
            raise ConfigError(f"model.speech_output.norm: '{norm}' is unknown; valid: global, none.{nearest(norm, ('global', 'none'))}")
        check_numbers(1, whole=True, frames=frames, prenet=prenet, postnet=postnet)
        check_numbers(0, whole=True, postnet_layers=postnet_layers)
        if floor is not None:
            check_numbers(-LOUDEST, below=LOUDEST, floor=floor)
        check_numbers(0, below=1, dropout=dropout)
        self.stride, self.n_mels, self.floor = frames, n_mels, floor
        self.normalise = GlobalNorm(n_mels) if norm == "global" else None
        self.prenet = PreNet(reads or frames * n_mels, prenet, width, dropout)
        self.postnet = PostNet(n_mels, postnet, postnet_layers) if postnet_layers else None
        self.context = self.postnet.context if self.postnet is not None else 0

    def measure(self, mels: Sequence[Tensor]) -> None:
        if self.normalise is not None:
            mel_FM = self.raised(torch.cat([mel_TM.double() for mel_TM in mels]))
            self.normalise.set(mel_FM.mean(0).float(), mel_FM.std(0).float())

    def raised(self, mel_FM: Tensor) -> Tensor:
        return mel_FM if self.floor is None else mel_FM.clamp_min(self.floor)

    def normal(self, mel_FM: Tensor) -> Tensor:
        """Frames in the units that the model works in."""
        return self._scaled(self.raised(mel_FM))

    def _scaled(self, mel_FM: Tensor) -> Tensor:
        mel_FM = mel_FM.float()
        return mel_FM if self.normalise is None else (mel_FM - self.normalise.global_mean) * self.normalise.global_invstd

    def units(self, y_FM: Tensor) -> Tensor:
        """Its inverse: frames in the units of the mel specification."""
        return y_FM.float() if self.normalise is None else y_FM.float() / self.normalise.global_invstd + self.normalise.global_mean

    def embed(self, mel_FM: Tensor, frames_U: Tensor, noise: Noise) -> Tensor:
        return self.prenet(Layout.of(frames_U, self.stride).patches(self.normal(mel_FM)).flatten(1), noise)

    def read(self, patch_NX: Tensor, noise: Noise) -> Tensor:
        return self.prenet(patch_NX, noise)

    def frames(self, patches_PX: Tensor) -> Tensor:
        return self.units(patches_PX.reshape(-1, self.n_mels))

    def polish(self, mel_TM: Tensor) -> Tensor:
        if self.postnet is None:
            return mel_TM
        return self.units(self.postnet(self._scaled(mel_TM), torch.tensor([len(mel_TM)], device=mel_TM.device)))

    def regression(self, said_PRM: Tensor, y_FM: Tensor, frames_U: Tensor, layout: Layout, count: Tensor | int) -> Tensor:
        """L1 + L2 of frames before and after the post-net."""
        said_FM = layout.frames(said_PRM).float()
        gaps = [said_FM - y_FM]
        if self.postnet is not None:
            gaps.append(self.postnet(said_FM, frames_U).float() - y_FM)
        return sum((gap.abs() + gap.square()).sum() for gap in gaps) / (count * self.n_mels)
