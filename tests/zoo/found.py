"""Networks in which random search found a wrong answer, made small."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.adversaries import dense
from tests.zoo.registry import add


class Centred(nn.Module):
    """A stream that is centred before every reader, and never divided by its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(9, 6, bias=False), nn.Linear(6, 9, bias=False)
        self.up, self.down = nn.Linear(6, 7, bias=False), nn.Linear(7, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.down(torch.tanh(self.up(x - x.mean(-1, keepdim=True))))
        return self.leave(x - x.mean(-1, keepdim=True))


add(
    "centred-not-divided",
    5 * 5 + (9 + 7) + (7 + 9),
    lambda: dense(Centred(), 9),
    why="GL(5) beside ones; the mean that each writer adds; the row shift of each reader. Scaling the mean is in these",
)
