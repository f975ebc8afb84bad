"""Exact answers on the lattice: sums over paths by powers of the transfer matrix, free of any discretisation error.

    T(x, y) = exp(-eps V(x)/2) sqrt(m / 2 pi eps) exp(-m (x-y)^2 / 2 eps) exp(-eps V(y)/2),   Z = Tr T^M (periodic)

A uniform grid of spacing h errs by exp(-2 pi^2 eps / m h^2). Computed on two grids.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from regauge.errors import InputError
from regauge.pathsum.grid import Array, Function, agree, box, minimum, points
from regauge.pathsum.lattice import Lattice, check_coordinates
from regauge.pathsum.potential import Potential

LARGEST = {1: 2000}  # grid points; with several coordinates, 12000
DENSE = 700


@dataclass(frozen=True, eq=False)
class LatticeExact:
    """What a perfect sampler of this lattice finds.

    energy <V + x.V'/2> averaged over sites (for a field: of all of space); mean <x_d>, square <x_d^2> (D,); correlator
    <x_d(0) x_d(t)> (D, sites/2 + 1), averaged over the start when periodic; log_z of the integral of exp(-S) over
    all sites; ground and gap from the two largest eigenvalues of T; error between two grids, relative to 1 +
    |value|. A field has D = 1, averaged over space.
    """

    energy: float
    mean: Array
    square: Array
    correlator: Array
    log_z: float
    ground: float
    gap: float
    error: float


def lattice_exact(lattice: Lattice, v: Potential, tolerance: float = 1e-10) -> LatticeExact:
    """One axis with up to 2 coordinates, or one field with a second axis of 2 sites (which is 2 coupled coordinates).

    Raises CheckError if two grids differ by more than `tolerance`, InputError where the grid would be too large.
    """
    check_coordinates(lattice, v)
    time, value, virial = _as_mechanics(lattice, v)
    found, error = agree(lambda k: _sums(time, value, virial, k), tolerance, repr(v.text), tries=5)
    energy, mean, square, correlator, log_z, ground, gap = found
    if len(lattice.axes) > 1:
        mean, square, correlator = (
            mean.mean(keepdims=True),
            square.mean(keepdims=True),
            correlator.mean(0, keepdims=True),
        )
    return LatticeExact(float(energy), mean, square, correlator, float(log_z), float(ground), float(gap), error)


def _as_mechanics(lattice: Lattice, v: Potential) -> tuple[Lattice, Function, Function]:
    """(path lattice, V, V + x.V'/2): a field on a few points of space is as many coordinates, its spatial links part
    of V."""
    if len(lattice.axes) == 1:
        return lattice, v, lambda x: v(x) + 0.5 * (x * v.gradient(x)).sum(-2)
    if lattice.dim != 1:
        raise InputError(
            "exact sums for several fields are not here: give one field, or one axis with several coordinates"
        )
    space, mass = Lattice(lattice.axes[1:]), lattice.masses[0]
    cell, waves = space.volume, space.modes()
    stiffness = (waves * space.rates() * mass) @ waves.T

    def links(x: Array) -> Array:
        return np.einsum("a...,ab,b...->...", x, stiffness, x)

    def value(x: Array) -> Array:
        return cell * (sum(v(x[a : a + 1]) for a in range(len(x))) + 0.5 * links(x))

    def virial(x: Array) -> Array:
        each = (v(x[a : a + 1]) + 0.5 * x[a] * v.gradient(x[a : a + 1])[0] for a in range(len(x)))
        return cell * (sum(each) + links(x))

    return Lattice(lattice.axes[:1], (mass * cell,) * space.sites), value, virial


def _sums(lattice: Lattice, value: Function, virial: Function, level: int) -> tuple:
    eps, masses, m = lattice.time.spacing, lattice.mass, lattice.sites
    bottom = float(value(minimum(value, lattice.dim)[:, None])[0])
    low, high = box(value, masses, bottom + 30.0 / (eps * m) + 3.0, 16.0 * 1.15**level)
    # the kernel's width must be resolved, and V too, so no coordinate gets fewer than `fewest` points
    fine, fewest = 0.8 / 1.2**level, 70 * 1.6**level if lattice.dim == 1 else 22 * 1.2**level
    counts = [max(fewest, (b - a) / (fine * math.sqrt(eps / w))) for a, b, w in zip(low, high, masses, strict=True)]
    most = LARGEST.get(lattice.dim, 12000)
    if math.prod(counts) > most:
        raise InputError(
            f"transfer matrix of {math.prod(counts):.0f} grid points, above {most}: take fewer sites in time "
            f"(a step is "
            f"{eps:.3g} now), or fewer coordinates"
        )
    grids = [np.linspace(a, b, int(n) + 1) for a, b, n in zip(low, high, counts, strict=True)]
    x = points(grids)
    step = Step(
        np.exp(-0.5 * eps * (value(x) - bottom)), tuple(_free(g, w, eps) for g, w in zip(grids, masses, strict=True))
    )
    lam, states = step.largest(m if lattice.time.ends == "periodic" else 1)
    sums = _periodic if lattice.time.ends == "periodic" else _open
    *averages, log_z = sums(step, lam, states, x, virial(x), m)
    links = m if lattice.time.ends == "periodic" else m - 1
    log_z += 0.5 * links * np.log(2 * math.pi * eps / masses).sum() - eps * m * bottom
    if lattice.time.ends == "open":
        log_z += sum(math.log(g[1] - g[0]) for g in grids)
    return *averages, log_z, bottom - math.log(lam[0]) / eps, -math.log(lam[1] / lam[0]) / eps


def _free(grid: Array, mass: float, eps: float) -> Array:
    apart = grid[:, None] - grid[None]
    return np.exp(-mass * apart**2 / (2 * eps)) * (grid[1] - grid[0]) * math.sqrt(mass / (2 * math.pi * eps))


@dataclass(frozen=True, eq=False)
class Step:
    """T on a product grid: `half` = exp(-eps V/2) on all points, `free` the step of each coordinate."""

    half: Array
    free: tuple[Array, ...]

    def __call__(self, states: Array) -> Array:
        """T on the columns of `states` (points, number)."""
        grid = (self.half[:, None] * states).reshape(*(len(k) for k in self.free), -1)
        for axis, k in enumerate(self.free):
            grid = np.moveaxis(np.tensordot(k, grid, (1, axis)), 0, axis)
        return self.half[:, None] * grid.reshape(states.shape)

    def largest(self, steps: int) -> tuple[Array, Array]:
        """Eigenvalues, falling, and states: all that matter to 1e-15 after steps/2 applications."""
        size = len(self.half)
        if size <= DENSE or len(self.free) == 1:
            lam, states = np.linalg.eigh(self(np.eye(size)))
        else:
            operator = LinearOperator((size, size), matvec=lambda s: self(s[:, None])[:, 0], matmat=self, dtype=float)
            for count in (40, 100, 250, 600):
                lam, states = eigsh(operator, count, which="LA", v0=self.half, ncv=2 * count, tol=1e-13)
                if (lam.min() / lam.max()) ** (steps / 2) < 1e-15:
                    break
        order = np.argsort(lam)[::-1]
        matter = np.maximum(lam[order] / lam.max(), 0) ** max(steps / 2, 1) > 1e-18
        matter[:2] = True  # the gap is asked for even where it does not matter
        order = order[matter]
        return lam[order], states[:, order]


def _periodic(step: Step, lam: Array, states: Array, x: Array, virial: Array, m: int) -> tuple:
    ratio = lam / lam[0]
    total = (ratio**m).sum()
    density = (states**2 * ratio**m).sum(1) / total
    correlator = []
    for row in x:
        ahead, series = row[:, None] * states, []
        for t in range(m // 2 + 1):
            series.append((row[:, None] * states * ahead).sum(0) @ ratio ** (m - t) / total)
            ahead = step(ahead) / lam[0]
        correlator.append(series)
    return virial @ density, x @ density, x**2 @ density, np.array(correlator), m * math.log(lam[0]) + math.log(total)


def _open(step: Step, lam: Array, states: Array, x: Array, virial: Array, m: int) -> tuple:
    """Z = the integral of exp(-eps V/2) T^(m-1) exp(-eps V/2) over both ends, which are free."""
    left = [step.half]
    for _ in range(m - 1):
        left.append(step(left[-1][:, None])[:, 0] / lam[0])
    ahead = np.array(left)
    total = ahead[-1] @ step.half
    density = (ahead * ahead[::-1]).mean(0) / total
    correlator = []
    for row in x:
        series, first = [], row * step.half
        for t in range(m // 2 + 1):
            series.append((first * row) @ ahead[m - 1 - t] / total)
            first = step(first[:, None])[:, 0] / lam[0]
        correlator.append(series)
    return (
        virial @ density,
        x @ density,
        x**2 @ density,
        np.array(correlator),
        (m - 1) * math.log(lam[0]) + math.log(total),
    )
