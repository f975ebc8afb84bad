"""What paths tell: energy by the virial theorem, <x>, <x^2>, the correlator, and the gap through the effective mass.

E = <V + x.V'/2>,   C(t) = <x(0) x(t)>,   gap(t) = arccosh((C(t-s) + C(t+s)) / 2 C(t)) / (s eps)   (periodic,
connected C)
"""

from dataclasses import dataclass

import numpy as np

from regauge.pathsum.lattice import Array, Lattice, laplacian
from regauge.pathsum.potential import Potential
from regauge.pathsum.sample import Average, Sample, average, derived, mean
from regauge.pathsum.transfer import LatticeExact


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: the estimate, and the exact value on this lattice where there is one."""

    name: str
    average: Average
    exact: float | None = None

    @property
    def pull(self) -> float | None:
        return None if self.exact is None else self.average.pull(self.exact)


def virial(lattice: Lattice, v: Potential, q: Array) -> Array:
    """V + x.V'/2 per path, averaged over time; for a field summed over space, its spatial links included. q (..., D,
    sites)."""
    local = v(q) + 0.5 * (q * v.gradient(q)).sum(-2)
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
    """Energy, then <x>, <x^2> and the gap for each coordinate. The gap is compared with the effective mass of the
    *exact correlator at the same time*, so that no excited state enters the pull."""
    q = sample.paths
    rows = [Row("energy", average(sample, virial(lattice, v, q)), None if exact is None else exact.energy)]
    series = correlator(lattice, q)
    for d, name in enumerate(v.names):
        flat, square = q[..., d, :].mean(-1), (q[..., d, :] ** 2).mean(-1)
        rows.append(Row(f"<{name}>", average(sample, flat), None if exact is None else float(exact.mean[d])))
        rows.append(Row(f"<{name}^2>", average(sample, square), None if exact is None else float(exact.square[d])))
        if lattice.time.ends == "periodic":
            rows.append(_gap_row(lattice, sample, series[..., d, :], flat, name, d, exact))
    return rows


def _gap_row(
    lattice: Lattice, sample: Sample, c: Array, flat: Array, name: str, d: int, exact: LatticeExact | None
) -> Row:
    spacing = lattice.time.spacing
    level = mean(sample, flat[..., None])[0]
    shift = level if exact is None else float(exact.mean[d])
    at, stride = window((mean(sample, c) if exact is None else exact.correlator[d]) - shift**2)
    picked = np.concatenate([c[..., [at - stride, at, at + stride]], flat[..., None]], -1)

    def gap(x: Array) -> float:
        return effective_mass(x[:3] - x[3] ** 2, 1, 1, stride * spacing)

    known = None if exact is None else effective_mass(exact.correlator[d] - shift**2, at, stride, spacing)
    return Row(f"gap {name} (t={at * spacing:.3g})", derived(sample, picked, gap), known)
