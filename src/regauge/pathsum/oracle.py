"""Exact answers in the continuum: the spectrum of H = p^2/2m + V on a sinc grid.

Colbert and Miller's discrete variable representation (J. Chem. Phys. 96, 1982 (1992)), hbar = 1. Computed on two grids.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, eigsh

from regauge.errors import InputError
from regauge.pathsum.grid import Array, agree, box, points
from regauge.pathsum.potential import Potential

POINTS = {1: 240, 2: 48, 3: 26}  # per coordinate, on the first grid
DEPTH = {1: 21.0, 2: 17.0, 3: 14.0}  # amplitudes at the wall are exp(-depth); energies err by its square
TOLERANCE = {1: 1e-10, 2: 1e-9, 3: 1e-6}
DENSE = 1200


@dataclass(frozen=True)
class Spectrum:
    """The lowest `energies`; of the ground state <x_d> and <x_d^2>; `error`: the largest difference between two
    grids."""

    energies: tuple[float, ...]
    mean: tuple[float, ...]
    square: tuple[float, ...]
    error: float

    @property
    def gap(self) -> float:
        return self.energies[1] - self.energies[0]


def spectrum(
    v: Potential, masses: tuple[float, ...] = (1.0,), levels: int = 3, tolerance: float | None = None
) -> Spectrum:
    """The lowest levels of p^2/2m + V in up to 3 dimensions.

    Raises CheckError if two grids differ by more than `tolerance`, relative to 1 + |E| (default 1e-10 in one
    dimension).
    """
    if v.dim != len(masses):
        raise InputError(
            f"potential {v.text!r} has {v.dim} coordinates, but {len(masses)} masses are given: give one each"
        )
    if v.dim not in POINTS:
        raise InputError(
            f"exact spectrum of {v.text!r}: {v.dim} coordinates, grids reach 3: solve separable parts apart"
        )
    mass = np.array(masses, float)
    rough = _levels(v, mass, levels, 24 if v.dim == 3 else 40, 8.0, 1.0)[0]
    top = float(rough[-1])
    found, error = agree(
        lambda k: _levels(v, mass, levels, int(POINTS[v.dim] * 1.25**k), DEPTH[v.dim] * 1.1**k, top),
        TOLERANCE[v.dim] if tolerance is None else tolerance,
        repr(v.text),
    )
    energies, mean, square = found
    return Spectrum(tuple(map(float, energies)), tuple(map(float, mean)), tuple(map(float, square)), error)


def _levels(
    v: Potential, masses: Array, levels: int, count: int, depth: float, top: float
) -> tuple[Array, Array, Array]:
    low, high = box(v, masses, top, depth)
    even = v.even
    if even:
        low, high = np.minimum(low, -high), np.maximum(high, -low)
    grids = [np.linspace(a, b, count) for a, b in zip(low, high, strict=True)]
    x = points(grids)
    energies, states = _lowest([_kinetic(g, m) for g, m in zip(grids, masses, strict=True)], v(x), levels)
    weight = states[:, 0] ** 2
    if even:  # a ground state that is degenerate to rounding is still even
        weight = 0.5 * (weight + weight[::-1])
    return energies, (x * weight).sum(1), (x**2 * weight).sum(1)


def _kinetic(grid: Array, mass: float) -> Array:
    """-(1/2m) d^2/dx^2 on the grid: pi^2/3 on the diagonal, 2 (-1)^n / n^2 off it, over 2 m h^2."""
    n = np.arange(len(grid))
    apart = n[:, None] - n[None]
    far = np.where(apart == 0, 1, apart)
    return np.where(apart == 0, np.pi**2 / 3, 2.0 * (-1.0) ** apart / far**2) / (2 * mass * (grid[1] - grid[0]) ** 2)


def _lowest(kinetic: list[Array], height: Array, levels: int) -> tuple[Array, Array]:
    shape = tuple(len(k) for k in kinetic)
    size = math.prod(shape)
    # a cap far above the levels in question keeps Lanczos quick and moves them by less than exp(-depth)
    height = np.minimum(height, height.min() + 1e4)
    if size <= DENSE:
        h = np.diag(height)
        for axis, k in enumerate(kinetic):
            left, right = np.eye(math.prod(shape[:axis])), np.eye(math.prod(shape[axis + 1 :]))
            h = h + np.kron(np.kron(left, k), right)
        return linalg.eigh(h, subset_by_index=(0, levels - 1))

    def apply(state: Array) -> Array:
        grid = state.reshape(shape)
        total = height.reshape(shape) * grid
        for axis, k in enumerate(kinetic):
            total = total + np.moveaxis(np.tensordot(k, grid, (1, axis)), 0, axis)
        return total.reshape(-1)

    operator = LinearOperator((size, size), matvec=apply, dtype=float)
    start = np.exp(-np.minimum(height - height.min(), 50.0)) + 1e-3
    values, states = eigsh(operator, levels, which="SA", v0=start, tol=1e-12, ncv=max(60, 6 * levels), maxiter=4000)
    order = np.argsort(values)
    return values[order], states[:, order]
