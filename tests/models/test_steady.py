"""Layers over rows that are filled up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from melcli.models import steady


@pytest.mark.parametrize("rows", [0, 1, steady.ROWS - 1, steady.ROWS, steady.ROWS + 1])
def test_values_and_gradients_are_those_of_the_layer(rows: int) -> None:
    layer = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3))
    x = torch.randn(rows, 5, requires_grad=True)
    torch.testing.assert_close(steady.apply(layer, x), layer(x))
    wanted = torch.randn(rows, 3)
    parameters = [x, *layer.parameters()]
    found, meant = (torch.autograd.grad((wanted * y).sum(), parameters) for y in (steady.apply(layer, x), layer(x)))
    torch.testing.assert_close(found, meant)


def test_there_are_few_shapes() -> None:
    seen = set()

    def layer(x: torch.Tensor) -> torch.Tensor:
        seen.add(len(x))
        return x

    for rows in range(1, 1000):
        assert len(steady.apply(layer, torch.zeros(rows, 2))) == rows
    assert len(seen) == 8
