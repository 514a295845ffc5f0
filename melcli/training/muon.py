"""Muon for the matrices of hidden layers and AdamW for everything else, as one optimizer.

Muon (Jordan et al., 2024; as torch.optim.Muon) takes the momentum of a matrix with all its singular values drawn towards one. Steps are scaled to the
size of AdamW's (Liu et al., 2025, arXiv 2502.16982), so both have one learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from melcli.errors import CheckpointError

MOMENTUM = 0.95
ENDS = ("lm_head", "embed_out", "ctc_head", "spoken_ctc_head", "codes", "stop")  # modules whose matrices are classifiers, which AdamW takes


class Several(Optimizer):
    """Optimizers of different parameters that a scheduler, a trainer and a checkpoint see as one."""

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = list(parts)
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    @param_groups.setter
    def param_groups(self, value: object) -> None:
        """The base class would keep groups of its own."""

    @property
    def state(self) -> dict[Tensor, Any]:
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    @state.setter
    def state(self, value: object) -> None:
        """The base class would keep a state of its own."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """The base class adds all parameters as it is made; each has its part already."""

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises CheckpointError for the state of another kind of optimizer."""
        if len(state_dict.get("parts", ())) != len(self.parts):
            raise CheckpointError("what the checkpoint keeps of its optimizer is not Muon's")
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def muon_and_adamw(model: nn.Module, decayed: set[str], lr: float, betas: tuple[float, float], weight_decay: float) -> Several:
    """The optimizer of a model's trained parameters. decayed: names of those that are drawn towards zero, as those of norms and biases are not."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices, others, plain = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        end = name.split(".")[-2] if "." in name else ""
        hidden = parameter.dim() == 2 and min(parameter.shape) > 1 and id(parameter) not in tables and end not in ENDS
        (plain if name not in decayed else matrices if hidden else others).append(parameter)
    groups = [{"params": others, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    parts: list[Optimizer] = []
    if groups := [group for group in groups if group["params"]]:
        parts.append(AdamW(groups, lr=lr, betas=betas, fused=True))
    if matrices:
        parts.append(Muon(matrices, lr=lr, weight_decay=weight_decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"))
    return Several(parts)
