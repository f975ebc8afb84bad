"""Products that sum over more than the relation of an operand: a bag of looked-up rows is as many times one as it has rows."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import regauge

POOLED: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda y: y.mean(1),
    "sum": lambda y: y.sum(1),
    "each": lambda y: y,
}


class Bag(nn.Module):
    def __init__(self, pool: str) -> None:
        super().__init__()
        self.pool, self.table, self.head = POOLED[pool], nn.Embedding(9, 6), nn.Linear(6, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.pool(self.table(tokens)))


class Attended(nn.Module):
    """Averages of values, added up over the queries in the same product."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(7, 4), nn.Linear(7, 4), nn.Linear(7, 6), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.q(x) @ self.k(x).mT, -1)
        return self.out(torch.einsum("bqk,bkd->bd", weights, self.v(x)))


@pytest.mark.parametrize("pool", POOLED)
def test_a_bag_of_rows_moves_as_often_as_it_has_rows(pool: str) -> None:
    torch.manual_seed(0)
    model, x = Bag(pool), torch.randint(0, 9, (30, 5))
    proved(model, x)


def test_averages_that_are_summed_move_as_often() -> None:
    torch.manual_seed(0)
    proved(Attended(), torch.randn(20, 3, 7))


class Everywhere(nn.Module):
    """Normed vectors with their sum over time: a mixing of positions whose weights sum to four."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return self.out(y + y.sum(1, keepdim=True))


def test_the_shift_of_a_norm_counts_as_often_as_it_is_added_up() -> None:
    torch.manual_seed(0)
    model, x = Everywhere(), torch.randn(20, 3, 6)
    nn.init.normal_(model.norm.bias)
    gauge = regauge.infer(model, (x,))
    proof = regauge.check.sound(model, (x,), gauge)
    assert proof.ok, proof


def proved(model: nn.Module, x: Tensor) -> None:
    gauge = regauge.infer(model, (x,))
    proof = regauge.check.sound(model, (x,), gauge)
    assert proof.ok, proof
    tight = regauge.check.tight(model, (x,), gauge)
    assert tight.ok, tight
