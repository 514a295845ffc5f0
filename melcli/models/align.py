"""Forced alignment: which frames of the CTC head say which class of a known text.

Viterbi over the CTC states (Graves et al. 2006, "Connectionist Temporal Classification"), all utterances of a batch at once: torchaudio has the same
in its compiled part, which not every installation can load.
Shapes: U utterances, T frames of the longest, C classes (the blank is the last), K states: a blank before, between and after the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

NEVER = -1e30


@torch.inference_mode()
def align(log_probs: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> list[list[tuple[int, int]] | None]:
    """For each utterance the frames (first, last + 1) of each class of its target; None where it has too few frames for it.

    log_probs: of each utterance [frames, C]. targets: classes, no blanks.
    """
    if not log_probs:
        return []
    blank = log_probs[0].shape[-1] - 1
    device = log_probs[0].device
    frames = [len(one) for one in log_probs]
    states = [2 * len(target) + 1 for target in targets]
    most = max(3, *states)  # two states are skipped at most
    classes_UK = torch.full((len(targets), most), blank, device=device)
    skips_UK = torch.zeros(len(targets), most, dtype=torch.bool, device=device)  # whether a state can be reached past the blank before it
    for row, target in enumerate(targets):
        if target:
            classes_UK[row, 1 : 2 * len(target) : 2] = torch.tensor(target, device=device)
    skips_UK[:, 3::2] = classes_UK[:, 3::2] != classes_UK[:, 1:-2:2]
    scores_UTK = pad_sequence(list(log_probs), batch_first=True).float().gather(2, classes_UK[:, None].expand(-1, max(frames), -1))
    best_UK = torch.full((len(targets), most), NEVER, device=device)
    best_UK[:, :2] = scores_UTK[:, 0, :2]
    came = torch.zeros(max(frames), len(targets), most, dtype=torch.int8)
    ends: list[Tensor | None] = [best_UK[row].clone() if count == 1 else None for row, count in enumerate(frames)]
    for frame in range(1, max(frames)):
        one_UK = torch.nn.functional.pad(best_UK[:, :-1], (1, 0), value=NEVER)
        two_UK = torch.nn.functional.pad(best_UK[:, :-2], (2, 0), value=NEVER).masked_fill(~skips_UK, NEVER)
        best_UK, back_UK = torch.stack([best_UK, one_UK, two_UK]).max(0)
        best_UK = best_UK + scores_UTK[:, frame]
        came[frame] = back_UK.cpu()
        for row, count in enumerate(frames):
            if count == frame + 1:
                ends[row] = best_UK[row].clone()
    return [_walk(came[:, row].numpy(), ends[row], count, k, len(t)) for row, (count, k, t) in enumerate(zip(frames, states, targets, strict=True))]


def _walk(came_TK, end_K: Tensor | None, frames: int, states: int, classes: int) -> list[tuple[int, int]] | None:
    """Back along the best path: the frames of each odd state."""
    if end_K is None or not classes:
        return [] if not classes else None
    last, before = float(end_K[states - 1]), float(end_K[states - 2])
    if max(last, before) < NEVER / 2:
        return None
    state = states - 1 if last >= before else states - 2
    spans = [(0, 0)] * classes
    for frame in range(frames - 1, -1, -1):
        if state % 2:
            until = spans[state // 2][1] or frame + 1
            spans[state // 2] = (frame, until)
        state -= int(came_TK[frame, state])
    return spans
