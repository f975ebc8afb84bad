"""Factories for the command line's tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.library.custom_op("regauge_tests::no_rule", mutates_args=())
def no_rule(x: Tensor) -> Tensor:
    return x.sin()


@no_rule.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("regauge_tests::no_rule_either", mutates_args=())
def no_rule_either(x: Tensor) -> Tensor:
    return x.cos()


@no_rule_either.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def mlp(act: type[nn.Module] = nn.ReLU) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), act(), nn.Linear(8, 2)), torch.randn(5, 3)


def twins() -> tuple[nn.Module, Tensor]:
    model, x = mlp()
    with torch.no_grad():
        model[0].weight[6], model[0].bias[6] = 2 * model[0].weight[1], 2 * model[0].bias[1]
        model[2].weight[:, 3] = 0
    return model, x


def smooth() -> tuple[nn.Module, Tensor]:
    return mlp(nn.SiLU)


def large() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6000), nn.ReLU(), nn.Linear(6000, 2)), torch.randn(5, 3)


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(no_rule_either(no_rule(self.b(no_rule(self.a(x))))))


def unsupported() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Unsupported(), torch.randn(5, 3)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.a(x).sum() > 0:
            return self.a(x)
        return -self.a(x)


def branch() -> tuple[nn.Module, Tensor]:
    return Branch(), torch.ones(5, 3)


def wrong_input() -> tuple[nn.Module, Tensor]:
    return nn.Linear(3, 2), torch.ones(5, 4)


def nan() -> tuple[nn.Module, Tensor]:
    model, x = mlp()
    model[0].weight.data[1, 2] = float("nan")
    return model, x
