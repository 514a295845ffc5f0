"""Spectron's frames by regression, with losses on their differences over bins and over time (arXiv 2305.15255; structure of the loss as reported).

Shapes: see speech_output.py; R frames a patch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from melcli.models.mel_output import MelOutput
from melcli.models.noise import Noise
from melcli.models.speech_output import Said, check_numbers, stop_loss
from melcli.models.spoken_layout import Layout


class SpectrogramOutput(MelOutput):
    """An MLP from the state to the next patch, which is read again through a pre-net with a bottleneck. Nothing is drawn but the pre-net's dropout.

    With L(a, b) = |a - b| + (a - b)^2, y the true frames and y' those said, each a mean over the numbers that there are:
      mel      L(y, y')
      feature  L of the differences of neighbouring bins, y[:, 1:] - y[:, :-1]; left out where `feature_deltas` is false
      time     sum over k = 1 to K of L of differences in time, y[k:] - y[:-k], none of them across two utterances; `time_deltas` is K, 0 for none.
               An utterance of k frames or fewer has none.
      stop     binary cross entropy of the end, which the state after the last patch says, counting `stop_positive` times: `stop_weight`
    The first three weigh `weight`, beside 1 for the cross entropy of the text. Where there are convolutions after it (`postnet_layers`, none in the
    paper), the three are of the frames before and after them. prenet: width of the bottleneck; its dropout is 0 in the paper as far as is known.
    hidden: of the MLP that writes.
    """

    parts = ("mel", "feature", "time", "stop")

    def __init__(
        self,
        width: int,
        n_mels: int,
        *,
        frames: int = 1,
        norm: str = "global",
        floor: float | None = None,
        prenet: int = 64,
        dropout: float = 0.0,
        hidden: int = 512,
        postnet: int = 256,
        postnet_layers: int = 0,
        time_deltas: int = 3,
        feature_deltas: bool = True,
        weight: float = 0.1,
        stop_weight: float = 1.0,
        stop_positive: float = 5.0,
    ) -> None:
        super().__init__(
            width, n_mels, frames=frames, norm=norm, floor=floor, prenet=prenet, dropout=dropout, postnet=postnet, postnet_layers=postnet_layers
        )
        check_numbers(1, whole=True, hidden=hidden)
        check_numbers(0, whole=True, time_deltas=time_deltas)
        check_numbers(0, weight=weight, stop_weight=stop_weight, stop_positive=stop_positive)
        self.write = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, frames * n_mels))
        self.stop = nn.Linear(width, 1)
        self.time_deltas, self.feature_deltas = time_deltas, bool(feature_deltas)
        self.weight, self.stop_weight, self.stop_positive = weight, stop_weight, stop_positive

    def weights(self, step: int | None) -> dict[str, float]:
        return {**dict.fromkeys(("mel", "feature", "time"), self.weight), "stop": self.stop_weight}

    def counted(self, frames_U: Tensor) -> dict[str, int]:
        """Pairs of frames that are k apart in one utterance, by k."""
        return {f"pairs_{k}": int((frames_U - k).clamp_min(0).sum()) for k in range(1, self.time_deltas + 1)}

    def losses(self, h_SD: Tensor, mel_FM: Tensor, frames_U: Tensor, counts: Mapping[str, Tensor | int], noise: Noise) -> dict[str, Tensor]:
        layout = Layout.of(frames_U, self.stride)
        y_FM = self.normal(mel_FM)
        said_FM = layout.frames(self._patches(h_SD[layout.predicts_P]).view(-1, self.stride, self.n_mels))
        gaps = [said_FM - y_FM]
        if self.postnet is not None:
            gaps.append(self.postnet(said_FM, frames_U).float() - y_FM)
        frames, pairs = counts["frames"], self.counted(frames_U) | dict(counts)
        utterance_F = torch.repeat_interleave(torch.arange(len(frames_U), device=mel_FM.device), frames_U, output_size=len(mel_FM))
        parts = {name: said_FM.new_zeros(()) for name in ("mel", "feature", "time")}
        for gap_FM in gaps:  # differences are linear: that of two is the gap of their differences
            parts["mel"] = parts["mel"] + mean(gap_FM, frames)
            if self.feature_deltas and self.n_mels > 1:
                parts["feature"] = parts["feature"] + mean(gap_FM[:, 1:] - gap_FM[:, :-1], frames)
            for k in range(1, self.time_deltas + 1):
                parts["time"] = parts["time"] + mean(time_difference(gap_FM, utterance_F, k), pairs[f"pairs_{k}"])
        return parts | {"stop": stop_loss(self.stop(h_SD)[:, 0], layout.ends_S, self.stop_positive, counts["states"])}

    def _patches(self, h_ND: Tensor) -> Tensor:
        return self.write(h_ND.to(self.stop.weight.dtype)).float()

    def say(self, h_ND: Tensor, noise: Noise, temperature: float = 1.0) -> Said:
        stop_N = self.stop(h_ND.to(self.stop.weight.dtype))[:, 0].float().sigmoid()
        return Said(self._patches(h_ND), stop_N, stop_N > 0.5)


def mean(gap_NM: Tensor, count: Tensor | int) -> Tensor:
    """|gap| + gap^2 summed, over `count` rows; 0 where there are none."""
    count = count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1)
    return (gap_NM.abs() + gap_NM.square()).sum() / (count * gap_NM.shape[-1])


def time_difference(gap_FM: Tensor, utterance_F: Tensor, k: int) -> Tensor:
    """Of each frame from the one k before it, where both are of the same utterance; none where all utterances are of k frames or fewer."""
    return (gap_FM[k:] - gap_FM[:-k])[utterance_F[k:] == utterance_F[:-k]]
