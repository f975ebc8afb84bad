"""Errors of averages: integrated autocorrelation time, effective sample size, R-hat, and the same for weighted samples.

Series are (chains, steps). tau = 1/2 + sum of rho(t) over the window t < 5 tau (Sokal), ESS = chains * steps / (2
tau), and the standard error is the spread over sqrt(ESS). R-hat is the rank-normalised split version of Vehtari et
al. (Bayesian Analysis 16, 667 (2021)).
"""

import numpy as np
from scipy.stats import norm, rankdata

from regauge.pathsum.lattice import Array

WINDOW = 5.0


def autocorrelation(series: Array) -> Array:
    """rho(t) pooled over the chains, (steps,), about the common mean."""
    chains, steps = series.shape
    centred = series - series.mean()
    size = 1 << (2 * steps - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    covariance = np.fft.irfft(power, size, axis=1)[:, :steps].mean(0) / np.arange(steps, 0, -1)
    return covariance / covariance[0] if covariance[0] > 0 else np.zeros(steps)


def autocorrelation_time(series: Array) -> float:
    """tau in steps, at least 1/2 (independent); inf when the series never moves."""
    if np.ptp(series) == 0:
        return float("inf")
    running = 0.5 + np.cumsum(autocorrelation(series)[1:])
    closed = np.flatnonzero(np.arange(1, len(running) + 1) >= WINDOW * running)
    return max(0.5, float(running[closed[0]] if len(closed) else running[-1]))


def effective_size(series: Array) -> float:
    """ESS = number / (2 tau)."""
    return series.size / (2 * autocorrelation_time(series))


def standard_error(series: Array) -> float:
    """Of the mean of all entries."""
    return float(series.std() / np.sqrt(max(effective_size(series) - 1, 1e-12)))


def r_hat(series: Array) -> float:
    """Split, rank-normalised: the larger of the one for the values and the one for their distance from the median."""
    half = series.shape[1] // 2
    split = np.concatenate([series[:, :half], series[:, -half:]])
    return max(_split_r_hat(_ranked(split)), _split_r_hat(_ranked(np.abs(split - np.median(split)))))


def _ranked(series: Array) -> Array:
    ranks = rankdata(series, method="average").reshape(series.shape)
    return norm.ppf((ranks - 0.375) / (series.size + 0.25))


def _split_r_hat(series: Array) -> float:
    within = series.var(axis=1, ddof=1).mean()
    if within == 0:
        return 1.0 if np.ptp(series.mean(axis=1)) == 0 else float("inf")
    between = series.mean(axis=1).var(ddof=1)
    steps = series.shape[1]
    return float(np.sqrt((steps - 1) / steps + between / within))


def normalised(log_weights: Array) -> Array:
    """exp(log_weights) / sum, without overflow."""
    w = np.exp(log_weights - log_weights.max())
    return w / w.sum()


def weight_efficiency(log_weights: Array) -> float:
    """Kish's effective size over the number: (sum w)^2 / (n sum w^2), in (0, 1]."""
    w = normalised(log_weights)
    return float(1 / (len(w) * (w**2).sum()))


def weighted_error(log_weights: Array, values: Array) -> float:
    """Standard error of sum w f / sum w: linearised, sqrt(sum w^2 (f - mean)^2) * sqrt(n / (n-1))."""
    w = normalised(log_weights)
    return float(np.sqrt((w**2 * (values - w @ values) ** 2).sum() * len(w) / (len(w) - 1)))


def tail_index(log_weights: Array) -> float:
    """k of the generalised Pareto law of the largest weights (Vehtari et al., JMLR 25, 72 (2024)): above 0.7 the
    mean of the weights converges too slowly for its error to be believed. Fit of Zhang and Stephens (Technometrics
    51, 316 (2009))."""
    n = len(log_weights)
    count = int(min(0.2 * n, 3 * np.sqrt(n)))
    if count < 5:
        return float("inf")
    ordered = np.sort(log_weights - log_weights.max())
    excess = np.exp(ordered[-count:]) - np.exp(ordered[-count - 1])
    if excess[-1] <= 0:
        return -float("inf")
    excess = np.maximum(excess, 1e-300)
    grid = np.arange(1, 31 + int(np.sqrt(count)))
    quarter = excess[int(count / 4 + 0.5) - 1]
    theta = 1 / excess[-1] + (1 - np.sqrt(len(grid) / (grid - 0.5))) / (3 * quarter)
    k = np.log1p(-theta[:, None] * excess).mean(1)
    fit = count * (np.log(-theta / k) - k - 1)
    best = float(normalised(fit) @ theta)
    shape = float(np.log1p(-best * excess).mean())
    return (count * shape + 5) / (count + 10)
