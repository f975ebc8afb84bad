"""Straight-line gauges: the Lorenz-like condition and how to reach it.

A linear field with Wdot + W^2 = 0 and bdot + W b = 0 has xddot = 0 for every x: all trajectories are straight lines run
at constant speed, and one Euler step is exact. For a given end map x(T) = M x0 + m the solution is unique,

    W(t) = (M - 1) [T + t (M - 1)]^-1,   b(t) = [T + t (M - 1)]^-1 m,

and it exists iff (1 - s) 1 + s M is invertible for all s in [0, 1]: iff M has no eigenvalue on the negative real axis.
A nonlinear flow Phi has a straight gauge iff x -> (1 - s) x + s Phi(x) is a diffeomorphism for every s in [0, 1].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.errors import InputError
from regauge.flow.affine import AffineDiffeo
from regauge.flow.clocks import IdentityClock
from regauge.flow.diffeos import Diffeo, solve
from regauge.flow.fields import Field
from regauge.flow.gauge import Gauge
from regauge.flow.linear import LinearField, wilson_line
from regauge.flow.solvers import integrate


@dataclass(frozen=True)
class LinearTransport:
    """One field per segment [knots[k], knots[k+1]], straight on each; then `decode` (the identity unless dressed)."""

    knots: tuple[float, ...]
    segments: tuple[LinearField, ...]
    rotation: Tensor | None

    def decode(self, y: Tensor) -> Tensor:
        """Undo the dressing of the read-out: x = R y on rows."""
        return y if self.rotation is None else y @ self.rotation.T

    def __call__(self, x: Tensor) -> Tensor:
        """x(T) with one Euler step per segment: exact up to rounding."""
        for start, end, field in zip(self.knots, self.knots[1:], self.segments, strict=False):
            x = integrate(field, x, "euler", 1, start, end)
        return self.decode(x)


def obstruction(matrix: Tensor, tolerance: float = 1e-6) -> complex | None:
    """The eigenvalue of M on the negative real axis (or zero) that forbids the straight gauge, or None.

    An eigenvalue counts as real when its imaginary part is below tolerance times |M| (nearer, straight lines almost
    cross).
    """
    values = torch.linalg.eigvals(matrix)
    tolerance = max(tolerance, 100 * torch.finfo(matrix.dtype).eps)
    scale = float(matrix.abs().max())
    for value in values.tolist():
        if value.real <= tolerance * scale and abs(value.imag) <= tolerance * scale:
            return value
    return None


def straight_field(matrix: Tensor, offset: Tensor, start: float = 0.0, end: float = 1.0) -> LinearField:
    """The unique linear field with straight trajectories and x(end) = M x(start) + m; raises if M is obstructed."""
    value = obstruction(matrix)
    if value is not None:
        raise InputError(
            f"to_linear_transport: the end map has the eigenvalue {value.real:.6g} on the negative real axis, so "
            f"(1 - s) + s M is singular at s = {1 / (1 - value.real):.4g} and straight lines would cross; "
            "pass how='split' (several straight segments) or how='dress' (rotate the read-out)"
        )
    one = torch.eye(len(matrix), dtype=matrix.dtype)
    span = end - start

    def inverse(t: Tensor) -> Tensor:
        s = (t - start)[..., None, None] if t.dim() else t - start
        return torch.linalg.inv(span * one + s * (matrix - one))

    return LinearField(lambda t: (matrix - one) @ inverse(t), lambda t: inverse(t) @ offset)


def to_linear_transport(
    field: LinearField, horizon: float = 1.0, how: str = "raise", steps: int = 200
) -> LinearTransport:
    """Gauge a linear neural ODE on [0, horizon] to straight transport, the same function exactly.

    how="raise": InputError with the obstructing eigenvalue where there is one. "split": bisect the interval until every
    piece is reachable. "dress": polar decomposition M = R P moves the rotation R into the read-out (P is positive).
    """
    if how not in ("raise", "split", "dress"):
        raise InputError(f"to_linear_transport: how={how!r} is unknown; choose 'raise', 'split' or 'dress'")
    matrix, offset = wilson_line(field, torch.tensor(horizon, dtype=field.dtype), 0.0, steps)
    if how == "dress":
        left, _, right = torch.linalg.svd(matrix)
        rotation = left @ right
        segment = straight_field(rotation.T @ matrix, rotation.T @ offset, 0.0, horizon)
        return LinearTransport((0.0, horizon), (segment,), rotation)
    if how == "raise":
        return LinearTransport((0.0, horizon), (straight_field(matrix, offset, 0.0, horizon),), None)
    knots, segments = _split(field, 0.0, horizon, steps, depth=12)
    return LinearTransport((*knots, horizon), tuple(segments), None)


def _split(
    field: LinearField, start: float, end: float, steps: int, depth: int
) -> tuple[list[float], list[LinearField]]:
    matrix, offset = wilson_line(field, torch.tensor(end, dtype=field.dtype), start, steps)
    # a rotation by almost pi is reachable but almost singular: halving is better conditioned
    if depth == 0 or obstruction(matrix, 1e-3) is None:
        return [start], [straight_field(matrix, offset, start, end)]
    middle = (start + end) / 2
    left, right = _split(field, start, middle, steps, depth - 1), _split(field, middle, end, steps, depth - 1)
    return left[0] + right[0], left[1] + right[1]


def straightening(field: LinearField, horizon: float = 1.0, steps: int = 200) -> Gauge:
    """The gauge that does it: g(t) = V(t) U(t, 0)^-1 with V = 1 + (t/T)(M - 1), c(t) = (t/T) m - g(t) m(t).

    g(0) = g(T) = 1 and c(0) = c(T) = 0, so nothing needs dressing.
    """
    end = torch.tensor(horizon, dtype=field.dtype)
    matrix, offset = wilson_line(field, end, 0.0, steps)
    straight_field(matrix, offset, 0.0, horizon)  # raises where the gauge does not exist
    one = torch.eye(len(matrix), dtype=matrix.dtype)

    def linear(t: Tensor) -> Tensor:
        return (one + t / horizon * (matrix - one)) @ torch.linalg.inv(wilson_line(field, t, 0.0, steps)[0])

    def shift(t: Tensor) -> Tensor:
        return t / horizon * offset - linear(t) @ wilson_line(field, t, 0.0, steps)[1]

    return Gauge(AffineDiffeo(linear, shift), IdentityClock(0.0, horizon))


class StraightLines(Diffeo):
    """phi_t = [(1 - t/T) id + (t/T) Phi_{T,0}] o Phi_{t,0}^-1: the straight-line gauge of a nonlinear field.

    Exists iff x -> (1 - s) x + s Phi(x) is a diffeomorphism for all s (Phi the gradient of a convex function, say).
    This costs a whole solve per call: it is the ideal that cheap gauges approximate, and a reference for tests.
    """

    def __init__(self, field: Field, horizon: float = 1.0, steps: int = 50, iterations: int = 30) -> None:
        super().__init__()
        self.field, self.horizon, self.steps, self.iterations = field, horizon, steps, iterations

    def _flow(self, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Phi_{end,start} with times as tensors: the unit-interval field (end - start) F(start + u (end - start))."""
        span = end - start
        return integrate(lambda u, z: span * self.field(start + u * span, z), x, "rk4", self.steps)

    def _ends(self, x0: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=x0.dtype)
        return self._flow(x0, zero, zero + self.horizon)

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        x0 = self._flow(x, r, torch.zeros_like(r))
        s = r / self.horizon
        return (1 - s) * x0 + s * self._ends(x0)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        s = r / self.horizon
        x0 = y
        for _ in range(self.iterations):
            gap = (1 - s) * x0 + s * self._ends(x0) - y
            jac = torch.autograd.functional.jacobian(lambda z: self._ends(z).sum(0), x0).movedim(1, 0)
            eye = torch.eye(y.shape[-1], dtype=y.dtype)
            x0 = x0 - solve((1 - s) * eye + s * jac, gap)
        return self._flow(x0, torch.zeros_like(r), r)
