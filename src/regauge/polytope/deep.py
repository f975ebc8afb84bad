"""Training of deeper networks towards the round ball, on a quadrature rule of the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from regauge.errors import InputError
from regauge.polytope.module import module, read
from regauge.polytope.net import Network, network
from regauge.polytope.quadrature import rule_of_size
from regauge.polytope.settle import settle
from regauge.polytope.train import Trained


def train_deep(
    dim: int,
    widths: Sequence[int],
    activation: str = "relu",
    *,
    slope: float | None = None,
    seed: int = 0,
    points: int = 600,
    steps: int = 2000,
    rate: float = 0.01,
    frames: int = 0,
    polish: bool = False,
) -> Trained:
    """Minimise the mean of (f - 1)^2 over at least `points` quadrature points, by Adam with a cosine rate.

    widths: units of each hidden layer. The rms reported is measured on an independent rule of ten times the points.
    polish: go on with `settle`, on the exact loss for d = 2 and 3; seconds to minutes, by the number of weights.
    Raises InputError for dim < 2 or no layers.
    """
    if dim < 2 or not widths or min(widths) < 1:
        raise InputError(f"dim {dim} and widths {tuple(widths)}: at least 2 dimensions and a unit a layer are needed.")
    rng = np.random.default_rng(seed)
    sizes = [dim, *widths]
    weights = [rng.normal(size=(m, n)) * math.sqrt(2 / n) for n, m in zip(sizes, sizes[1:], strict=False)]
    start = network(list(weights), np.abs(rng.normal(size=widths[-1])) / widths[-1], activation, slope)
    found = fit(module(start), points=points, steps=steps, rate=rate, frames=frames)
    if not polish:
        return found
    done = settle(found.network, points=points)
    return replace(done, steps=found.steps + done.steps, path=(*found.path[:-1], done.network))


def fit(model: nn.Sequential, *, points: int = 600, steps: int = 2000, rate: float = 0.01, frames: int = 0) -> Trained:
    """Train a bias-free piecewise-linear Sequential in place so that f = 1 on the unit sphere; see `train_deep`."""
    dim = read(model).dim
    nodes, weight = (torch.tensor(part) for part in rule_of_size(dim, points))
    dtype = next(model.parameters()).dtype
    nodes, weight = nodes.to(dtype), weight.to(dtype)
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    keep = set(np.unique(np.geomspace(1, steps, frames).astype(int)) - 1) if frames > 1 else set()
    path: list[Network] = []
    for step in range(steps):
        if step in keep:
            path.append(read(model))
        optimiser.zero_grad()
        loss = (weight * (model(nodes)[:, 0] - 1) ** 2).sum()
        loss.backward()
        optimiser.step()
        schedule.step()
    net = read(model)
    largest = max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None)
    return Trained(net, rms(net, 10 * points), largest, steps, (*path, net))


def rms(net: Network, points: int = 6000) -> float:
    """The root mean square of f - 1 over the unit sphere, by quadrature."""
    nodes, weight = rule_of_size(net.dim, points)
    return math.sqrt(float(weight @ (net(nodes).astype(float) - 1) ** 2))
