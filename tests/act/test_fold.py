"""Fold: gains exactly 1, shifts exactly 0, the function as it was."""

import pytest
import torch

from regauge import act
from regauge.act.fold import gains, shifts
from tests.act.models import assert_keeps, module_subject, subject

# model -> gains that become 1, shifts that become 0, and those that the group does not reach
FOLDS = {
    "res-layernorm": (3, 3, 0),
    "res-rmsnorm-nobias": (3, 0, 0),
    "llama-one-layer": (3, 0, 0),
    "llama-gqa": (5, 0, 0),
    "llama-gqa-tied": (4, 0, 1),  # the last gain stands before the tied head
    "gpt2": (5, 4, 1),  # the head has no bias for the last shift
    "encoder-post-gelu": (0, 1, 3),  # post-norm: gains stand in the stream
    "qknorm-rotary-gqa-eps0": (0, 0, 2),
    "gain-chain": (3, 0, 0),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folds_what_the_group_reaches(name: str) -> None:
    s = subject(name)
    image = assert_keeps(s, act.fold(s.gauge, s.state))
    plan = s.gauge.plan
    ones = [v for v in gains(plan) if bool((v.op.chart.forward(image[v.op.name]) == 1).all())]
    zeros = [v for v in shifts(plan) if bool((image[v.op.name] == 0).all())]
    rest = len(gains(plan)) + len(shifts(plan)) - len(ones) - len(zeros)
    assert (len(ones), len(zeros), rest) == FOLDS[name]


def test_folded_gains_are_one_in_low_precision() -> None:
    s = subject("llama-gqa")
    low = {n: t.to(torch.bfloat16) for n, t in s.state.items()}
    image = act.fold(s.gauge, low).apply(low)
    for v in gains(s.gauge.plan):
        assert bool((image[v.op.name] == 1).all())


class Offset(torch.nn.Module):
    """A norm whose gain is 1 + gamma, with negative and zero entries of the whole gain."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 6)
        self.gamma = torch.nn.Parameter(torch.tensor([0.5, -1.75, -1.0, 0.0, 2.0, -3.0]))
        self.out = torch.nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        y = y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-5)
        return self.out(y * (1 + self.gamma))


def test_charts_signs_and_zero_gains() -> None:
    s = module_subject(Offset(), torch.randn(7, 4))
    image = assert_keeps(s, act.fold(s.gauge, s.state))
    assert image["gamma"].tolist() == [0, 0, -1, 0, 0, 0]  # the gain of zero stays


def test_only_named_bonds() -> None:
    s = subject("llama-gqa")
    name = gains(s.gauge.plan)[0].op.name
    image = assert_keeps(s, act.fold(s.gauge, s.state, bonds=[name]))
    ones = [v.op.name for v in gains(s.gauge.plan) if bool((image[v.op.name] == 1).all())]
    assert ones == [name]
