"""Where speech that is said lies: frames in patches, patches in the sequence, and the states that each is predicted from.

A stretch of P patches is predicted by P + 1 states of the language model: the one before the first patch and those that have read a patch each. State
k predicts patch k + 1, and the last predicts that nothing follows.
Shapes: U stretches, F frames of all, P patches of all, R frames a patch, S states of all (P + U), M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Layout:
    """patches_U: of each stretch. frame_PR: the frame in each place of a patch; past the end of a stretch its last frame again.

    valid_PR: where it is not past the end. predicts_P: the state that predicts each patch. ends_S: the states after the last patch.
    """

    patches_U: Tensor
    frame_PR: Tensor
    valid_PR: Tensor
    predicts_P: Tensor
    ends_S: Tensor

    @classmethod
    def of(cls, frames_U: Tensor, stride: int) -> Layout:
        """That of stretches of so many frames in patches of `stride`."""
        device = frames_U.device
        patches_U = -(-frames_U // stride)
        total = int(patches_U.sum())
        stretch_P = torch.repeat_interleave(torch.arange(len(frames_U), device=device), patches_U, output_size=total)
        before_U = torch.cumsum(patches_U, 0) - patches_U
        inside_P = torch.arange(total, device=device) - before_U[stretch_P]
        place_PR = inside_P[:, None] * stride + torch.arange(stride, device=device)
        last_P1 = (frames_U - 1)[stretch_P, None]
        first_P1 = (torch.cumsum(frames_U, 0) - frames_U)[stretch_P, None]
        predicts_P = torch.arange(total, device=device) + stretch_P
        ends_S = torch.ones(total + len(frames_U), dtype=torch.bool, device=device)
        ends_S[predicts_P] = False
        return cls(patches_U, first_P1 + torch.minimum(place_PR, last_P1), place_PR <= last_P1, predicts_P, ends_S)

    @property
    def first_PR(self) -> Tensor:
        """True where a place holds the first frame of a stretch."""
        first_P = torch.zeros(len(self.frame_PR), dtype=torch.bool, device=self.frame_PR.device)
        first_P[torch.cumsum(self.patches_U, 0) - self.patches_U] = True
        first_PR = torch.zeros_like(self.valid_PR)
        first_PR[:, 0] = first_P
        return first_PR

    def patches(self, mel_FM: Tensor) -> Tensor:
        """Frames in patches, [P, R, M]; the last of a stretch is filled up with its last frame, which is what silence sounds like."""
        return mel_FM[self.frame_PR]

    def before(self, mel_FM: Tensor) -> Tensor:
        """The frame before each frame of `patches`; at the first of a stretch, where there is none, any."""
        return mel_FM[(self.frame_PR - 1).clamp_min(0)]

    def frames(self, patches_PRM: Tensor) -> Tensor:
        """The frames that patches hold, [F, M], without what fills up the last ones."""
        return patches_PRM[self.valid_PR]


def after_voices(voice_FM: Tensor, voice_U: Tensor, said_FM: Tensor, said_U: Tensor) -> tuple[Tensor, Tensor]:
    """Frames of stretches with those of the voice prompt before each (of 0 frames for none), as twice as many stretches, and how many each has."""
    pairs = zip(voice_FM.split(voice_U.tolist()), said_FM.split(said_U.tolist()), strict=True)
    return torch.cat([mel_TM for pair in pairs for mel_TM in pair]), torch.stack([voice_U, said_U], 1).flatten()


def said_mask(voice_U: Tensor, said_U: Tensor, stride: int) -> Tensor:
    """Of the states of stretches after voice prompts: False at those that predict patches of a prompt."""
    counts = torch.stack([-(-voice_U // stride), -(-said_U // stride) + 1], 1).flatten()
    return (torch.arange(len(counts), device=counts.device) % 2 == 1).repeat_interleave(counts)


def state_mask(at_spoken_BL: Tensor) -> Tensor:
    """True at the states of spoken stretches: where one stands and right before its first position."""
    mask_BL = at_spoken_BL.clone()
    mask_BL[:, :-1] |= at_spoken_BL[:, 1:]
    return mask_BL
