"""Gradient flow on the population loss, with the charges that the rescaling gauge conserves.

    (a, w) -> (a / s, s w) leaves f alone, so d/dt (a_i^2 - |w_i|^2) = 0 along da/dt = -dL/da, dw/dt = -dL/dw.

A unit of positive charge can not change the sign of a_i: |a_i|^2 = Q_i + |w_i|^2 >= Q_i. So the number of positive
units at the start decides which polytope is found. It is a statement about the flow, not about steps of finite size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp
from scipy.optimize import OptimizeResult as OdeResult

from regauge.errors import CheckError, InputError
from regauge.polytope import population
from regauge.polytope.net import Array, Network
from regauge.polytope.train import single

GONE = 1e-5


@dataclass(frozen=True, eq=False)
class Flow:
    """times: (T,); a: (T, N); w: (T, N, d); died[i]: when unit i reached w_i = 0 (infinite: it did not)."""

    times: Array
    a: Array
    w: Array
    died: Array
    slope: float

    @property
    def charges(self) -> Array:
        """a_i^2 - |w_i|^2, (T, N)."""
        return self.a**2 - (self.w**2).sum(axis=2)

    @property
    def rms(self) -> float:
        return math.sqrt(max(population.loss(self.a[-1], self.w[-1], self.slope), 0.0))

    @property
    def network(self) -> Network:
        alive = ~np.isfinite(self.died)
        return single(self.w[-1, alive], self.a[-1, alive], self.slope)


def charged(a: ArrayLike, directions: ArrayLike, charge: float) -> tuple[Array, Array]:
    """Weights with a_i^2 - |w_i|^2 = charge: output weights a, hidden weights along the given directions.

    Raises InputError when some a_i^2 is not above the charge.
    """
    a, rows = np.asarray(a, dtype=float), np.asarray(directions, dtype=float)
    if (a**2 <= charge).any():
        raise InputError(f"a charge of {charge} needs |a_i| > {math.sqrt(max(charge, 0)):g} for every unit.")
    return a, rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.sqrt(a**2 - charge)[:, None]


def descend(
    a: ArrayLike, w: ArrayLike, activation: str = "abs", *, slope: float | None = None, time: float = 200.0,
    accuracy: float = 1e-9,
) -> Flow:  # fmt: skip
    """Integrate the gradient flow from output weights a (N,) and hidden weights w (N, d).

    A unit that reaches the cone point w_i = 0, as units with a_i < 0 do in finite time, rests there.
    """
    a, w = np.array(a, dtype=float), np.array(w, dtype=float)
    n, d = w.shape
    if a.shape != (n,):
        raise InputError(f"{a.shape} output weights for {n} units.")
    alpha = population.slope_of(activation, slope)
    died = np.full(n, math.inf)
    now, times, track = 0.0, [np.zeros(1)], [np.concatenate([a, w.reshape(-1)])[:, None]]
    while now < time:
        live = np.flatnonzero(~np.isfinite(died))
        if not len(live):
            break
        found = _stretch(a[live], w[live], alpha, now, time, accuracy)
        m = len(live)
        states = np.repeat(track[-1][:, -1:], len(found.t), axis=1)
        states[live] = found.y[:m]
        rows = (n + live[:, None] * d + np.arange(d)).reshape(-1)
        states[rows] = found.y[m:]
        now = float(found.t[-1])
        a, w = states[:n, -1].copy(), states[n:, -1].reshape(n, d).copy()
        for k, events in enumerate(found.t_events):
            if len(events):
                died[live[k]] = now
                w[live[k]] = 0.0
        states[n:, -1] = w.reshape(-1)
        times.append(found.t)
        track.append(states)
    path = np.concatenate(track, axis=1)
    return Flow(np.concatenate(times), path[:n].T, path[n:].T.reshape(-1, n, d), died, alpha)


def _stretch(a: Array, w: Array, slope: float, start: float, stop: float, accuracy: float) -> OdeResult:
    n, d = w.shape

    def velocity(_: float, x: Array) -> Array:
        da, dw = population.gradient(x[:n], x[n:].reshape(n, d), slope)
        return -np.concatenate([da, dw.reshape(-1)])

    def event(unit: int) -> Callable[[float, Array], float]:
        def small(_: float, x: Array) -> float:
            return float(np.linalg.norm(x[n + unit * d : n + (unit + 1) * d])) - GONE

        small.terminal, small.direction = True, -1  # type: ignore[attr-defined]
        return small

    found = solve_ivp(
        velocity, (start, stop), np.concatenate([a, w.reshape(-1)]), method="LSODA", rtol=accuracy,
        atol=accuracy * 1e-2, events=[event(i) for i in range(n)],
    )  # fmt: skip
    if not found.success:
        raise CheckError(f"the gradient flow could not be integrated past t = {found.t[-1]:.4g}: {found.message}")
    return found
