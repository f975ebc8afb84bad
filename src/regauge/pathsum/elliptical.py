"""Elliptical slice sampling (Murray, Adams, MacKay, AISTATS 2010): exact for N(0, 1) weights times exp(-excess), no
gradient, no tuning. Many chains at once; each shrinks its own bracket until its point lies on the slice."""

from collections.abc import Callable

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.lattice import Array
from regauge.pathsum.sample import ChainSample
from regauge.pathsum.target import Target

Excess = Callable[[Array, Array], Array]  # weights (n, D, N), chain numbers (n,) -> (n,)


def slice_step(excess: Excess, theta: Array, now: Array, rng: np.random.Generator) -> tuple[Array, Array, int]:
    """One move of every chain from weights `theta` (n, D, N) with excess `now` (n,): the new pair, and the
    evaluations."""
    n = len(theta)
    ellipse = rng.standard_normal(theta.shape)
    bar = now + rng.exponential(size=n)
    angle = rng.uniform(0, 2 * np.pi, n)
    low, high = angle - 2 * np.pi, angle.copy()
    new, value, used = theta.copy(), now.copy(), 0
    left = np.arange(n)
    while len(left):
        turn = angle[left, None, None]
        tried = theta[left] * np.cos(turn) + ellipse[left] * np.sin(turn)
        found = excess(tried, left)
        used += len(left)
        good = found <= bar[left]
        new[left[good]], value[left[good]] = tried[good], found[good]
        left = left[~good]
        low[left] = np.where(angle[left] < 0, angle[left], low[left])
        high[left] = np.where(angle[left] >= 0, angle[left], high[left])
        angle[left] = rng.uniform(low[left], high[left])
    return new, value, used


def elliptical(
    target: Target, chains: int, steps: int, rng: np.random.Generator, warmup: int | None = None
) -> ChainSample:
    """`steps` moves of `chains` chains, started in the prior, after `warmup` moves (default steps // 4)."""
    if chains < 2 or steps < 4:
        raise InputError(
            f"elliptical slice sampling with {chains} chains of {steps} steps: errors need at least 2 of 4"
        )

    def excess(theta: Array, _: Array) -> Array:
        return target.excess(theta)

    theta = target.draw(chains, rng)
    now, used, kept = target.excess(theta), 0, []
    warmup = steps // 4 if warmup is None else warmup
    for step in range(warmup + steps):
        theta, now, cost = slice_step(excess, theta, now, rng)
        if step >= warmup:
            used += cost
            kept.append(target.map(theta))
    return ChainSample("elliptical slice", np.stack(kept, 1), used / (chains * steps))
