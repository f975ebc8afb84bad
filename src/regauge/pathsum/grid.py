"""Boxes and uniform grids for exact answers, and the rule that an exact answer is computed twice.

The box ends where a state of energy E has decayed by exp(-depth): the WKB action, the integral of sqrt(2 m (V - E)),
along rays from the minimum. On a uniform grid smooth decaying functions then converge exponentially in the number of
points.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.optimize import minimize

from regauge.errors import CheckError

Array = np.ndarray
Function = Callable[[Array], Array]  # (D, points) -> (points,)
FARTHEST = 1e3


def box(value: Function, masses: Array, energy: float, depth: float) -> tuple[Array, Array]:
    """Lowest and highest corner, (D,) each, of where a state of this energy lives to within exp(-depth)."""
    centre = minimum(value, len(masses))
    low, high = centre.copy(), centre.copy()
    steps = np.concatenate([[0.0], np.geomspace(1e-4, FARTHEST, 3000)])
    for ray in _rays(len(masses)):
        with np.errstate(all="ignore"):
            height = np.nan_to_num(value(centre[:, None] + ray[:, None] * steps), nan=np.inf) - energy
            rate = np.sqrt(2 * (masses * ray**2).sum() * np.minimum(np.maximum(height, 0), 1e12))
        lost = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(steps))])
        lost[: np.flatnonzero(height <= 0)[-1] + 1 if (height <= 0).any() else 0] = (
            0.0  # a well farther out counts anew
        )
        end = centre + ray * steps[min(int(np.searchsorted(lost, depth)), len(steps) - 1)]
        low, high = np.minimum(low, end), np.maximum(high, end)
    return low, high


def _rays(dim: int) -> Array:
    rays = np.concatenate([np.eye(dim), -np.eye(dim)])
    if dim > 1:
        corners = np.array(list(product((-1.0, 0.0, 1.0), repeat=dim)))
        random = np.random.default_rng(1).standard_normal((200, dim))
        rays = np.concatenate([rays, corners[np.abs(corners).sum(1) > 0], random])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def minimum(value: Function, dim: int) -> Array:
    """The lowest point found from starts on a coarse grid, (D,)."""
    ticks = np.array([-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0])
    starts = np.array(list(product(ticks, repeat=dim))) if dim <= 4 else np.zeros((1, dim))
    heights = value(starts.T)
    best = starts[np.argsort(heights, kind="stable")[:3]]
    found = [minimize(lambda x: float(value(x[:, None])[0]), s, method="Nelder-Mead") for s in best]
    return min(found, key=lambda r: r.fun).x


def points(grids: list[Array]) -> Array:
    """All points of a product grid, (D, number), in C order."""
    return np.stack([g.reshape(-1) for g in np.meshgrid(*grids, indexing="ij")])


def agree(compute: Callable[[int], tuple], tolerance: float, what: str, tries: int = 4) -> tuple[tuple, float]:
    """compute(0), compute(1), ... on finer and wider grids until two in a row agree, relative to 1 + |value|.

    Returns the finer answer and the difference; raises CheckError when none agree.
    """
    coarse, error = compute(0), np.inf
    for level in range(1, tries):
        fine = compute(level)
        error = max(_apart(a, b) for a, b in zip(coarse, fine, strict=True))
        if error <= tolerance:
            return fine, error
        coarse = fine
    raise CheckError(
        f"exact answer for {what}: two grids differ by {error:.1e}, above {tolerance:.0e}: the potential is "
        f"too rough or too "
        f"wide for a uniform grid: rescale the coordinate, or accept a larger tolerance"
    )


def _apart(a: Array, b: Array) -> float:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return float(np.max(np.abs(a - b) / (1 + np.abs(b))))
