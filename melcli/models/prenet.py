"""What a speech output does to a patch before the language model reads it.

Shapes: N patches, I numbers a patch, D model width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from melcli.models.noise import Noise


class PreNet(nn.Module):
    """Three linear layers with dropout after the first two, in training and when speaking alike (MELLE, arXiv 2407.08551, after arXiv 1712.05884).

    Without it a model copies what it has just said instead of looking at the text, and has no variety in what it says.
    """

    def __init__(self, size: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(size, hidden), nn.Linear(hidden, hidden)])
        self.out = nn.Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x_NI: Tensor, noise: Noise) -> Tensor:
        x = x_NI.to(self.out.weight.dtype)
        for layer in self.layers:
            x = F.relu(layer(x))
            if self.dropout:
                x = x * noise.keep(x, 1 - self.dropout)
        return self.out(x)
