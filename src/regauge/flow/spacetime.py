"""Lapse and shift, and the full spacetime diffeomorphisms in which the new time depends on the state.

ADM form of a gauge (clock t(r), space phi):  F'(r, y) = N(r) (phi_* F)(y) + beta(r, y), with the lapse N = dt/dr and
the shift beta = d_r phi o chi of the moving frame. The covariant object is omega = dx - F dt.

A spacetime diffeomorphism (tau, y) = (theta(t, x), phi(t, x)) gives dy/dtau = (phi_t + D phi F) / (theta_t + D theta
F), which needs a positive denominator along every trajectory: a new time that runs forward.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jvp
from torchdiffeq import odeint

from regauge.errors import CheckError, InputError
from regauge.flow.clocks import Clock
from regauge.flow.diffeos import Diffeo
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge

Chart = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def lapse(gauge: Gauge, r: Tensor) -> Tensor:
    """N(r) = dt/dr."""
    return gauge.clock.rate(r)


def shift(gauge: Gauge, r: Tensor, y: Tensor) -> Tensor:
    """beta(r, y) = d_r phi at chi(r, y): the velocity of the frame, (..., d)."""
    x = gauge.space.pull(r, y)
    return gauge.space.tangent(r, x, torch.zeros_like(x), torch.ones_like(r))


class LapseClock(Clock):
    """t(r) = int_start^r N, the integral by Gauss-Legendre with `nodes` nodes: for a given smooth positive lapse."""

    def __init__(self, rate: Callable[[Tensor], Tensor], start: float = 0.0, end: float = 1.0, nodes: int = 32) -> None:
        super().__init__()
        import numpy as np

        self._rate, self.start, self.end = rate, float(start), float(end)
        at, weight = np.polynomial.legendre.leggauss(nodes)
        self.at: Tensor
        self.weight: Tensor
        self.register_buffer("at", torch.tensor((at + 1) / 2), persistent=False)
        self.register_buffer("weight", torch.tensor(weight / 2), persistent=False)
        probe = rate(torch.linspace(start, end, 65, dtype=torch.float64))
        if not bool((probe > 0).all()):
            raise InputError(
                f"LapseClock: the lapse falls to {float(probe.min()):.3g}, so time would stop; make it positive"
            )

    def forward(self, r: Tensor) -> Tensor:
        span = (r - self.start).unsqueeze(-1)
        return self.start + (self._rate(self.start + span * self.at.to(r.dtype)) * self.weight.to(r.dtype)).sum(
            -1
        ) * span.squeeze(-1)

    def rate(self, r: Tensor) -> Tensor:
        return self._rate(r)


class FlowDiffeo(Diffeo):
    """phi_r, the flow of the shift beta from `start` to r: what a shift generates, d_r phi = beta o phi."""

    def __init__(self, beta: Field, start: float = 0.0, steps: int = 16) -> None:
        super().__init__()
        self.beta, self.start, self.steps = beta, start, steps

    def _run(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        span = high - low
        grid = torch.linspace(0, 1, self.steps + 1, dtype=x.dtype)
        return odeint(lambda u, z: span * self.beta(low + u * span, z), x, grid, method="rk4")[-1]

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return self._run(x, torch.full_like(r, self.start), r)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return self._run(y, r, torch.full_like(r, self.start))


def from_lapse_and_shift(
    rate: Callable[[Tensor], Tensor], beta: Field | None = None, start: float = 0.0, end: float = 1.0, steps: int = 16
) -> Gauge:
    """The gauge with lapse N(r) = rate(r) and shift beta(r, y), the identity in space at `start`.

    steps: of RK4, for the flow that the shift generates.
    """
    return Gauge(None if beta is None else FlowDiffeo(beta, start, steps), LapseClock(rate, start, end))


class SpacetimeField(nn.Module):
    """dy/dtau of a spacetime diffeomorphism: forward (t, x) -> (tau, y), backward its inverse; times one per sample."""

    def __init__(self, field: Field, forward: Chart, backward: Chart) -> None:
        super().__init__()
        self.field, self._forward, self._backward = field, forward, backward

    def forward(self, tau: Tensor, y: Tensor) -> Tensor:
        t, x = self._backward(tau.expand(y.shape[:-1]).to(y.dtype), y)
        velocity = self.field(t, x)
        rate, moved = jvp(self._forward, (t, x), (torch.ones_like(t), velocity))[1]
        if bool((rate <= 0).any()):
            raise CheckError(
                f"SpacetimeField at tau={tau.flatten()[0].item():.4g}: the new time runs backwards (d tau/dt = "
                f"{float(rate.min()):.3g}) along a trajectory; theta must grow along F: choose a smaller deformation"
            )
        return moved / rate.unsqueeze(-1)
