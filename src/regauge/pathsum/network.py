"""Path networks as PyTorch modules, so that their redundancy is read off by the compiler and not from a table.

q(t) = c + sum_i a_i sigma(w_i t + b_i)
"""

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.pathsum.lattice import Lattice
from regauge.solve.api import infer
from regauge.solve.gauge import Gauge


class Cosine(nn.Module):
    """cos z, unit by unit."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cos(z)


ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "cos": Cosine}


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


class BridgeNetwork(nn.Module):
    """The bridge map as a module: closed paths (batch, sites) from steps xi + noise (batch, sites), one coordinate.

    With no noise it writes the path of `maps.bridge` with weights (level, xi) / sqrt(mass).
    """

    def __init__(self, lattice: Lattice, mu2: float = 1.0) -> None:
        super().__init__()
        if len(lattice.axes) > 1 or lattice.time.ends != "periodic" or lattice.dim != 1:
            raise InputError("bridge network: its paths close, in one coordinate; build it on a periodic path lattice")
        eps, mass = lattice.time.spacing, float(lattice.mass[0])
        self.scale, self.height = (eps / mass) ** 0.5, (eps * lattice.sites * mu2 * mass) ** -0.5
        self.xi = nn.Parameter(torch.randn(lattice.sites, dtype=torch.float64))
        self.level = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, noise: Tensor) -> Tensor:
        steps = noise + self.xi
        walk = torch.cumsum(steps - steps.mean(-1, keepdim=True), -1)
        return self.height * self.level + self.scale * (walk - walk.mean(-1, keepdim=True))


def path_times(lattice: Lattice) -> Tensor:
    """The times of a path lattice, (sites, 1)."""
    return torch.arange(lattice.time.sites, dtype=torch.float64)[:, None] * lattice.time.spacing


def redundancy(network: PathNetwork | BridgeNetwork, lattice: Lattice) -> Gauge:
    """The gauge group of the network's parameters, as the compiler infers it: what a flat sum over parameters counts
    over and over."""
    if isinstance(network, BridgeNetwork):
        return infer(network, (torch.zeros(2, lattice.sites, dtype=torch.float64),))
    return infer(network, (path_times(lattice),))
