"""Rows of one source at the places of a mask: what a model that sees puts between its tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import regauge


class Seeing(nn.Module):
    """Features of an image in the places of token 0, then a norm and a head."""

    def __init__(self, expanded: bool) -> None:
        super().__init__()
        self.expanded = expanded
        self.embed, self.see = nn.Embedding(7, 5), nn.Linear(3, 5)
        self.gain, self.head = nn.Parameter(torch.rand(5)), nn.Linear(5, 6)

    def forward(self, tokens: Tensor, image: Tensor) -> Tensor:
        x = self.embed(tokens)
        mask = (tokens == 0).unsqueeze(-1)
        mask = mask.expand_as(x) if self.expanded else mask
        x = x.masked_scatter(mask, self.see(image))
        return self.head(self.gain * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1))


@pytest.mark.parametrize("expanded", [True, False])
def test_whole_rows_move_together(expanded: bool) -> None:
    """The stream keeps O(5) and the gain goes into the head, whichever way the mask is written."""
    call = (torch.tensor([[0, 3, 0, 1, 2], [4, 0, 5, 6, 0]]), torch.randn(2, 2, 3))
    model = Seeing(expanded)
    gauge = regauge.infer(model, call)
    assert gauge.dim == 5 * 4 // 2 + 5 and "O(5)" in str(gauge["embed.weight"])
    assert regauge.check.sound(model, call, gauge).ok
