"""Entries that are set to a very negative number: a softmax leaves them out, a mean does not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regauge

MASK = torch.tensor([False, True, False, False, True, False])
READERS: dict[str, Callable[[Tensor], Tensor]] = {
    "centred": lambda y: (y - y.mean(-1, keepdim=True))[..., :3].sin(),
    "deviation": lambda y: y.std(-1),
    "softmax": lambda y: y.softmax(-1),
    "halved, with an offset": lambda y: (y / 2 + torch.arange(6.0)).softmax(-1),
    "log_softmax": lambda y: y.log_softmax(-1),
    "both": lambda y: y.softmax(-1) + (y - y.mean(-1, keepdim=True)).cos(),
}


class Dropped(nn.Module):
    def __init__(self, read: str) -> None:
        super().__init__()
        self.read = READERS[read]
        self.linear = nn.Linear(7, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.linear(x).masked_fill(MASK, -1e4))


@pytest.mark.parametrize("read", READERS)
def test_what_is_dropped_counts_unless_it_is_weighed_by_a_softmax(read: str) -> None:
    torch.manual_seed(0)
    model, x = Dropped(read), torch.randn(20, 7)
    gauge = regauge.infer(model, (x,))
    proof = regauge.check.sound(model, (x,), gauge)
    assert proof.ok, proof
    assert gauge.dim == (8 if read in ("softmax", "halved, with an offset") else 0)  # a row that is common to all units
