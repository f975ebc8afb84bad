"""Independent paths from a tractable prior, reweighted: no Markov chain, errors of independent samples.

<f> = sum w f / sum w,   w = exp(-S(q)) / p(q)
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import logsumexp

from regauge.errors import InputError
from regauge.pathsum.lattice import Array, Lattice, action, check_coordinates
from regauge.pathsum.maps import LinearMap
from regauge.pathsum.potential import Potential
from regauge.pathsum.sample import WeightedSample

CHUNK = 20000


class Prior(Protocol):
    """A normalised density over paths that can be drawn from."""

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """n paths, (n, D, sites)."""

    def log_density(self, q: Array) -> Array:
        """log p(q), (n,)."""


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """iid N(0, 1) weights of a linear map."""

    map: LinearMap

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        return self.map(rng.standard_normal((n, self.map.dim, self.map.weights)))

    def log_density(self, q: Array) -> Array:
        return self.map.log_density(q)


@dataclass(frozen=True, eq=False)
class MixturePrior:
    """A mixture: one prior for each well, with probabilities `shares`. Every path is weighted by the whole mixture."""

    parts: tuple[Prior, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.shares) or not np.isclose(sum(self.shares), 1) or min(self.shares) <= 0:
            raise InputError(
                f"mixture of {len(self.parts)} priors with shares {self.shares}: one positive share each, sum 1"
            )

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        counts = rng.multinomial(n, self.shares)
        return rng.permutation(
            np.concatenate([p.draw(int(c), rng) for p, c in zip(self.parts, counts, strict=True) if c])
        )

    def log_density(self, q: Array) -> Array:
        each = [np.log(s) + p.log_density(q) for p, s in zip(self.parts, self.shares, strict=True)]
        return logsumexp(each, axis=0)


def reweight(lattice: Lattice, v: Potential, prior: Prior, n: int, rng: np.random.Generator) -> WeightedSample:
    """n independent paths of the prior with the log weights -S - log p. One evaluation of the action each."""
    check_coordinates(lattice, v)
    if n < 2:
        raise InputError(f"reweighting with {n} paths: give at least 2")
    paths, weights = [], []
    for begin in range(0, n, CHUNK):
        q = prior.draw(min(CHUNK, n - begin), rng)
        paths.append(q)
        weights.append(-action(lattice, v, q) - prior.log_density(q))
    return WeightedSample("independent", np.concatenate(paths), np.concatenate(weights), 1.0)
