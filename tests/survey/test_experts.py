"""Experts that a router chooses: each has its own scales, as each of the dense form has."""

import pytest
import torch
from torch import nn
from torch.nn.functional import silu

import regauge

EXPERTS, UNITS, WIDTH = 5, 3, 4


class Mixture(nn.Module):
    """Two of five gated experts; weights gathered by index, or all experts computed and masked."""

    def __init__(self, dense: bool, bias: bool = False) -> None:
        super().__init__()
        self.dense = dense
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.up = nn.Parameter(torch.randn(EXPERTS, 2 * UNITS, WIDTH))
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, UNITS))
        self.bias = nn.Parameter(torch.randn(EXPERTS, 2 * UNITS)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.router(x).sigmoid().topk(2, -1)
        if self.dense:
            share = torch.zeros(len(x), EXPERTS).scatter(1, chosen, weights)
            gate, up = torch.einsum("td,efd->tef", x, self.up).chunk(2, -1)
            return torch.einsum("tef,edf,te->td", silu(gate) * up, self.down, share)
        rows = x.repeat_interleave(2, 0)
        both = torch.bmm(self.up[chosen.flatten()], rows.unsqueeze(-1)).squeeze(-1)
        if self.bias is not None:
            both = both + self.bias[chosen.flatten()]
        gate, up = both.chunk(2, -1)
        out = torch.bmm(self.down[chosen.flatten()], (silu(gate) * up).unsqueeze(-1)).squeeze(-1)
        return (out * weights.reshape(-1, 1)).view(len(x), 2, WIDTH).sum(1)


@pytest.mark.parametrize(("dense", "bias"), [(True, False), (False, False), (False, True)])
def test_every_expert_has_its_own_scales(dense, bias):
    torch.manual_seed(0)
    model, x = Mixture(dense, bias).eval(), torch.randn(97, WIDTH)
    gauge = regauge.infer(model, (x,))
    assert gauge.dim == EXPERTS * UNITS
    assert regauge.check.sound(model, (x,), gauge).ok
    tight = regauge.check.tight(model, (x,), gauge, seeds=(0,))
    assert tight.ok, str(tight)


class Chooser(nn.Module):
    """An index that arithmetic made: places beyond a threshold fall to a last row, as a sparse indexer marks them."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.table, self.read = nn.Linear(3, 6), nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.score(x).argmax(-1)
        return self.read(self.table[torch.where(found >= 4, torch.full_like(found, -1), found)])


def test_an_index_that_arithmetic_made_keeps_its_order():
    torch.manual_seed(0)
    model, x = Chooser().eval(), torch.randn(97, 3)
    gauge = regauge.infer(model, (x,))
    assert regauge.check.sound(model, (x,), gauge).ok
