"""Fixed-step Runge-Kutta methods on a given grid, and the exact flow by torchdiffeq.

torchdiffeq solves everything else; these few lines are here because tuning and the lattice need the method itself as
a differentiable value: its stages, its number of evaluations, and one step at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from regauge.errors import InputError
from regauge.flow.fields import Field


@dataclass(frozen=True)
class RungeKutta:
    """An explicit method: nodes c, strictly lower matrix a, weights b; `order` is its order."""

    name: str
    order: int
    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Function evaluations per step."""
        return len(self.nodes)

    def step(self, field: Field, t: Tensor, h: Tensor | float, x: Tensor) -> Tensor:
        """x(t + h) from x(t)."""
        slopes: list[Tensor] = []
        for node, row in zip(self.nodes, self.matrix, strict=True):
            slopes.append(field(t + node * h, _advance(x, h, row, slopes)))
        return _advance(x, h, self.weights, slopes)


def _advance(x: Tensor, h: Tensor | float, weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = x + (h * weight) * slope
    return x


METHODS: dict[str, RungeKutta] = {
    method.name: method
    for method in (
        RungeKutta("euler", 1, (0.0,), ((),), (1.0,)),
        RungeKutta("midpoint", 2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
        RungeKutta("heun", 2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
        RungeKutta(
            "rk4", 4, (0.0, 0.5, 0.5, 1.0), ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
        ),
        RungeKutta(
            "rk4_38",
            4,
            (0.0, 1 / 3, 2 / 3, 1.0),
            ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
            (1 / 8, 3 / 8, 3 / 8, 1 / 8),
        ),
    )
}
# what torchdiffeq (and so flow_matching) calls rk4 is Kutta's 3/8 rule, not the classical method
TORCHDIFFEQ_NAMES = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "rk4_38": "rk4"}


def method_named(name: str | RungeKutta) -> RungeKutta:
    """The method of that name, or InputError with the known names."""
    if isinstance(name, RungeKutta):
        return name
    if name not in METHODS:
        raise InputError(f"solver {name!r} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def uniform(start: float, end: float, steps: int) -> list[float]:
    """The steps + 1 knots of an even grid."""
    if steps < 1:
        raise InputError(f"{steps} steps do not cross an interval; give at least 1")
    return [start + (end - start) * k / steps for k in range(steps + 1)]


def integrate(
    field: Field, x: Tensor, method: str | RungeKutta, steps: int, start: float = 0.0, end: float = 1.0
) -> Tensor:
    """x(end) with `steps` equal steps of a fixed method; differentiable."""
    rk, grid = method_named(method), uniform(start, end, steps)
    for a, b in zip(grid, grid[1:], strict=False):
        x = rk.step(field, torch.tensor(a, dtype=x.dtype, device=x.device), b - a, x)
    return x


def exact_flow(
    field: Field, x: Tensor, start: float = 0.0, end: float = 1.0, rtol: float = 1e-8, atol: float = 1e-8
) -> Tensor:
    """x(end) by dopri5 at a tight tolerance: the reference that errors are measured against."""
    times = torch.tensor([start, end], dtype=x.dtype, device=x.device)
    return odeint(field, x, times, rtol=rtol, atol=atol, method="dopri5")[-1]


def conjugated(
    field: Field,
    push: Callable[[Tensor, Tensor], Tensor],
    pull: Callable[[Tensor, Tensor], Tensor],
    method: str | RungeKutta,
) -> Callable[[Tensor, float, Tensor], Tensor]:
    """The conjugated step phi_{k+1} o Psi_h[F] o chi_k: gauge-exact for every phi at a finite step.

    It keeps the truncation error of the original gauge, where naive Runge-Kutta of F' makes another one.
    """
    rk = method_named(method)

    def step(t: Tensor, h: float, y: Tensor) -> Tensor:
        return push(t + h, rk.step(field, t, h, pull(t, y)))

    return step
