"""Bridges from the Gaussian reference to the target, for wells that a local chain does not leave:
U_l = |theta|^2 / 2 + l * excess, 0 <= l <= 1. Parallel tempering swaps chains along l; annealed importance sampling
(Neal, Stat. Comput. 11, 125 (2001)) walks up l once and returns independent weighted paths. Moves are elliptical
slices: nothing to tune.
"""

import numpy as np

from regauge.errors import InputError
from regauge.pathsum import statistics
from regauge.pathsum.elliptical import slice_step
from regauge.pathsum.lattice import Array
from regauge.pathsum.sample import ChainSample, WeightedSample
from regauge.pathsum.target import Target


def ladder(
    target: Target, rng: np.random.Generator, efficiency: float = 0.7, paths: int = 512, most: int = 64
) -> Array:
    """Couplings 0 = l_0 < ... < 1 such that reweighting from each to the next keeps this efficiency, by a pilot
    walk."""
    theta = target.draw(paths, rng)
    excess, at, rungs = target.excess(theta), 0.0, [0.0]
    while at < 1:
        if len(rungs) > most:
            raise InputError(
                f"the reference and {target.v.text!r} are more than {most} rungs apart: solve the gap equation for the "
                f"reference, or shorten beta"
            )
        if statistics.weight_efficiency(-(1 - at) * excess) >= efficiency:
            next_rung = 1.0
        else:
            low, high = at, 1.0
            for _ in range(40):
                middle = 0.5 * (low + high)
                enough = statistics.weight_efficiency(-(middle - at) * excess) >= efficiency
                low, high = (middle, high) if enough else (low, middle)
            next_rung = low
        w = np.cumsum(statistics.normalised(-(next_rung - at) * excess))
        pick = np.minimum(np.searchsorted(w, (rng.random() + np.arange(paths)) / paths), paths - 1)
        theta, excess, at = theta[pick], excess[pick], next_rung
        rungs.append(at)
        for _ in range(3):
            theta, excess, _ = _move(target, np.full(paths, at), theta, excess, rng)
    return np.array(rungs)


def tempering(
    target: Target,
    chains: int,
    steps: int,
    rng: np.random.Generator,
    rungs: Array | None = None,
    warmup: int | None = None,
) -> ChainSample:
    """Parallel tempering: every step moves all rungs, draws the lowest anew, and swaps neighbours. Evaluations count
    all rungs."""
    if chains < 2 or steps < 4:
        raise InputError(f"tempering with {chains} chains of {steps} steps: errors need at least 2 of 4")
    rungs = ladder(target, rng) if rungs is None else rungs
    high = len(rungs)
    coupling = np.repeat(rungs, chains)  # rung-major
    theta = target.draw(high * chains, rng)
    excess = target.excess(theta)
    warmup = max(20, steps // 4) if warmup is None else warmup
    used, swapped, kept = 0, 0.0, []
    for step in range(warmup + steps):
        theta[:chains] = target.draw(chains, rng)
        excess[:chains] = target.excess(theta[:chains])
        theta[chains:], excess[chains:], cost = _move(target, coupling[chains:], theta[chains:], excess[chains:], rng)
        swaps = 0.0
        for parity in (0, 1):
            swaps += _swap(rungs, theta.reshape(high, chains, -1), excess.reshape(high, chains), parity, rng)
        if step >= warmup:
            used += cost + chains
            swapped += swaps / ((high - 1) * chains * steps)
            kept.append(target.map(theta[-chains:]))
    return ChainSample("parallel tempering", np.stack(kept, 1), used / (chains * steps), swapped)


def annealed(
    target: Target, n: int, rng: np.random.Generator, rungs: Array | None = None, moves: int = 2
) -> WeightedSample:
    """Annealed importance sampling: n independent paths up the ladder with `moves` slices on each rung."""
    if n < 2 or moves < 1:
        raise InputError(f"annealing of {n} paths with {moves} moves: give at least 2 and 1")
    rungs = ladder(target, rng, 0.85) if rungs is None else rungs
    theta = target.draw(n, rng)
    excess, log_weights, used = target.excess(theta), np.zeros(n), n
    for below, above in zip(rungs[:-1], rungs[1:], strict=True):
        log_weights -= (above - below) * excess
        for _ in range(moves if above < 1 else 0):  # moves on the last rung change no weight
            theta, excess, cost = _move(target, np.full(n, above), theta, excess, rng)
            used += cost
    # weights theta carry density prod N(0,1); paths carry that over the volume of the map (and of its fixed gauge)
    d, weights = target.shape
    constant = 0.5 * (d * weights - target.map.redundancy) * np.log(2 * np.pi) + target.map.log_volume
    return WeightedSample("annealed importance", target.map(theta), log_weights + constant, used / n)


def _move(
    target: Target, coupling: Array, theta: Array, excess: Array, rng: np.random.Generator
) -> tuple[Array, Array, int]:
    scaled, last = coupling * excess, excess.copy()

    def tempered(tried: Array, chain: Array) -> Array:
        return coupling[chain] * target.excess(tried)

    theta, scaled, cost = slice_step(tempered, theta, scaled, rng)
    return theta, np.where(coupling > 0, scaled / np.where(coupling > 0, coupling, 1), last), cost


def _swap(rungs: Array, theta: Array, excess: Array, parity: int, rng: np.random.Generator) -> float:
    """Swap neighbours (parity, parity + 1), ... in place; the sum of acceptance probabilities."""
    total = 0.0
    for low in range(parity, len(rungs) - 1, 2):
        chance = np.exp(np.minimum(0, (rungs[low + 1] - rungs[low]) * (excess[low + 1] - excess[low])))
        take = np.flatnonzero(rng.random(len(chance)) < chance)
        for array in (theta, excess):
            array[low, take], array[low + 1, take] = array[low + 1, take].copy(), array[low, take].copy()
        total += chance.sum()
    return total
