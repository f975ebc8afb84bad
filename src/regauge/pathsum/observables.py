"""What paths tell: energy by the virial theorem, <x>, <x^2>, the correlator, and the gap through the effective mass.

E = <V + x.V'/2>,   C(t) = <x(0) x(t)>,   gap(t) = arccosh((C(t-s) + C(t+s)) / 2 C(t)) / (s eps)   (periodic,
connected C)
"""

from dataclasses import dataclass

import numpy as np

from regauge.pathsum.lattice import Array, Lattice, laplacian
from regauge.pathsum.potential import Potential
from regauge.pathsum.sample import Average, Sample, WeightedSample, average, derived, mean
from regauge.pathsum.transfer import LatticeExact

PRECISION = 1e-8  # of exact values, relative to 1 + |value|: their largest tolerance


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: the estimate, and the exact value on this lattice where there is one."""

    name: str
    average: Average
    exact: float | None = None

    @property
    def pull(self) -> float | None:
        """(estimate - exact) / error, the error no smaller than the exact value's own."""
        if self.exact is None:
            return None
        error = float(np.hypot(self.average.error, PRECISION * (1 + abs(self.exact))))
        return (self.average.value - self.exact) / error


def virial(lattice: Lattice, v: Potential, q: Array, centre: Array | None = None) -> Array:
    """V + (x - centre).V'/2 per path (<V'> = 0, so any centre (D,) gives the same average, and one near the paths
    less noise), averaged over time; for a field summed over space, its spatial links included. q (..., D, sites)."""
    away = q if centre is None else q - centre[:, None]
    local = v(q) + 0.5 * (away * v.gradient(q)).sum(-2)
    if len(lattice.axes) == 1:
        return local.mean(-1)
    space = Lattice(lattice.axes[1:], lattice.masses)
    grid = q.reshape(*q.shape[:-1], lattice.time.sites, space.sites)
    links = -np.einsum("d,...dtk,...dtk->...", lattice.mass, grid, laplacian(space, grid))
    return (local.sum(-1) + links) * space.volume / lattice.time.sites


def correlator(lattice: Lattice, q: Array) -> Array:
    """x_d(0) x_d(t) per path for t = 0 .. sites/2, (..., D, T): averaged over the start and over space (periodic),
    or from the first site (open)."""
    m = lattice.time.sites
    grid = q.reshape(*q.shape[:-1], m, -1)
    if lattice.time.ends == "open":
        return (grid[..., :1, :] * grid[..., : m // 2 + 1, :]).mean(-1)
    waves = np.fft.rfft(grid, axis=-2)
    return np.fft.irfft((np.abs(waves) ** 2).mean(-1), m, axis=-1)[..., : m // 2 + 1] / m


def effective_mass(c: Array, at: int, stride: int, spacing: float) -> float:
    """The gap seen by a periodic connected correlator c (T,) at t = at; nan where noise has left no real solution."""
    ratio = (c[at - stride] + c[at + stride]) / (2 * c[at]) if c[at] else np.nan
    return float(np.arccosh(ratio) / (stride * spacing)) if ratio >= 1 else float("nan")


def window(c: Array) -> tuple[int, int]:
    """(at, stride) where a connected correlator has fallen to about a quarter: later is noise, earlier is excited
    states."""
    below = np.flatnonzero(c < 0.25 * c[0])
    at = int(below[0]) if len(below) else len(c) // 2
    at = max(1, min(at, len(c) - 2))
    return at, max(1, min(at // 2, len(c) - 1 - at))


def table(lattice: Lattice, v: Potential, sample: Sample, exact: LatticeExact | None = None) -> list[Row]:
    """Energy, the free energy where the sample knows its partition sum, then <x>, <x^2> and the gap for each
    coordinate. The gap is compared with the effective mass of the *exact correlator at the same time*, so that no
    excited state enters the pull."""
    q = sample.paths
    energy = average(sample, virial(lattice, v, q, mean(sample, q.mean(-1))))
    rows = [Row("energy", energy, None if exact is None else exact.energy)]
    if isinstance(sample, WeightedSample) and len(lattice.axes) == 1:
        rows.append(_free_energy_row(lattice, sample, exact))
    for d, name in enumerate(v.names):
        flat, square = q[..., d, :].mean(-1), (q[..., d, :] ** 2).mean(-1)
        rows.append(Row(f"<{name}>", average(sample, flat), None if exact is None else float(exact.mean[d])))
        rows.append(Row(f"<{name}^2>", average(sample, square), None if exact is None else float(exact.square[d])))
        if lattice.time.ends == "periodic":
            rows.append(_gap_row(lattice, sample, name, d, exact))
    return rows


def _free_energy_row(lattice: Lattice, sample: WeightedSample, exact: LatticeExact | None) -> Row:
    """F = -log Tr exp(-beta H) / beta: the ground-state energy of the lattice, up to excitations. The integral over
    sites becomes the trace with a factor sqrt(m / 2 pi eps) for each link."""
    eps = lattice.time.spacing
    links = lattice.sites - (lattice.time.ends == "open")
    free = 0.5 * links * np.log(2 * np.pi * eps / lattice.mass).sum()
    value, error = sample.log_z
    known = None if exact is None else (free - exact.log_z) / (links * eps)
    size = sample.efficiency * len(sample.log_weights)
    return Row("free energy", Average((free - value) / (links * eps), error / (links * eps), size), known)


def connected(lattice: Lattice, sample: Sample, d: int) -> tuple[Array, Array]:
    """(correlator, position) of coordinate d per path, (..., T) and (...,), about the sample's mean: what is left to
    subtract, the square of the mean, is then small."""
    x = sample.paths[..., d : d + 1, :]
    x = x - mean(sample, x.mean(-1))[0]
    return correlator(lattice, x)[..., 0, :], x.mean((-2, -1))


def _gap_row(lattice: Lattice, sample: Sample, name: str, d: int, exact: LatticeExact | None) -> Row:
    spacing = lattice.time.spacing
    c, flat = connected(lattice, sample, d)
    known = None if exact is None else exact.correlator[d] - exact.mean[d] ** 2
    at, stride = window(mean(sample, c) if known is None else known)
    picked = np.concatenate([c[..., [at - stride, at, at + stride]], flat[..., None]], -1)

    def gap(x: Array) -> float:
        return effective_mass(x[:3] - x[3] ** 2, 1, 1, stride * spacing)

    value = None if known is None else effective_mass(known, at, stride, spacing)
    return Row(f"gap {name} (t={at * spacing:.3g})", derived(sample, picked, gap), value)
