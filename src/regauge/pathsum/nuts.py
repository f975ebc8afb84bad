"""The no-U-turn sampler (Hoffman and Gelman, JMLR 15, 1593 (2014)) from numpyro, over the same weights: an optional
extra."""

from collections.abc import Callable
from typing import Any

import numpy as np

from regauge.errors import InputError
from regauge.pathsum.sample import ChainSample
from regauge.pathsum.target import Target


def jax_energy(target: Target) -> Callable[[Any], Any]:
    """The target's energy of weights (D, weights) of one chain, in jax; call it where 64 bits are enabled."""
    import jax.numpy as jnp

    lattice, v = target.lattice, target.v
    waves, rates = lattice.modes(), lattice.rates()
    stiff = jnp.asarray(lattice.volume * (waves * rates) @ waves.T)
    matrix, frame, shift = (jnp.asarray(a) for a in (target.map.matrix, target.map.frame, target.map.shift))
    inverse, mass = jnp.asarray(target.map.inverse), jnp.asarray(lattice.mass)

    def energy(theta: Any) -> Any:
        seen = jnp.einsum("dkn,dn->dk", matrix, theta)
        q = frame @ seen + shift[:, None]
        kinetic = 0.5 * jnp.einsum("d,dk,kl,dl->", mass, q, stiff, q)
        unseen = theta - jnp.einsum("dnk,dk->dn", inverse, seen)
        return kinetic + lattice.volume * v(q, jnp).sum() + 0.5 * (unseen**2).sum() * (target.map.redundancy > 0)

    return energy


def nuts(target: Target, chains: int, steps: int, rng: np.random.Generator, warmup: int | None = None) -> ChainSample:
    """`steps` kept draws of `chains` vectorised chains after `warmup` (default steps // 2) that tunes step and
    diagonal mass.

    Raises InputError where numpyro is not installed.
    """
    try:
        import jax
        import jax.numpy as jnp
        from numpyro.infer import MCMC, NUTS
    except ImportError as reason:
        raise InputError(
            f"NUTS needs numpyro ({reason}): pip install 'regauge[nuts]', or take hmc or elliptical, which need nothing"
        ) from None
    if chains < 2 or steps < 4:
        raise InputError(f"NUTS with {chains} chains of {steps} steps: errors need at least 2 of 4")
    lattice = target.lattice
    with jax.enable_x64(True):
        energy = jax_energy(target)
        run = MCMC(
            NUTS(potential_fn=energy),
            num_warmup=steps // 2 if warmup is None else warmup,
            num_samples=steps,
            num_chains=chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        key = jax.random.PRNGKey(int(rng.integers(2**31)))
        run.run(key, init_params=jnp.asarray(target.draw(chains, rng)), extra_fields=("num_steps", "accept_prob"))
        theta = np.asarray(run.get_samples(group_by_chain=True))
        fields = {name: np.asarray(value) for name, value in run.get_extra_fields().items()}
    paths = target.map(theta.reshape(-1, *target.shape)).reshape(chains, steps, lattice.dim, lattice.sites)
    return ChainSample("NUTS", paths, float(fields["num_steps"].mean()), float(fields["accept_prob"].mean()))
