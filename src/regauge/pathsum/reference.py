"""The Gaussian theory nearest to a potential: Hartree's gap equation, solved on the lattice itself.

Among all Gaussian references with one frequency matrix mu^2 and one shift c, the variational free energy is
stationary where

    <dV/dx> = 0   and   sqrt(m) mu^2 sqrt(m) = <d2V/dx dx> = <(x - c) dV/dx> C^-1   (Stein; no second derivative is
    needed)

with x ~ N(c, C), C the site covariance of the reference. For x^2/2 + lambda x^4 it reads mu^2 = 1 + 12 lambda C.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import minimum_filter
from scipy.optimize import brentq
from scipy.stats import norm, qmc

from regauge.errors import CheckError
from regauge.pathsum.grid import box, minimum, points
from regauge.pathsum.lattice import Array, Lattice, check_coordinates
from regauge.pathsum.maps import LinearMap, whitened
from regauge.pathsum.potential import Potential

NODES = {1: 64, 2: 32, 3: 16}  # Gauss-Hermite points per coordinate; above 3 coordinates, Sobol points


@dataclass(frozen=True, eq=False)
class Reference:
    """shift (D,), mu2 (D,) in the normal coordinates y, x = shift + frame y (frame (D, D), mass-weighted and
    orthogonal); covariance (D, D) of x at one site, and the steps the iteration took."""

    shift: Array
    mu2: Array
    frame: Array
    covariance: Array
    steps: int

    def map(self, lattice: Lattice) -> LinearMap:
        """The whitened map whose iid N(0, 1) weights are this reference."""
        return whitened(lattice, self.mu2, self.frame, self.shift)


def gap_equation(
    lattice: Lattice, v: Potential, start: Array | None = None, tolerance: float = 1e-10, most: int = 2000
) -> Reference:
    """Solve for (shift, mu^2) by damped iteration from `start` (D,); several wells have several solutions. With no
    start, an even potential keeps shift 0: a broken symmetry would hide the other well from every sampler that
    starts in the reference.

    Raises CheckError when the iteration does not settle.
    """
    check_coordinates(lattice, v)
    nodes, weights = _nodes(lattice.dim)
    root = np.sqrt(lattice.mass)
    shift = np.zeros(lattice.dim) if start is None else np.array(start, float).reshape(lattice.dim)
    stiff, damping, before = np.diag(root**2), 0.5, np.inf
    for count in range(most):
        reference = _of(lattice, shift, stiff, root, count)
        x = shift[:, None] + np.linalg.cholesky(reference.covariance) @ nodes
        slope = v.gradient(x)
        mean = slope @ weights
        bend = np.linalg.solve(reference.covariance, ((x - shift[:, None]) * weights) @ slope.T)
        bend = _near(0.5 * (bend + bend.T), float(np.linalg.eigvalsh(stiff)[-1]))
        move = np.zeros_like(shift) if start is None and v.even else -np.linalg.solve(bend, mean)
        moved = float(np.abs(bend - stiff).max() / np.abs(bend).max() + np.abs(move).max())
        damping, before = (max(0.7 * damping, 0.02) if moved >= before else min(1.05 * damping, 0.5)), moved
        shift, stiff = shift + damping * move, (1 - damping) * stiff + damping * bend
        if moved < tolerance:
            return _of(lattice, shift, stiff, root, count)
    raise CheckError(
        f"gap equation of {v.text!r}: no solution to {tolerance:.0e} in {most} steps (last move {moved:.1e}): "
        f"start nearer to a "
        f"well (start=...), or give mu^2 to the whitened map by hand"
    )


def covering(lattice: Lattice, v: Potential) -> Reference:
    """A reference wide enough for every well. With one basin it is the gap equation's; with several, the Gaussian
    with the mean and site covariance of the density exp(-(V - min V) / T), T the lowest energy that the gap equation
    finds in any basin: a stand-in for zero-point motion that reaches every well within a few T of the lowest."""
    check_coordinates(lattice, v)
    starts = _basins(lattice, v)
    if len(starts) < 2:
        return gap_equation(lattice, v, None if v.even else starts[0])
    bottom = min(float(v(at[:, None])[0]) for at in starts)
    energies = []
    for at in starts:
        try:
            energies.append(_energy(v, gap_equation(lattice, v, at, tolerance=1e-6)))
        except CheckError:
            continue
    if not energies:
        return gap_equation(lattice, v, starts[0])
    shift, spread = _classical(lattice, v, bottom, max(min(energies) - bottom, 1e-3))
    root = np.sqrt(lattice.mass)
    each, turn = np.linalg.eigh(spread * np.outer(root, root))
    mu2 = np.array([_frequency(lattice, c) for c in each])
    return Reference(shift, mu2, turn / root[:, None], spread, len(energies))


def _energy(v: Potential, reference: Reference) -> float:
    """<V + (x - c).V'/2> in the reference."""
    nodes, weights = _nodes(v.dim)
    away = np.linalg.cholesky(reference.covariance) @ nodes
    x = reference.shift[:, None] + away
    return float((v(x) + 0.5 * (away * v.gradient(x)).sum(0)) @ weights)


def _classical(lattice: Lattice, v: Potential, bottom: float, energy: float) -> tuple[Array, Array]:
    grids = _grids(lattice, v, bottom + 12 * energy, {1: 801, 2: 121, 3: 41}.get(v.dim, 9))
    x = points(grids)
    density = np.exp(-(v(x) - bottom) / energy)
    density /= density.sum()
    shift = x @ density
    away = x - shift[:, None]
    return shift, (away * density) @ away.T


def _basins(lattice: Lattice, v: Potential) -> list[Array]:
    """The lowest points of V on a coarse grid, one for each basin within reach."""
    bottom = float(v(minimum(v, v.dim)[:, None])[0])
    grids = _grids(lattice, v, bottom + 3.0, {1: 81, 2: 25, 3: 9}.get(v.dim, 5))
    shape = [len(g) for g in grids]
    heights = v(points(grids)).reshape(shape)
    lowest = np.argwhere(heights == minimum_filter(heights, 3, mode="nearest"))
    return [np.array([g[i] for g, i in zip(grids, at, strict=True)]) for at in lowest[:32]]


def _grids(lattice: Lattice, v: Potential, energy: float, count: int) -> list[Array]:
    return [np.linspace(a, b, count) for a, b in zip(*box(v, lattice.mass, energy, 1.0), strict=True)]


def _frequency(lattice: Lattice, covariance: float) -> float:
    """mu^2 with this covariance at a site (unit mass)."""

    def over(log_mu2: float) -> float:
        return float(np.log((1 / (lattice.rates() + np.exp(log_mu2))).mean() / lattice.volume / covariance))

    return float(np.exp(brentq(over, -40, 40)))


def _of(lattice: Lattice, shift: Array, stiff: Array, root: Array, steps: int) -> Reference:
    mu2, turn = np.linalg.eigh(stiff / np.outer(root, root))
    frame = turn / root[:, None]
    each = (1 / (lattice.rates()[:, None] + mu2)).mean(0) / lattice.volume
    return Reference(shift, mu2, frame, (frame * each) @ frame.T, steps)


def _near(bend: Array, scale: float) -> Array:
    """A symmetric matrix with its eigenvalues held within a factor of the present scale: barriers curve downwards,
    walls steeply."""
    values, turn = np.linalg.eigh(bend)
    return (turn * np.clip(values, 1e-2 * scale, 1e2 * scale)) @ turn.T


def _nodes(dim: int) -> tuple[Array, Array]:
    if dim not in NODES:
        points = norm.ppf(qmc.Sobol(dim, seed=0).random_base2(14)).T
        return points, np.full(points.shape[1], 1 / points.shape[1])
    x, w = np.polynomial.hermite_e.hermegauss(NODES[dim])
    w = w / w.sum()
    return np.array(list(product(x, repeat=dim))).T, np.array([np.prod(p) for p in product(w, repeat=dim)])
