"""Smooth bodies of |z|^p units: sections of l_p balls, their polars, and when they are exactly round.

    K_p = {x : |W x|_p <= 1} is the section of the l_p ball of R^N by the range of W;
    its polar is the projection W' B_q of the l_q ball, 1/p + 1/q = 1: h(y) = min {|z|_q : W' z = y}.

Only for N = d is the polar again a body of |z|^q units; in general it is a projection, not a section.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import null_space
from scipy.optimize import least_squares, linprog

from regauge.errors import CheckError, InputError
from regauge.polytope.net import Array
from regauge.polytope.quadrature import sphere_rule


@dataclass(frozen=True, eq=False)
class Polar:
    """h(y), with its proof: x on the body with x . y = h, and z with W' z = y and |z|_q = h, up to `gap`."""

    value: float
    x: Array
    z: Array
    gap: float


@dataclass(frozen=True, eq=False)
class PBody:
    """{x : |W x|_p <= 1}, W of shape (N, d) and rank d, 1 <= p <= inf."""

    w: Array
    p: float

    @property
    def q(self) -> float:
        """The conjugate exponent."""
        if self.p == 1:
            return math.inf
        return 1.0 if math.isinf(self.p) else self.p / (self.p - 1)

    def gauge(self, x: ArrayLike) -> Array:
        """|W x|_p at points (..., d): at most 1 on the body."""
        return np.linalg.norm(np.asarray(x, dtype=float) @ self.w.T, ord=self.p, axis=-1)

    def polar(self, y: ArrayLike) -> Polar:
        """The gauge of the polar body at y (d,): max {x . y : |W x|_p <= 1} = min {|z|_q : W' z = y}.

        Raises CheckError when the two sides do not meet within 1e-9.
        """
        y = np.asarray(y, dtype=float)
        if self.p == 1 or math.isinf(self.p):
            x, z = self._programme(y)
        elif self.p >= 2:
            x = _power_minimum(self.w, np.zeros(len(self.w)), self.p, y)
            u = self.w @ x
            z = np.sign(u) * np.abs(u) ** (self.p - 1)
        else:
            z0, free = np.linalg.lstsq(self.w.T, y, rcond=None)[0], null_space(self.w.T)
            z = z0 + (free @ _power_minimum(free, z0, self.q, None) if free.shape[1] else 0)
            u = np.sign(z) * np.abs(z) ** (self.q - 1)
            x = np.linalg.lstsq(self.w, u, rcond=None)[0]
        x = x / self.gauge(x)
        upper, lower = float(np.linalg.norm(z, ord=self.q)), float(x @ y)
        gap = max(upper - lower, float(np.abs(self.w.T @ z - y).max()))
        if gap > 1e-9 * max(upper, 1e-300):
            raise CheckError(f"the polar at {y} is only known to lie between {lower:.12g} and {upper:.12g}.")
        return Polar((upper + lower) / 2, x, z, gap)

    def _programme(self, y: Array) -> tuple[Array, Array]:
        n, d = self.w.shape
        if self.p == 1:  # min t with -t <= z <= t
            bound = np.concatenate(
                [np.hstack([np.eye(n), -np.ones((n, 1))]), np.hstack([-np.eye(n), -np.ones((n, 1))])]
            )
            found = linprog(
                np.append(np.zeros(n), 1.0), A_ub=bound, b_ub=np.zeros(2 * n), 
                A_eq=np.hstack([self.w.T, np.zeros((d, 1))]), b_eq=y, bounds=[(None, None)] * (n + 1), method="highs",
            )  # fmt: skip
            z = found.x[:n]
        else:  # min sum of the two halves of z
            found = linprog(np.ones(2 * n), A_eq=np.hstack([self.w.T, -self.w.T]), b_eq=y, method="highs")
            z = found.x[:n] - found.x[n:]
        return found.eqlin.marginals, z


def pbody(w: ArrayLike, p: float) -> PBody:
    """{x : |W x|_p <= 1}. InputError when p < 1 (not convex, so without a polar gauge) or W is short of rank."""
    w = np.asarray(w, dtype=float)
    if not p >= 1:
        raise InputError(f"p = {p} is below 1, where |W x|_p is no norm; take 1 <= p <= inf.")
    if w.ndim != 2 or np.linalg.matrix_rank(w) < w.shape[1]:
        raise InputError("W must be a matrix (units, dim) of full column rank, or the body is unbounded.")
    return PBody(w, float(p))


def _power_minimum(matrix: Array, offset: Array, power: float, y: Array | None) -> Array:
    """argmin_v |offset + M v|_power^power / power - y . v for power >= 2, by damped Newton steps."""
    v = np.zeros(matrix.shape[1])
    if y is not None:
        v = np.linalg.lstsq(matrix.T @ matrix, y, rcond=None)[0]
    linear = np.zeros_like(v) if y is None else y

    def value(v: Array) -> float:
        return float((np.abs(offset + matrix @ v) ** power).sum() / power - linear @ v)

    def gradient(v: Array) -> Array:
        u = offset + matrix @ v
        return matrix.T @ (np.sign(u) * np.abs(u) ** (power - 1)) - linear

    for _ in range(500):
        now, slope = value(v), gradient(v)
        curve = (matrix.T * ((power - 1) * np.abs(offset + matrix @ v) ** (power - 2))) @ matrix
        step = np.linalg.lstsq(curve, -slope, rcond=1e-15)[0]
        for shrink in 0.5 ** np.arange(40):  # near the end only the gradient still resolves progress
            there = v + shrink * step
            if value(there) < now - 1e-13 * abs(now) or np.abs(gradient(there)).max() < np.abs(slope).max():
                break
        else:
            break
        v = there
    return v


@dataclass(frozen=True, eq=False)
class Round:
    """How round sum_i |w_i . x|^p can be made: rms of its distance from 1 over the unit sphere, and the weights."""

    rms: float
    w: Array


def roundest(dim: int, power: float, units: int, *, starts: int = 6, seed: int = 0) -> Round:
    """The best of `starts` fits of sum_i |w_i . x|^power = 1 on the unit sphere.

    For even powers the quadrature is exact, and rms 0 (to rounding) is Hilbert's identity
    sum_i (w_i . x)^2k = |x|^2k, which exists from a least number of units on.
    """
    if power <= 1 or units < 1:
        raise InputError(f"power {power} and {units} units: a power above 1 and at least one unit are needed.")
    nodes, weight = sphere_rule(dim, max(int(2 * math.ceil(power)) + 2, 12))
    weight = np.sqrt(weight)
    rng = np.random.default_rng(seed)

    def residual(flat: Array) -> Array:
        return weight * ((np.abs(nodes @ flat.reshape(units, dim).T) ** power).sum(axis=1) - 1)

    def jacobian(flat: Array) -> Array:
        z = nodes @ flat.reshape(units, dim).T
        slope = power * np.sign(z) * np.abs(z) ** (power - 1) * weight[:, None]
        return (slope[:, :, None] * nodes[:, None]).reshape(len(nodes), -1)

    best: Round | None = None
    for _ in range(starts):
        start = rng.normal(size=(units, dim))
        start /= np.linalg.norm(start, axis=1, keepdims=True) * (units / dim) ** (1 / power)
        found = least_squares(
            residual, start.reshape(-1), jac=jacobian, method="trf", xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=2000
        )
        rms = float(np.linalg.norm(found.fun))
        if best is None or rms < best.rms:
            best = Round(rms, found.x.reshape(units, dim))
        if best.rms < 1e-14:
            break
    assert best is not None
    return best
