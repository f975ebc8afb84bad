"""Training one hidden layer towards the round ball: L-BFGS, then Newton steps to the last digit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from regauge.errors import InputError
from regauge.polytope import population
from regauge.polytope.net import Array, Layer, Network, Slopes

Objective = tuple[Callable[[Array], float], Callable[[Array], Array], Callable[[Array], Array]]


@dataclass(frozen=True, eq=False)
class Trained:
    """rms: sqrt of the loss; gradient: its largest component at the end; path: networks along training."""

    network: Network
    rms: float
    gradient: float
    steps: int
    path: tuple[Network, ...]

    def __repr__(self) -> str:
        return f"Trained({self.network}, rms {self.rms:.7f}, |gradient| {self.gradient:.1e}, {self.steps} steps)"


def train(
    dim: int,
    units: int,
    activation: str = "abs",
    *,
    slope: float | None = None,
    signs: ArrayLike | str = "positive",
    seed: int = 0,
    frames: int = 0,
) -> Trained:
    """Minimise E (f - 1)^2 over the unit sphere of R^dim for f = sum_i a_i phi(w_i . x), from a random start.

    signs: "positive", or one sign a unit, kept throughout (the scale of each unit is fixed by the gauge
        a_i = sign_i); "free" lets the a_i change sign.
    frames: how many networks along the way to keep in `path` (about; the last is always the result).
    """
    if dim < 2 or units < 1:
        raise InputError(f"dim {dim} and units {units}: at least 2 dimensions and 1 unit are needed.")
    rng, alpha = np.random.default_rng(seed), population.slope_of(activation, slope)
    w = rng.normal(size=(units, dim)) / units
    free = isinstance(signs, str) and signs == "free"
    if isinstance(signs, str):
        if signs not in ("positive", "free"):
            raise InputError(f"signs {signs!r} is neither 'positive', 'free' nor a list of +1 and -1.")
        fixed = np.ones(units)
    else:
        fixed = np.asarray(signs, dtype=float)
        if fixed.shape != (units,) or (np.abs(fixed) != 1).any():
            raise InputError(f"signs must be {units} numbers +1 or -1.")
    if free:
        size = np.sqrt(np.linalg.norm(w, axis=1))
        start = np.concatenate([rng.choice([-1, 1], size=units) * size, (w / size[:, None]).reshape(-1)])
        objective = _free(units, dim, alpha)
    else:
        start, objective = w.reshape(-1), with_signs(fixed, dim, alpha)

    def as_network(x: Array) -> Network:
        a, v = (x[:units], x[units:].reshape(units, dim)) if free else (fixed, x.reshape(units, dim))
        return single(v, a, alpha)

    return minimise(objective, start, as_network, frames)


def minimise(objective: Objective, start: Array, as_network: Callable[[Array], Network], frames: int) -> Trained:
    """L-BFGS from `start`, then Newton steps."""
    points: list[Array] = [start]
    found = minimize(
        objective[0], start, jac=objective[1], method="L-BFGS-B", callback=lambda x: points.append(np.array(x)),
        options={"maxiter": 5000, "maxfun": 20000, "ftol": 0.0, "gtol": 1e-9, "maxcor": 30},
    )  # fmt: skip
    x, steps = polish(objective, found.x)
    chosen = sorted({int(i) - 1 for i in np.geomspace(1, len(points), frames)}) if frames > 1 else []
    path = (*(as_network(points[i]) for i in chosen), as_network(x))
    rms = math.sqrt(max(objective[0](x), 0.0))
    return Trained(path[-1], rms, float(np.abs(objective[1](x)).max()), int(found.nit) + steps, path)


def single(w: Array, a: Array, slope: float) -> Network:
    """The network sum_i a_i phi(w_i . x) with phi(z) = z above 0 and slope z below."""
    return Network((Layer(w, Slopes(np.ones(len(w)), np.full(len(w), float(slope)))),), np.asarray(a, dtype=float))


def with_signs(a: Array, dim: int, slope: float) -> Objective:
    """The population loss in the hidden weights alone, the output weights fixed to `a`."""
    n = len(a)
    return (
        lambda x: population.loss(a, x.reshape(n, dim), slope),
        lambda x: population.gradient(a, x.reshape(n, dim), slope)[1].reshape(-1),
        lambda x: population.hessian(a, x.reshape(n, dim), slope)[n:, n:],
    )


def _free(n: int, dim: int, slope: float) -> Objective:
    def parts(x: Array) -> tuple[Array, Array]:
        return x[:n], x[n:].reshape(n, dim)

    def gradient(x: Array) -> Array:
        da, dw = population.gradient(*parts(x), slope)
        return np.concatenate([da, dw.reshape(-1)])

    return (
        lambda x: population.loss(*parts(x), slope),
        gradient,
        lambda x: population.hessian(*parts(x), slope),
    )


def polish(objective: Objective, x: Array, tolerance: float = 1e-15, limit: int = 60) -> tuple[Array, int]:
    """Newton steps with a pseudo-inverse over the gauge's zero modes (rotations, scales), while the gradient falls."""
    value, gradient, hessian = objective
    g, f = gradient(x), value(x)
    for step in range(limit):
        if np.abs(g).max() < tolerance:
            return x, step
        eigenvalue, frame = np.linalg.eigh(hessian(x))
        solid = np.abs(eigenvalue) > 1e-9 * np.abs(eigenvalue).max()
        move = -frame[:, solid] @ ((frame[:, solid].T @ g) / np.abs(eigenvalue[solid]))
        for shrink in 0.5 ** np.arange(12):
            there = x + shrink * move
            g_there, f_there = gradient(there), value(there)
            if f_there <= f + 1e-15 and np.abs(g_there).max() < np.abs(g).max() or f_there < f - 1e-13:
                break
        else:
            return x, step
        x, g, f = there, g_there, f_there
    return x, limit
