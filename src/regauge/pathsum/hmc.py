"""Hamiltonian Monte Carlo over network weights with unit mass; the step is tuned in the warm-up and then held fixed.

dtheta/dt = p, dp/dt = -dU/dtheta by leapfrog, accept with min(1, exp(H - H')). Trajectories vary by +-20 % against
resonance.
"""

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.lattice import Array
from regauge.pathsum.sample import ChainSample
from regauge.pathsum.target import Landscape


def hmc(
    target: Landscape,
    chains: int,
    steps: int,
    rng: np.random.Generator,
    warmup: int | None = None,
    length: float = 1.5,
    wanted: float = 0.8,
    theta: Array | None = None,
) -> ChainSample:
    """`steps` trajectories of mean length `length` per chain, after `warmup` (default steps // 4) that tune the
    leapfrog step to the acceptance `wanted`. Whitened weights have unit frequencies, so 1.5 is about a quarter
    period."""
    if chains < 2 or steps < 4:
        raise InputError(f"HMC with {chains} chains of {steps} steps: errors need at least 2 of 4")
    theta = target.draw(chains, rng) if theta is None else theta
    energy, slope = target.energy(theta), target.gradient(theta)
    warmup = max(20, steps // 4) if warmup is None else warmup
    log_step, used, accepted, kept = np.log(0.1 * length), 0, 0.0, []
    for step in range(warmup + steps):
        size = float(np.exp(log_step))
        count = max(1, int(round(length / size * rng.uniform(0.8, 1.2))))
        theta, energy, slope, rate = trajectory(target, theta, energy, slope, size, count, rng)
        if step < warmup:
            log_step = min(log_step + 2.0 / (step + 4) ** 0.6 * (rate - wanted), np.log(length))
        else:
            used += count
            accepted += rate / steps
            kept.append(target.map(theta))
    return ChainSample("HMC", np.stack(kept, 1), used / steps, accepted)


def trajectory(
    target: Landscape, theta: Array, energy: Array, slope: Array, size: float, count: int, rng: np.random.Generator
) -> tuple[Array, Array, Array, float]:
    """One accepted or rejected trajectory of `count` leapfrogs: weights, energies, gradients, mean acceptance
    probability."""
    p = rng.standard_normal(theta.shape)
    before = energy + 0.5 * (p**2).sum((1, 2))
    there, pull = theta, slope
    with np.errstate(all="ignore"):  # an unstable trajectory overflows and is rejected
        for _ in range(count):
            p = p - 0.5 * size * pull
            there = there + size * p
            pull = target.gradient(there)
            p = p - 0.5 * size * pull
        after = target.energy(there)
        chance = np.exp(np.minimum(0, np.nan_to_num(before - after - 0.5 * (p**2).sum((1, 2)), nan=-np.inf)))
    take = rng.random(len(theta)) < chance
    pick = take[:, None, None]
    return (
        np.where(pick, there, theta),
        np.where(take, after, energy),
        np.where(pick, pull, slope),
        float(chance.mean()),
    )
