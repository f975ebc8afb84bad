"""From a potential's text to a table: pick or run a sampler, compare with the exact lattice value, say what can be
believed."""

from dataclasses import dataclass, field, replace

import numpy as np

from regauge.errors import CheckError, InputError
from regauge.pathsum.elliptical import elliptical
from regauge.pathsum.hmc import hmc
from regauge.pathsum.independent import GaussianPrior, reweight
from regauge.pathsum.instanton import defended, fit_instantons
from regauge.pathsum.lattice import Lattice, path_lattice
from regauge.pathsum.nuts import nuts
from regauge.pathsum.observables import Row, table
from regauge.pathsum.oracle import Spectrum, spectrum
from regauge.pathsum.potential import Potential, potential
from regauge.pathsum.reference import covering
from regauge.pathsum.sample import Sample, WeightedSample
from regauge.pathsum.target import Target
from regauge.pathsum.tempering import annealed, tempering
from regauge.pathsum.transfer import LatticeExact, lattice_exact

SAMPLERS = ("auto", "independent", "instanton", "annealed", "elliptical", "hmc", "tempering", "nuts")
CHAINS = 32
HEAVY_TAIL = 0.7
MIXED = 1.05
EVEN_ENOUGH = 0.5  # below this efficiency, "auto" fits the instanton prior


@dataclass(frozen=True, eq=False)
class PathSum:
    """The answer: `rows` of estimates beside exact lattice values, the `sample` they came from, the continuum
    `levels`, `doubts`: reasons not to believe the errors (empty when none was found), and `missing`: why an exact
    value is absent."""

    lattice: Lattice = field(repr=False)
    v: Potential
    sample: Sample = field(repr=False)
    rows: tuple[Row, ...]
    exact: LatticeExact | None = field(repr=False)
    levels: Spectrum | None = field(repr=False)
    doubts: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return text_table(self)


def solve(
    text: str,
    beta: float = 10.0,
    sites: int = 64,
    samples: int = 20000,
    sampler: str = "auto",
    seed: int = 0,
    masses: tuple[float, ...] | None = None,
    ends: str = "periodic",
) -> PathSum:
    """Sum over the paths of a potential such as "x**2/2 + x**4" (more names are more coordinates).

    `samples` paths in all; "auto" reweights independent paths of the covering reference, and those of a fitted
    instanton prior where these are too uneven. Exact values are given where grids reach (1 or 2 coordinates on the
    lattice, up to 3 in the continuum).
    """
    if sampler not in SAMPLERS:
        raise InputError(f"sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    if samples < 40 * CHAINS:
        raise InputError(f"{samples} samples: errors need at least {40 * CHAINS}")
    v = potential(text)
    lattice = path_lattice(beta, sites, (1.0,) * v.dim if masses is None else masses, ends)
    target = Target(lattice, v, covering(lattice, v).map(lattice))
    sample = _run(target, sampler, samples, np.random.default_rng(seed))
    exact, levels, why = _exact(lattice, v)
    rows = tuple(table(lattice, v, sample, exact))
    return PathSum(lattice, v, sample, rows, exact, levels, tuple(doubts(sample, rows)), why)


def _run(target: Target, sampler: str, samples: int, rng: np.random.Generator) -> Sample:
    lattice, v, steps = target.lattice, target.v, samples // CHAINS
    match sampler:
        case "elliptical":
            return elliptical(target, CHAINS, steps, rng)
        case "hmc":
            return hmc(target, CHAINS, steps, rng)
        case "tempering":
            return tempering(target, CHAINS, steps, rng)
        case "nuts":
            return nuts(target, 4, samples // 4, rng)
        case "annealed":
            return annealed(target, samples, rng)
        case "instanton":
            return _instantons(target, samples, rng)
    plain = reweight(lattice, v, GaussianPrior(target.map), samples, rng)
    if sampler == "independent" or plain.efficiency > EVEN_ENOUGH:
        return plain
    if lattice.time.ends != "periodic":
        return annealed(target, samples, rng)
    fitted = _instantons(target, samples, rng)
    return fitted if fitted.efficiency > plain.efficiency else plain


def _instantons(target: Target, samples: int, rng: np.random.Generator) -> WeightedSample:
    prior = fit_instantons(target.lattice, target.v, rng)
    found = reweight(target.lattice, target.v, defended(prior), samples, rng)
    return replace(found, sampler="independent, instanton prior", evaluations=1 + prior.evaluations / samples)


def _exact(lattice: Lattice, v: Potential) -> tuple[LatticeExact | None, Spectrum | None, tuple[str, ...]]:
    """On the lattice, in the continuum, and why not, where not."""
    found: list = []
    why: list[str] = []
    tolerance = 1e-10 if v.dim == 1 else 1e-8
    for compute in (lambda: lattice_exact(lattice, v, tolerance), lambda: spectrum(v, lattice.masses)):
        try:
            found.append(compute())
        except (CheckError, InputError) as reason:
            found.append(None)
            why.append(str(reason))
    return found[0], found[1], tuple(why)


def doubts(sample: Sample, rows: tuple[Row, ...] | list[Row]) -> list[str]:
    """Why the errors may be too small: heavy-tailed weights, too few effective samples, chains that disagree."""
    found = []
    if isinstance(sample, WeightedSample):
        if sample.tail > HEAVY_TAIL:
            found.append(
                f"the weights have a heavy tail (Pareto k = {sample.tail:.2f} > {HEAVY_TAIL}): a well may be missed"
            )
    worst = max(rows, key=lambda row: row.average.r_hat)
    if worst.average.r_hat > MIXED:
        found.append(
            f"the chains disagree on {worst.name} (R-hat = {worst.average.r_hat:.3f} > {MIXED}): run longer, or temper"
        )
    for row in rows:
        if not np.isfinite(row.average.value) or not np.isfinite(row.average.error):
            found.append(f"no signal for {row.name}: noise has swallowed the correlator; take more samples")
        elif row.average.size < 100:
            found.append(f"only {row.average.size:.0f} effective samples of {row.name}: take more, or another sampler")
    return found


def text_table(answer: PathSum) -> str:
    """The answer as plain text, one row a line."""
    lines = [f"{'':<16}{'estimate':>13}{'error':>11}{'exact':>15}{'pull':>7}{'ESS':>9}"]
    for row in answer.rows:
        exact = "" if row.exact is None else f"{round(row.exact, 8) + 0.0:.8f}"
        pull = "" if row.pull is None else f"{row.pull:+.1f}"
        a = row.average
        lines.append(f"{row.name:<16}{a.value:>13.6f}{a.error:>11.6f}{exact:>15}{pull:>7}{a.size:>9.0f}")
    if answer.levels:
        lines.append("continuum        " + ", ".join(f"E{i} = {e:.10f}" for i, e in enumerate(answer.levels.energies)))
    lines += [f"no exact value: {why}" for why in answer.missing]
    return "\n".join(lines + [f"doubt: {doubt}" for doubt in answer.doubts])
