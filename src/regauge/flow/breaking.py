"""How a discretisation breaks gauge symmetry: the same solver with N steps in two gauges, as N grows.

The difference x_N[F'] - x_N[F] (read-outs dressed) vanishes like N^-p for a method of order p. For Euler its
coefficient is known: a field's own global error is e(F)/N with

    e(F) = -(span / 2) int D Phi_{T,t} xddot dt,

so N (x_N[F'] - x_N[F]) -> D chi_T e(F') - e(F). For a pure space gauge that is the integral over
(D phi)^-1 [phi_tt + 2 (d_t D phi) F + D^2 phi(F, F)] with the factor -span/2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jvp

from regauge.errors import InputError
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge
from regauge.flow.penalties import acceleration
from regauge.flow.picture import Curve, loglog_svg
from regauge.flow.solvers import RungeKutta, integrate, method_named
from regauge.flow.transport import TransportedField


@dataclass(frozen=True)
class BreakingReport:
    """steps N and the rms differences; `slope` is the fitted order, `expected` the method's."""

    solver: str
    steps: tuple[int, ...]
    difference: tuple[float, ...]
    slope: float
    expected: int

    def __str__(self) -> str:
        rows = "\n".join(f"{n:6d}  {e:.3e}" for n, e in zip(self.steps, self.difference, strict=True))
        return f"{self.solver}: breaking of order {self.slope:.3f} (method: {self.expected})\n{rows}"

    def svg(self) -> str:
        """A log-log plot with the reference slope, as text of an SVG file."""
        first = self.difference[0]
        guide = tuple(first * (self.steps[0] / n) ** self.expected for n in self.steps)
        curves = [
            Curve("measured", self.steps, self.difference),
            Curve(f"slope {self.expected}", self.steps, guide, dashed=True),
        ]
        return loglog_svg(curves, f"{self.solver}: symmetry breaking", "steps", "difference between gauges")


def breaking_order(
    field: Field, gauge: Gauge, solver: str | RungeKutta, x: Tensor, steps: Sequence[int] = (16, 32, 64, 128)
) -> BreakingReport:
    """Compare a solver in two gauges on states x (batch, d), preferably float64; the slope is a least-squares fit."""
    if len(steps) < 2:
        raise InputError("breaking_order: one step count gives no slope; pass at least two")
    rk = method_named(solver)
    other = TransportedField(field, gauge)
    old_start, old_end = gauge.clock.ends()
    gaps = []
    with torch.no_grad():
        for n in steps:
            plain = integrate(field, x, rk, n, old_start, old_end)
            moved = gauge.decode(integrate(other, gauge.encode(x), rk, n, gauge.start, gauge.end))
            gaps.append(float((moved - plain).square().sum(-1).mean().sqrt()))
    slope = _slope(steps, gaps)
    return BreakingReport(rk.name, tuple(steps), tuple(gaps), slope, rk.order)


def _slope(steps: Sequence[int], gaps: Sequence[float]) -> float:
    logs = torch.tensor([[float(n), e] for n, e in zip(steps, gaps, strict=True)], dtype=torch.float64).log()
    if not bool(logs.isfinite().all()):
        raise InputError("breaking_order: two gauges agree exactly at some step count, so no order can be fitted")
    centred = logs - logs.mean(0)
    return float(-(centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum())


def euler_coefficient(field: Field, x: Tensor, start: float = 0.0, end: float = 1.0, steps: int = 100) -> Tensor:
    """e(F) with x_N = x(T) + e(F)/N + O(N^-2) for Euler: RK4 on delta' = DF delta - (span/2) xddot, delta(0) = 0."""
    span = end - start

    def joint(t: Tensor, state: Tensor) -> Tensor:
        point, delta = state.chunk(2, -1)
        v, pushed = jvp(lambda z: field(t, z), (point,), (delta,))[:2]
        return torch.cat([v, pushed - span / 2 * acceleration(field, t, point)], -1)

    return integrate(joint, torch.cat([x, torch.zeros_like(x)], -1), "rk4", steps, start, end).chunk(2, -1)[1]


def leading_breaking(field: Field, gauge: Gauge, x: Tensor, steps: int = 100) -> Tensor:
    """The limit of N (x_N[F'] - x_N[F]) for Euler, (batch, d)."""
    other = TransportedField(field, gauge)
    y = gauge.encode(x)
    end_y = integrate(other, y, "rk4", steps, gauge.start, gauge.end)
    in_y = euler_coefficient(other, y, gauge.start, gauge.end, steps)
    in_x = jvp(gauge.decode, (end_y,), (in_y,))[1]
    return in_x - euler_coefficient(field, x, *gauge.clock.ends(), steps)
