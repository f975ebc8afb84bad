"""Recurrent networks: PyTorch's modules, and cells unrolled by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoo.registry import Call, add


class Reader(nn.Module):
    """A recurrent module and a linear read-out of every step."""

    def __init__(self, cell, h: int = 5):
        super().__init__()
        self.cell, self.out = cell, nn.Linear(h, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x)[0])


def recurrent(cell) -> Call:
    return Call(Reader(cell), (floats_time(),))


def floats_time() -> Tensor:
    return torch.randn(13, 7, 3)


# the two biases of a step hide from one another, but for GRU's candidate, whose recurrent part is gated
add("rnn-tanh", 5, lambda: recurrent(nn.RNN(3, 5, batch_first=True)))
add("rnn-relu", 5 + 5, lambda: recurrent(nn.RNN(3, 5, nonlinearity="relu", batch_first=True)))
add("lstm", 4 * 5, lambda: recurrent(nn.LSTM(3, 5, batch_first=True)))
add("gru", 2 * 5, lambda: recurrent(nn.GRU(3, 5, batch_first=True)))
add("lstm-nobias", 0, lambda: recurrent(nn.LSTM(3, 5, bias=False, batch_first=True)))
add("rnn-two-layers", 2 * 5, lambda: recurrent(nn.RNN(3, 5, num_layers=2, batch_first=True)))


class Bidirectional(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTM(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.cell(x)[0])


add("lstm-bidirectional", 2 * 4 * 4, lambda: Call(Bidirectional(), (floats_time(),)))


class Unrolled(nn.Module):
    """h <- activation(A h + B x): the recurrent matrix reads the bond that it writes."""

    def __init__(self, activation, bias: bool = True, d: int = 5):
        super().__init__()
        self.a, self.b = nn.Linear(d, d, bias=False), nn.Linear(3, d, bias=bias)
        self.out, self.activation, self.d = nn.Linear(d, 4, bias=bias), activation, d

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.d)
        for t in range(x.shape[1]):
            h = self.activation(self.a(h) + self.b(x[:, t]))
        return self.out(h)


def unrolled(activation, **options) -> Call:
    return Call(Unrolled(activation, **options), (torch.randn(101, 3, 3),))


add("unrolled-relu", 5, lambda: unrolled(torch.relu))
add("unrolled-tanh", 0, lambda: unrolled(torch.tanh))
add("unrolled-linear", 3 * 3 + 3, lambda: unrolled(lambda h: h, d=3))
add(
    "unrolled-square",
    5,
    lambda: unrolled(torch.square),
    why="A scales by s_i / s_j^2: every unit is free though it is squared at every step",
)
