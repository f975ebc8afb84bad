"""Axes that a model joins for a while: the answer is that of the model that never joins them."""

import pytest
import torch
from torch import nn

import regauge
from regauge.graph.flattening import factors, refined


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((7, 11, 24), (308, 6), ((7, 11, 4), (6,))),
        ((308, 6), (7, 11, 24), ((7,), (11,), (4, 6))),
        ((7, 1, 24), (7, 24), ((7,), (24,))),
        ((2, 3), (3, 2), None),
        ((6,), (1, 6, 1), ((1,), (6,), (1,))),
    ],
)
def test_factors(old, new, expected):
    assert factors(old, new) == expected


def test_two_ways_of_joining_share_their_finest_factors():
    assert refined((7, 11, 4), (7, 11, 2, 2)) == (7, 11, 2, 2)
    assert refined((4, 6), (2, 12)) == (2, 2, 6)
    assert refined((2, 3), (3, 2)) is None


class GatedHeads(nn.Module):
    """A norm within each head, times a gate; every time reads the ones before it, one row after another."""

    def __init__(self, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.value, self.gate, self.out = nn.Linear(5, 12), nn.Linear(5, 12, bias=False), nn.Linear(12, 3)
        self.gain = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1, 4) if self.joined else (*x.shape[:2], 3, 4)
        rows = [x[:, 0]]
        for i in range(1, x.shape[1]):
            rows.append(x[:, i] + 0.5 * rows[-1])
        value = self.value(torch.stack(rows, 1)).reshape(shape)
        value = self.gain * value * torch.rsqrt(value.pow(2).mean(-1, keepdim=True) + 1e-6)
        gated = value * torch.nn.functional.silu(self.gate(x).reshape(shape))
        return self.out(gated.reshape(*x.shape[:2], 12))


def test_joined_axes_change_nothing():
    torch.manual_seed(0)
    x = torch.randn(7, 11, 5)
    joined, apart = (GatedHeads(j).eval() for j in (True, False))
    one, other = (regauge.infer(m, (x,)) for m in (joined, apart))
    assert one.dim == other.dim
    assert [str(b.group) for b in one.bonds] == [str(b.group) for b in other.bonds]
    assert regauge.check.sound(joined, (x,), one).ok
    tight = regauge.check.tight(joined, (x,), one, seeds=(0,))
    assert tight.ok, str(tight)
