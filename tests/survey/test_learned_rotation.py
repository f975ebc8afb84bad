"""Rotations by learned angles: a table made of two equal halves cuts through the planes that they turn."""

import torch
from torch import nn

import regauge


class LearnedAngles(nn.Module):
    """Attention whose first place has a learned angle in each plane, the others given ones."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.angle = nn.Parameter(torch.randn(1, 2))
        self.register_buffer("given", torch.randn(6, 4).repeat(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.cat([self.angle, self.angle], -1)
        given = torch.cat([self.given[:, :2], self.given[:, :2]], -1)
        cos = torch.cat([first.cos(), given.cos()], 0)
        sin = torch.cat([first.sin(), given.sin()], 0)

        def turned(y: torch.Tensor) -> torch.Tensor:
            y = y.view(*x.shape[:2], 2, 4).transpose(1, 2)
            return y * cos + torch.cat([-y[..., 2:], y[..., :2]], -1) * sin

        v = self.v(x).view(*x.shape[:2], 2, 4).transpose(1, 2)
        scores = turned(self.q(x)) @ turned(self.k(x)).mT
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))


def test_planes_that_a_table_cuts_are_not_scaled_apart():
    torch.manual_seed(0)
    model, x = LearnedAngles().eval(), torch.randn(5, 7, 8)
    gauge = regauge.infer(model, (x,))
    sound = regauge.check.sound(model, (x,), gauge)
    assert sound.ok, str(sound)
