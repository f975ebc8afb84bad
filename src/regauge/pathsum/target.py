"""The law that samplers draw from, in network weights: U(theta) = S(Phi theta) + |P theta|^2 / 2.

P projects on the weights that no path sees, so U's marginal over paths is exp(-S) exactly (`maps`): fixed gauge
included.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.lattice import Array, Lattice, action, check_coordinates, force
from regauge.pathsum.maps import LinearMap
from regauge.pathsum.potential import Potential


class Landscape(Protocol):
    """What a gradient sampler needs: paths, energies and gradients of weights (n, D, weights), and starting points."""

    def map(self, theta: Array, /) -> Array: ...

    def energy(self, theta: Array) -> Array: ...

    def gradient(self, theta: Array) -> Array: ...

    def draw(self, n: int, rng: np.random.Generator) -> Array: ...


@dataclass(frozen=True, eq=False)
class Target:
    """Paths of `lattice` in `v`, written by the network `map`. Weights are (n, D, weights)."""

    lattice: Lattice
    v: Potential
    map: LinearMap

    def __post_init__(self) -> None:
        check_coordinates(self.lattice, self.v)
        if (self.map.dim, self.map.sites) != (self.lattice.dim, self.lattice.sites):
            raise InputError(
                f"map {self.map.name!r} writes paths {(self.map.dim, self.map.sites)}, the lattice has "
                f"{(self.lattice.dim, self.lattice.sites)}: build it on this lattice"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.map.dim, self.map.weights

    def energy(self, theta: Array) -> Array:
        """U, (n,)."""
        return action(self.lattice, self.v, self.map(theta)) + 0.5 * (self.map.kernel_part(theta) ** 2).sum((1, 2))

    def gradient(self, theta: Array) -> Array:
        """dU/dtheta, the shape of theta."""
        return self.map.pull_back(force(self.lattice, self.v, self.map(theta))) + self.map.kernel_part(theta)

    def excess(self, theta: Array) -> Array:
        """U - |theta|^2 / 2: minus the log weight relative to iid N(0, 1) weights, up to a constant, (n,)."""
        return self.energy(theta) - 0.5 * (theta**2).sum((1, 2))

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """iid N(0, 1) weights."""
        return rng.standard_normal((n, *self.shape))
