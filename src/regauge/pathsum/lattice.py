"""Lattices in Euclidean time (and space), the action on them, and their normal modes.

    S(q) = v * [ sum_links m (dq)^2 / (2 a^2) + sum_sites V(q) ],   v = the product of the spacings a

One axis is time: a path of D coordinates ("several particles" are several coordinates). Further axes make it a
scalar field. Paths are arrays (samples, D, sites), with sites in C order over the axes. Units: hbar = 1.
"""

import math
from dataclasses import dataclass

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.potential import Potential

Array = np.ndarray
ENDS = ("periodic", "open")


@dataclass(frozen=True)
class Axis:
    """`sites` points at distance `spacing`; the ends are joined ("periodic") or free ("open", no link, no fixed
    value)."""

    sites: int
    spacing: float
    ends: str = "periodic"

    def __post_init__(self) -> None:
        if self.sites < 2 or not (self.spacing > 0 and math.isfinite(self.spacing)) or self.ends not in ENDS:
            raise InputError(
                f"lattice axis of {self.sites} sites, spacing {self.spacing}, ends {self.ends!r}: give at least 2 "
                f"sites, "
                f"a positive spacing, and ends of {' or '.join(ENDS)}"
            )

    @property
    def rates(self) -> Array:
        """Eigenvalues of minus the second difference, (sites,), in the order of `modes`."""
        n = np.arange(self.sites)
        if self.ends == "open":
            return (2 / self.spacing * np.sin(np.pi * n / (2 * self.sites))) ** 2
        return (2 / self.spacing * np.sin(np.pi * n / self.sites)) ** 2

    @property
    def modes(self) -> Array:
        """Orthogonal (sites, sites), column n the n-th mode: cosines (open), cosines and sines (periodic)."""
        m, k, n = self.sites, np.arange(self.sites)[:, None], np.arange(self.sites)[None]
        if self.ends == "open":
            waves = np.cos(np.pi * (k + 0.5) * n / m)
        else:
            waves = np.where(n <= m // 2, np.cos(2 * np.pi * k * n / m), np.sin(2 * np.pi * k * (m - n) / m))
        return waves / np.linalg.norm(waves, axis=0)


@dataclass(frozen=True)
class Lattice:
    """The axes (time first) and the mass of each coordinate."""

    axes: tuple[Axis, ...]
    masses: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.axes or not self.masses or not all(m > 0 and math.isfinite(m) for m in self.masses):
            raise InputError(
                f"lattice with {len(self.axes)} axes and masses {self.masses}: give at least one, positive"
            )

    @property
    def dim(self) -> int:
        return len(self.masses)

    @property
    def sites(self) -> int:
        return math.prod(axis.sites for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.sites for axis in self.axes)

    @property
    def volume(self) -> float:
        """The volume of one cell, v."""
        return math.prod(axis.spacing for axis in self.axes)

    @property
    def mass(self) -> Array:
        return np.array(self.masses)

    @property
    def time(self) -> Axis:
        return self.axes[0]

    @property
    def translation_invariant(self) -> bool:
        return all(axis.ends == "periodic" for axis in self.axes)

    def rates(self) -> Array:
        """Eigenvalues of minus the lattice Laplacian, (sites,)."""
        total = np.zeros(())
        for axis in self.axes:
            total = total[..., None] + axis.rates
        return total.reshape(-1)

    def modes(self) -> Array:
        """Orthogonal (sites, sites); columns in the order of `rates`."""
        waves = np.ones((1, 1))
        for axis in self.axes:
            waves = np.kron(waves, axis.modes)
        return waves


def path_lattice(beta: float, sites: int, masses: tuple[float, ...] = (1.0,), ends: str = "periodic") -> Lattice:
    """Paths over Euclidean time: `sites` steps of beta/sites (periodic), or sites-1 steps of beta/(sites-1) (open)."""
    if not (beta > 0 and math.isfinite(beta)) or sites < 2:
        raise InputError(f"path lattice with beta {beta} and {sites} sites: give a positive beta and at least 2 sites")
    return Lattice((Axis(sites, beta / (sites - (ends == "open")), ends),), masses)


def field_lattice(shape: tuple[int, ...], spacing: float = 1.0, ends: str = "periodic") -> Lattice:
    """One real scalar field on a lattice of this shape, time first."""
    return Lattice(tuple(Axis(n, spacing, ends) for n in shape))


def laplacian(lattice: Lattice, q: Array) -> Array:
    """Sum over the axes of the second difference / spacing^2, for q of shape (..., sites)."""
    grid = q.reshape(*q.shape[:-1], *lattice.shape)
    total = np.zeros_like(grid)
    for i, axis in enumerate(lattice.axes):
        at = grid.ndim - len(lattice.axes) + i
        if axis.ends == "periodic":
            total += (np.roll(grid, -1, at) + np.roll(grid, 1, at) - 2 * grid) / axis.spacing**2
        else:
            links = np.diff(grid, axis=at) / axis.spacing**2
            pad = [(0, 0)] * grid.ndim
            pad[at] = (1, 1)
            total += np.diff(np.pad(links, pad), axis=at)
    return total.reshape(q.shape)


def kinetic(lattice: Lattice, q: Array) -> Array:
    """v * sum m (dq)^2 / (2 a^2), (samples,)."""
    return -0.5 * lattice.volume * np.einsum("d,...dk,...dk->...", lattice.mass, q, laplacian(lattice, q))


def action(lattice: Lattice, v: Potential, q: Array) -> Array:
    """S(q), (samples,), for q (samples, D, sites)."""
    return kinetic(lattice, q) + lattice.volume * v(q).sum(-1)


def force(lattice: Lattice, v: Potential, q: Array) -> Array:
    """dS/dq, the shape of q."""
    return lattice.volume * (v.gradient(q) - lattice.mass[:, None] * laplacian(lattice, q))


def check_coordinates(lattice: Lattice, v: Potential) -> None:
    if v.dim != lattice.dim:
        raise InputError(
            f"potential {v.text!r} has {v.dim} coordinates but the lattice has {lattice.dim} masses: give one mass each"
        )
