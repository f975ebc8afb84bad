"""What it costs not to fix the gauge: every weight split as xi = a exp(l), the scale redundancy of a homogeneous unit.

The law of xi, and so of paths, is unchanged: the redundant scales l get a density N(0, sigma^2), and the split
brings the Faddeev-Popov factor exp(l) for each weight (da = exp(-l) dxi). Only the sampler sees the difference, a
funnel.
"""

from dataclasses import dataclass

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.hmc import hmc
from regauge.pathsum.lattice import Array
from regauge.pathsum.sample import average
from regauge.pathsum.target import Target


@dataclass(frozen=True, eq=False)
class Unfixed:
    """The target over (a, l), stacked on the last axis: (n, D, 2 weights). Wider `sigma` is weaker gauge fixing."""

    fixed: Target
    sigma: float

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InputError(
                f"unfixed target with sigma {self.sigma}: it must be positive, or the sum over scales diverges"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.fixed.shape[0], 2 * self.fixed.shape[1]

    def split(self, theta: Array) -> tuple[Array, Array, Array]:
        """a, l and xi = a exp(l)."""
        a, scale = np.split(theta, 2, axis=-1)
        return a, scale, a * np.exp(scale)

    def map(self, theta: Array) -> Array:
        return self.fixed.map(self.split(theta)[2])

    def energy(self, theta: Array) -> Array:
        _, scale, xi = self.split(theta)
        return self.fixed.energy(xi) + (0.5 * scale**2 / self.sigma**2 - scale).sum((1, 2))

    def gradient(self, theta: Array) -> Array:
        _, scale, xi = self.split(theta)
        slope = self.fixed.gradient(xi)
        return np.concatenate([np.exp(scale) * slope, xi * slope + scale / self.sigma**2 - 1], -1)

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        scale = self.sigma * rng.standard_normal((n, *self.fixed.shape))
        return np.concatenate([self.fixed.draw(n, rng) * np.exp(-scale), scale], -1)


@dataclass(frozen=True)
class Cost:
    """Gradient evaluations per independent sample of <x^2> (`sigma` 0: gauge fixed), the estimate itself and its
    R-hat."""

    sigma: float
    evaluations: float
    square: float
    error: float
    r_hat: float


def cost_of_not_fixing(
    target: Target, sigmas: tuple[float, ...], rng: np.random.Generator, chains: int = 16, steps: int = 300
) -> list[Cost]:
    """HMC with the gauge fixed (first) and with scales of these widths left free, same trajectories, each with its
    own tuned step."""
    found = []
    for sigma in (0.0, *sigmas):
        run = hmc(Unfixed(target, sigma) if sigma else target, chains, steps, rng)
        square = average(run, (run.paths**2).mean((-2, -1)))
        found.append(
            Cost(sigma, run.evaluations * chains * steps / square.size, square.value, square.error, square.r_hat)
        )
    return found
