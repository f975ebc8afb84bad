"""Identities that hold exactly in the path sum, and by which a sampler or a measure that is wrong gives itself away.

- Schwinger-Dyson: <f(q) dS/dq_k> = <df/dq_k>; here with f = q_k summed over sites: <q . S'> = number of path
coordinates, and
  <S'> summed over sites = 0 (translation of the whole path: the zero mode).
- Gauge fixing: the unseen weights P theta are exactly N(0, 1) and independent of every observable.
- Redundancy: U changes along the kernel only through its gauge-fixing term: P grad S = 0.
"""

import numpy as np

from regauge.pathsum.lattice import Array, Lattice, force
from regauge.pathsum.potential import Potential
from regauge.pathsum.sample import Average, Sample, average
from regauge.pathsum.target import Target


def schwinger_dyson(lattice: Lattice, v: Potential, sample: Sample) -> dict[str, Average]:
    """Averages that are exactly 0: "scaling" q.S'/(D sites) - 1, "translation" of each coordinate, mean over sites
    of S', and "neighbour": <q_{k+1} dS/dq_k> along the flat order of sites, which is zero as the two are different
    variables."""
    q = sample.paths
    shape = q.shape[:-2]
    flat = q.reshape(-1, *q.shape[-2:])
    slope = force(lattice, v, flat)
    scaling = (flat * slope).mean((-2, -1)) - 1
    neighbour = (np.roll(flat, -1, -1) * slope).mean((-2, -1))
    found = {"scaling": average(sample, scaling.reshape(shape)), "neighbour": average(sample, neighbour.reshape(shape))}
    for d, name in enumerate(v.names):
        found[f"translation of {name}"] = average(sample, slope[:, d].mean(-1).reshape(shape))
    return found


def kernel_force(target: Target, theta: Array) -> float:
    """The largest component of grad S along the redundancy, relative to the largest of grad S: zero up to rounding."""
    slope = target.map.pull_back(force(target.lattice, target.v, target.map(theta)))
    return float(np.abs(target.map.kernel_part(slope)).max() / np.abs(slope).max())
