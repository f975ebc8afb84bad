"""Path sums against public samplers on the same target in one run: python -m benchmarks.pathsum [--quick].

Two potentials, beta 10, 64 sites. For each sampler: evaluations of the action (or of its gradient) per independent
sample of <x^2> and of the mean position, milliseconds per effective sample of <x^2>, and the pull from the exact
lattice value. Compilation (numpyro, blackjax) and the fit of the instanton prior are inside the time; warm-up is inside the time
but not the evaluations.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from regauge.pathsum import (
    ChainSample,
    GaussianPrior,
    LinearMap,
    Target,
    WeightedSample,
    annealed,
    average,
    bridge,
    covering,
    elliptical,
    fit_instantons,
    hmc,
    lattice_exact,
    nuts,
    path_lattice,
    potential,
    reweight,
    tempering,
)
from regauge.pathsum.instanton import defended
from regauge.pathsum.nuts import jax_energy
from regauge.pathsum.sample import Sample

POTENTIALS = ("x**2/2 + x**4", "(x**2-2)**2/4")


@dataclass(frozen=True)
class Line:
    potential: str
    sampler: str
    evaluations_square: float
    evaluations_mean: float
    seconds_per_effective: float
    efficiency: float | None
    square: float
    error: float
    pull: float
    seconds: float


def sites_as_weights(target: Target) -> Target:
    """The bare lattice: every weight is one site."""
    eye = np.eye(target.lattice.sites)[None]
    return Target(target.lattice, target.v, LinearMap("lattice", eye, np.eye(1), np.zeros(1)))


def emcee(target: Target, steps: int, rng: np.random.Generator) -> ChainSample:
    """Goodman and Weare's stretch move in the same whitened weights, all walkers in one vectorised call."""
    import emcee as package

    walkers, size = 160, target.map.weights
    state = np.random.RandomState(int(rng.integers(2**31))).get_state()
    sampler = package.EnsembleSampler(walkers, size, lambda t: -target.energy(t[:, None]), vectorize=True)
    sampler.random_state = state
    start = sampler.run_mcmc(rng.standard_normal((walkers, size)), steps // 2)
    sampler.reset()
    sampler.run_mcmc(start, steps)
    chain = sampler.get_chain().transpose(1, 0, 2)
    paths = target.map(chain.reshape(-1, 1, size)).reshape(walkers, steps, 1, -1)
    return ChainSample("emcee", paths, 1.0, float(sampler.acceptance_fraction.mean()))


def blackjax(target: Target, chains: int, steps: int, rng: np.random.Generator) -> ChainSample:
    """blackjax's NUTS: one chain adapts step and mass, then all chains run from independent starts."""
    import blackjax as package
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        energy = jax_energy(target)

        def log_density(theta: jax.Array) -> jax.Array:
            return -energy(theta)

        first, second, third = jax.random.split(jax.random.PRNGKey(int(rng.integers(2**31))), 3)
        start = jnp.asarray(target.draw(chains, rng))
        (state, tuned), _ = package.window_adaptation(package.nuts, log_density).run(first, start[0], steps // 2)
        kernel = package.nuts(log_density, **tuned)

        @jax.jit
        def chain(key: jax.Array, theta: jax.Array) -> tuple[jax.Array, jax.Array]:
            def one(state: object, key: jax.Array) -> tuple[object, tuple[jax.Array, jax.Array]]:
                state, info = kernel.step(key, state)
                return state, (state.position, info.num_integration_steps)

            return jax.lax.scan(one, kernel.init(theta), jax.random.split(key, steps + steps // 4))[1]

        theta, used = jax.vmap(chain)(jax.random.split(third, chains), start)
        theta, used = np.asarray(theta)[:, steps // 4 :], np.asarray(used)[:, steps // 4 :]
    paths = target.map(theta.reshape(-1, *target.shape)).reshape(chains, steps, *target.shape[:1], -1)
    return ChainSample("blackjax NUTS", paths, float(used.mean()))


def instantons(target: Target, n: int, rng: np.random.Generator) -> WeightedSample:
    prior = fit_instantons(target.lattice, target.v, rng)
    found = reweight(target.lattice, target.v, defended(prior), n, rng)
    return WeightedSample("instanton", found.paths, found.log_weights, 1 + prior.evaluations / n)


def line(text: str, name: str, target: Target, run: Callable[[], Sample], exact: float) -> Line:
    begin = time.perf_counter()
    sample = run()
    seconds = time.perf_counter() - begin
    square = average(sample, (sample.paths**2).mean((-2, -1)))
    flat = average(sample, sample.paths.mean((-2, -1)))
    total = sample.evaluations * np.prod(sample.paths.shape[:-2])
    efficiency = sample.efficiency if isinstance(sample, WeightedSample) else None
    return Line(
        text,
        name,
        round(float(total / square.size), 2),
        round(float(total / flat.size), 2),
        seconds / square.size,
        efficiency,
        square.value,
        square.error,
        square.pull(exact),
        seconds,
    )


def compare(text: str, scale: float) -> list[Line]:
    v = potential(text)
    lattice = path_lattice(10.0, 64)
    exact = float(lattice_exact(lattice, v).square[0])
    reference = covering(lattice, v)
    target = Target(lattice, v, reference.map(lattice))
    steps = int(400 * scale)
    white = target.map
    runs: dict[str, tuple[Target, Callable[[Target, np.random.Generator], Sample]]] = {
        "independent": (target, lambda t, r: reweight(lattice, v, GaussianPrior(white), 50 * steps, r)),
        "instanton prior": (target, lambda t, r: instantons(t, 50 * steps, r)),
        "annealed": (target, lambda t, r: annealed(t, 5 * steps, r)),
        "elliptical slice": (target, lambda t, r: elliptical(t, 32, steps, r)),
        "HMC, whitened": (target, lambda t, r: hmc(t, 32, steps, r)),
        "HMC, bridge": (
            Target(lattice, v, bridge(lattice, reference.mu2)),
            lambda t, r: hmc(t, 32, steps, r),
        ),
        "parallel tempering": (target, lambda t, r: tempering(t, 32, steps, r)),
    }
    if importlib.util.find_spec("numpyro"):
        runs["numpyro NUTS, lattice"] = (sites_as_weights(target), lambda t, r: nuts(t, 4, max(steps, 300), r))
        runs["numpyro NUTS, whitened"] = (target, lambda t, r: nuts(t, 4, max(steps, 300), r))
    if importlib.util.find_spec("blackjax"):
        runs["blackjax NUTS, whitened"] = (target, lambda t, r: blackjax(t, 4, max(steps, 300), r))
    if importlib.util.find_spec("emcee"):
        runs["emcee stretch, whitened"] = (target, lambda t, r: emcee(t, 10 * steps, r))
    found = []
    for name, (where, run) in runs.items():
        rng = np.random.default_rng(7)
        found.append(line(text, name, where, lambda where=where, run=run, rng=rng: run(where, rng), exact))
        show(found[-1])
    return found


def show(row: Line) -> None:
    efficiency = "" if row.efficiency is None else f"{row.efficiency:.3f}"
    print(
        f"{row.potential:<16}{row.sampler:<25}{row.evaluations_square:>10.1f}{row.evaluations_mean:>10.1f}"
        f"{1e3 * row.seconds_per_effective:>11.3f}{efficiency:>8}"
        f"{row.square:>11.5f} +- {row.error:.5f}{row.pull:>7.1f}",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a quarter of the samples")
    options.add_argument("--json", help="also write the lines to this file")
    chosen = options.parse_args()
    print(f"{'potential':<16}{'sampler':<25}{'ev <x^2>':>10}{'ev <x>':>10}{'ms/eff':>11}{'ESS/n':>8}{'<x^2>':>11}")
    lines = [row for text in POTENTIALS for row in compare(text, 0.25 if chosen.quick else 1.0)]
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump([asdict(row) for row in lines], file, indent=2)


if __name__ == "__main__":
    main()
