"""What samplers return, and averages of it with honest errors. Derived numbers use the Gamma method (Wolff, Comput.
Phys. Commun. 156, 143 (2004)): the series of f's linear part, at the averages, is one series like any other."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from regauge.pathsum import statistics
from regauge.pathsum.lattice import Array


@dataclass(frozen=True, eq=False)
class ChainSample:
    """paths (chains, steps, D, sites) after warm-up; `evaluations` of the action or its gradient per chain and kept
    step, all counted but the warm-up; `accepted` the rate of acceptance (1 for slice samplers)."""

    sampler: str
    paths: Array = field(repr=False)
    evaluations: float
    accepted: float = 1.0


@dataclass(frozen=True, eq=False)
class WeightedSample:
    """Independent paths (n, D, sites) with log weights (n,); `evaluations` of the action per path; `log_z` the log
    of the integral of exp(-S) dq over all sites, with its error (the mean weight is unbiased)."""

    sampler: str
    paths: Array = field(repr=False)
    log_weights: Array = field(repr=False)
    evaluations: float

    @property
    def efficiency(self) -> float:
        """Effective over actual size."""
        return statistics.weight_efficiency(self.log_weights)

    @property
    def tail(self) -> float:
        """Pareto index of the weights: above 0.7 neither averages nor their errors are to be believed."""
        return statistics.tail_index(self.log_weights)

    @property
    def log_z(self) -> tuple[float, float]:
        top = self.log_weights.max()
        w = np.exp(self.log_weights - top)
        return float(top + np.log(w.mean())), float(w.std(ddof=1) / w.mean() / np.sqrt(len(w)))


Sample = ChainSample | WeightedSample


@dataclass(frozen=True)
class Average:
    """value +- error; `size` the effective number of samples; r_hat (1 for independent samples)."""

    value: float
    error: float
    size: float
    r_hat: float = 1.0

    def pull(self, exact: float) -> float:
        """(value - exact) / error."""
        return (self.value - exact) / self.error if self.error > 0 else float("inf")


def average(sample: Sample, values: Array) -> Average:
    """The mean of `values`, one for each path: (chains, steps) or (n,)."""
    if isinstance(sample, WeightedSample):
        w = statistics.normalised(sample.log_weights)
        error = statistics.weighted_error(sample.log_weights, values)
        return Average(float(w @ values), error, sample.efficiency * len(w))
    return Average(
        float(values.mean()),
        statistics.standard_error(values),
        statistics.effective_size(values),
        statistics.r_hat(values),
    )


def derived(sample: Sample, values: Array, f: Callable[[Array], float]) -> Average:
    """f(averages of `values` (..., K)), its error through the gradient of f there."""
    means = mean(sample, values)
    value = float(f(means))
    gradient = np.array([_slope(f, means, i) for i in range(len(means))])
    linear = average(sample, values @ gradient)
    return Average(value, linear.error, linear.size, linear.r_hat)


def mean(sample: Sample, values: Array) -> Array:
    """Averages of `values` (chains, steps, K) or (n, K) -> (K,)."""
    if isinstance(sample, WeightedSample):
        return statistics.normalised(sample.log_weights) @ values
    return values.mean((0, 1))


def _slope(f: Callable[[Array], float], at: Array, i: int) -> float:
    h = 1e-5 * max(abs(float(at[i])), 1e-6)
    up, down = at.copy(), at.copy()
    up[i] += h
    down[i] -= h
    return (float(f(up)) - float(f(down))) / (2 * h)


def resample(sample: WeightedSample, number: int, rng: np.random.Generator) -> Array:
    """`number` paths drawn with probability proportional to weight, evenly spaced (systematic resampling): (number,
    D, sites)."""
    w = np.cumsum(statistics.normalised(sample.log_weights))
    at = (rng.random() + np.arange(number)) / number
    return sample.paths[np.minimum(np.searchsorted(w, at), len(w) - 1)]
