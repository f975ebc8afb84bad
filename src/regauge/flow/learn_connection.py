"""Learn a connection from observed trajectories of the geodesic equation."""

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.geodesic import GeodesicField
from regauge.flow.solvers import METHODS


class NeuralConnection(nn.Module):
    """Gamma^i_jk(x), symmetric in j and k, from one smooth network; inputs standardised by centre and scale (d,)."""

    def __init__(self, dim: int, hidden: int = 64, centre: Tensor | None = None, scale: Tensor | None = None) -> None:
        super().__init__()
        self.dim = dim
        rows, cols = torch.triu_indices(dim, dim)
        self.rows: Tensor
        self.cols: Tensor
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("rows", rows)
        self.register_buffer("cols", cols)
        self.register_buffer("centre", torch.zeros(dim) if centre is None else centre)
        self.register_buffer("scale", torch.ones(dim) if scale is None else scale)
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, dim * len(rows))
        )

    def forward(self, x: Tensor) -> Tensor:
        packed = self.net((x - self.centre) / self.scale).reshape(*x.shape[:-1], self.dim, -1)
        index = torch.zeros(self.dim, self.dim, dtype=torch.long)
        index[self.rows, self.cols] = index[self.cols, self.rows] = torch.arange(len(self.rows))
        return packed[..., index]


def learn_connection(
    positions: Tensor, velocities: Tensor, interval: float, hidden: int = 64, iterations: int = 300, seed: int = 0
) -> NeuralConnection:
    """Fit Gamma to trajectories sampled every `interval`: positions and velocities (trajectories, times, d), float64.

    Multiple shooting: one RK4 step from every sample must reach the next one. Full-batch L-BFGS with a strong Wolfe
    search.
    """
    if positions.shape != velocities.shape or positions.dim() != 3 or positions.shape[1] < 2:
        raise InputError(
            f"learn_connection: positions {tuple(positions.shape)} and velocities {tuple(velocities.shape)} must both "
            "be (trajectories, times, d) with at least two times"
        )
    dim = positions.shape[-1]
    flat = positions.reshape(-1, dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NeuralConnection(dim, hidden, flat.mean(0), flat.std(0).clamp_min(1e-3)).double()
    field = GeodesicField(model)
    here = torch.cat([positions[:, :-1], velocities[:, :-1]], -1).reshape(-1, 2 * dim)
    there = torch.cat([positions[:, 1:], velocities[:, 1:]], -1).reshape(-1, 2 * dim)
    # position errors are one power of the interval smaller than velocity errors
    weight = torch.cat([torch.full((dim,), interval**-2), torch.full((dim,), interval**-1)]).double()
    optimiser = torch.optim.LBFGS(
        model.parameters(),
        max_iter=iterations,
        history_size=30,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
    )
    start = torch.zeros((), dtype=torch.float64)

    def closure() -> Tensor:
        optimiser.zero_grad()
        reached = METHODS["rk4"].step(field, start, interval, here)
        loss = ((reached - there) * weight).square().mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    return model.requires_grad_(False)
