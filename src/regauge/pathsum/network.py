"""Path networks as PyTorch modules, so that their redundancy is read off by the compiler and not from a table.

q(t) = c + sum_i a_i sigma(w_i t + b_i)
"""

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.pathsum.lattice import Lattice
from regauge.solve.api import infer
from regauge.solve.gauge import Gauge

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class PathNetwork(nn.Module):
    """Times (T, 1) to positions (T, D); one hidden layer of `units`."""

    def __init__(self, units: int, activation: str = "relu", coordinates: int = 1, dtype: torch.dtype = torch.float64):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(f"path network with activation {activation!r}: choose {' or '.join(ACTIVATIONS)}")
        self.hidden = nn.Linear(1, units, dtype=dtype)
        self.act = ACTIVATIONS[activation]()
        self.out = nn.Linear(units, coordinates, dtype=dtype)

    def forward(self, times: Tensor) -> Tensor:
        return self.out(self.act(self.hidden(times)))


def path_times(lattice: Lattice) -> Tensor:
    """The times of a path lattice, (sites, 1)."""
    return torch.arange(lattice.time.sites, dtype=torch.float64)[:, None] * lattice.time.spacing


def redundancy(network: PathNetwork, lattice: Lattice) -> Gauge:
    """The gauge group of the network's parameters, as the compiler infers it: what a flat sum over parameters counts
    over and over."""
    return infer(network, (path_times(lattice),))
