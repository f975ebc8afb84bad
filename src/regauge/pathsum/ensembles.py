"""Random networks whose *function* statistics are known in closed form: infinitely wide or not, and what finite
width changes.

- random cosines q(t) = A sqrt(2/N) sum cos(w_i t + b_i), w ~ Cauchy(0, omega), b ~ U(0, 2 pi), A^2 = 1 / (2 m omega):
  <q(0) q(t)> = exp(-omega |t|) / (2 m omega), the oscillator's, at *every* width N; the fourth cumulant is -(3/2)
  A^4 / N.
- random steps q(t) = sum a_i [t_i < t], t_i ~ U(0, T), a ~ N(0, T / (m N)): <q(s) q(t)> = min(s, t) / m at every N,
Brownian motion's;
  the excess kurtosis is (3/N) (T/t - 1).

Both are path sums only in the limit N -> infinity: at finite N their cumulants differ, and no density over paths
exists to reweight with. For an exact sum with random features see `maps.random_cosine`.
"""

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.lattice import Array


def random_cosines(
    times: Array, units: int, omega: float, samples: int, rng: np.random.Generator, mass: float = 1.0
) -> Array:
    """Functions of random cosine networks at `times` (T,): (samples, T)."""
    _check(units, samples, omega > 0 and mass > 0, "omega and mass")
    amplitude = np.sqrt(1 / (2 * mass * omega)) * np.sqrt(2 / units)
    total = np.zeros((samples, len(times)))
    for _ in range(units):
        w, b = omega * rng.standard_cauchy((samples, 1)), rng.uniform(0, 2 * np.pi, (samples, 1))
        total += amplitude * np.cos(w * times + b)
    return total


def random_steps(
    times: Array, units: int, horizon: float, samples: int, rng: np.random.Generator, mass: float = 1.0
) -> Array:
    """Functions of random step networks at `times` in (0, horizon]: (samples, T)."""
    _check(units, samples, horizon > 0 and mass > 0, "horizon and mass")
    total = np.zeros((samples, len(times)))
    for _ in range(units):
        at, a = rng.uniform(0, horizon, (samples, 1)), rng.standard_normal((samples, 1))
        total += a * np.sqrt(horizon / (mass * units)) * (at < times)
    return total


def _check(units: int, samples: int, positive: bool, names: str) -> None:
    if units < 1 or samples < 1 or not positive:
        raise InputError(
            f"random network of {units} units, {samples} samples: give at least 1 of each, and positive {names}"
        )
