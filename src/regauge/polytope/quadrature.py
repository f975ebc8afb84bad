"""Product Gauss rules on the unit sphere S^{d-1}, for any d: exact on polynomials up to a degree."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import roots_jacobi

from regauge.errors import InputError
from regauge.polytope.net import Array


def sphere_rule(dim: int, degree: int) -> tuple[Array, Array]:
    """Points (n, dim) on the unit sphere and weights (n,) that sum to 1, exact up to `degree`.

    x = (t, sqrt(1 - t^2) y): t has the density (1 - t^2)^((d - 3)/2), y is uniform on the sphere one dimension lower.
    Raises InputError for dim < 2.
    """
    if dim < 2:
        raise InputError(f"a sphere rule needs dimension 2 or more, not {dim}.")
    if dim == 2:
        angle = 2 * np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full(degree + 1, 1 / (degree + 1))
    t, weight = roots_jacobi(degree // 2 + 1, (dim - 3) / 2, (dim - 3) / 2)
    lower, low_weight = sphere_rule(dim - 1, degree)
    points = np.concatenate([np.repeat(t, len(lower))[:, None], np.kron(np.sqrt(1 - t**2)[:, None], lower)], axis=1)
    return points, np.kron(weight / weight.sum(), low_weight)


def rule_of_size(dim: int, points: int) -> tuple[Array, Array]:
    """The smallest product rule with at least this many points."""
    degree = max(2, int(math.ceil((2 ** (dim - 2) * points) ** (1 / (dim - 1)))) - 2)
    while len((rule := sphere_rule(dim, degree))[0]) < points:
        degree += 1
    return rule
