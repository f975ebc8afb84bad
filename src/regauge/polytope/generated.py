"""Lattices that a network generates: the corners of its polygon are the sites, in time and in scale.

N units |w_i . x| on R^2 make a centrally symmetric 2N-gon. Half a turn around it are N steps: the angle of a corner is
its time, its distance the scale of the chart y = s(t) x there. Central symmetry closes the gauge by itself: the last
corner is the antipode of the first, so s(0) = s(1) and the flow from t = 0 to t = 1 is kept. The regular polygon, which
is what training towards the circle finds, is the uniform lattice.

In the chart an Euler step of dx/dt = F(t, x) is y += dt (s F + ds/dt x), that is x += dt (s_k / s_{k+1}) F(t_k, x).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.polytope.net import Network, network

Field = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Lattice:
    """times: (N + 1,) from 0 to 1; scales: (N + 1,), 1 at both ends; angles, strengths: (N,) the units."""

    times: Tensor
    scales: Tensor
    angles: Tensor
    strengths: Tensor

    @property
    def steps(self) -> int:
        return len(self.angles)

    def network(self) -> Network:
        """The network whose polygon has these corners: unit i is blind along the ray at its angle."""
        rows = torch.stack([-self.angles.sin(), self.angles.cos()], dim=1)
        return network([rows.detach().double().numpy()], self.strengths.detach().double().numpy(), "abs")

    def euler(self, field: Field, x: Tensor) -> Tensor:
        """x(1) from x(0), (batch, d), by one evaluation of field(t, x) a step."""
        step = self.times.diff() * self.scales[:-1] / self.scales[1:]
        for time, length in zip(self.times[:-1], step, strict=True):
            x = x + length * field(time, x)
        return x


def generated_lattice(angles: Tensor, strengths: Tensor) -> Lattice:
    """The lattice of the polygon of sum_i strengths_i |w_i . x|, whose corners lie at increasing `angles` in [0, pi).

    Differentiable in both. Raises InputError for angles out of order or strengths that are not positive.
    """
    if angles.ndim != 1 or angles.shape != strengths.shape or len(angles) < 2:
        raise InputError(
            f"{tuple(angles.shape)} angles, {tuple(strengths.shape)} strengths: two equal lists are needed."
        )
    ordered = bool((angles.diff() > 0).all()) and bool(angles[-1] - angles[0] < math.pi)
    if not ordered or not bool((strengths > 0).all()):
        raise InputError("angles must increase within half a turn, and strengths must be positive.")
    gauge = (angles[:, None] - angles[None]).sin().abs() @ strengths  # f on the ray of each corner
    times = (angles - angles[0]) / math.pi
    one = torch.ones_like(times[:1])
    return Lattice(torch.cat([times, one]), torch.cat([gauge[0] / gauge, one]), angles, strengths)


def uniform_lattice(steps: int, dtype: torch.dtype = torch.float32) -> Lattice:
    """The lattice of the regular polygon: equal steps, scale 1."""
    return generated_lattice(math.pi * torch.arange(steps, dtype=dtype) / steps, torch.ones(steps, dtype=dtype))


def fit_lattice(
    field: Field, x: Tensor, target: Tensor, steps: int, *, iterations: int = 300, rate: float = 0.03
) -> Lattice:
    """Train the polygon so that `steps` Euler steps bring x (batch, d) to target (batch, d), starting from the uniform.

    Raises InputError for fewer than 2 steps or shapes that differ.
    """
    if steps < 2 or x.shape != target.shape:
        raise InputError(f"{steps} steps from {tuple(x.shape)} to {tuple(target.shape)}: at least 2, and equal shapes.")
    gaps = torch.zeros(steps, dtype=x.dtype, requires_grad=True)
    strengths = torch.zeros(steps, dtype=x.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([gaps, strengths], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)

    def current() -> Lattice:
        share = torch.softmax(gaps, 0) * math.pi
        return generated_lattice(share.cumsum(0) - share, strengths.exp())

    best, lattice = math.inf, current()
    for _ in range(iterations):
        made = current()
        loss = (made.euler(field, x) - target).square().mean()
        if loss.item() < best:
            best = loss.item()
            lattice = generated_lattice(made.angles.detach().clone(), made.strengths.detach().clone())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return lattice
