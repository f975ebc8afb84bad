"""Every sampler against the exact lattice value, its errors by repetition, and the double wells."""

import numpy as np
import pytest

from regauge.errors import CheckError, InputError
from regauge.pathsum import (
    GaussianPrior,
    MixturePrior,
    Target,
    annealed,
    average,
    bridge,
    covering,
    elliptical,
    field_lattice,
    fit_instantons,
    gap_equation,
    hmc,
    lattice_exact,
    nuts,
    path_lattice,
    potential,
    reweight,
    step,
    table,
    tempering,
    whitened,
)
from regauge.pathsum.instanton import InstantonPrior, defended
from regauge.pathsum.tempering import ladder

SINGLE, DOUBLE = "x**2/2 + x**4", "(x**2-2)**2/4"


def target_of(text, beta=10.0, sites=32, chart="whitened", masses=None, ends="periodic"):
    v = potential(text)
    lattice = path_lattice(beta, sites, masses or (1.0,) * v.dim, ends)
    charts = {"whitened": lambda: covering(lattice, v).map(lattice), "bridge": lambda: bridge(lattice, 4.0)}
    charts["step"] = lambda: step(lattice, 0.5)
    return Target(lattice, v, charts[chart]())


def worst_pull(target, sample, exact=None):
    rows = table(target.lattice, target.v, sample, exact or lattice_exact(target.lattice, target.v, 1e-8))
    assert all(row.average.error > 0 for row in rows)
    return max(abs(row.pull) for row in rows)


RUNS = {
    "independent": lambda t, rng: reweight(t.lattice, t.v, GaussianPrior(t.map), 8000, rng),
    "elliptical": lambda t, rng: elliptical(t, 24, 400, rng),
    "hmc": lambda t, rng: hmc(t, 24, 250, rng),
    "tempering": lambda t, rng: tempering(t, 16, 250, rng),
    "annealed": lambda t, rng: annealed(t, 4000, rng),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("text", [SINGLE, pytest.param("(x**2-1)**2", marks=pytest.mark.slow), "x**4/4 - x**2/2 + x/3"])
def test_within_errors_of_the_exact_lattice_value(run, text):
    target = target_of(text)
    assert worst_pull(target, RUNS[run](target, np.random.default_rng(11))) < 3.5  # the largest of 4, correlated


@pytest.mark.parametrize("chart", ["bridge", "step"])
def test_hmc_in_other_networks_and_with_a_redundant_weight(chart):
    target = target_of(SINGLE, beta=5.0, sites=16, chart=chart)
    assert worst_pull(target, hmc(target, 24, 300, np.random.default_rng(3))) < 3.5


def test_annealing_through_a_redundant_map_knows_the_volume():
    target = target_of(SINGLE, beta=5.0, sites=16, chart="bridge")
    exact = lattice_exact(target.lattice, target.v)
    found, error = annealed(target, 3000, np.random.default_rng(4)).log_z
    assert abs(found - exact.log_z) < 4 * error and error < 0.1


def test_open_ends_and_two_masses():
    target = target_of(SINGLE, beta=4.0, sites=17, ends="open")
    assert worst_pull(target, elliptical(target, 24, 400, np.random.default_rng(5))) < 3.5
    target = target_of("x**2/2 + y**2 + x**2*y**2/4 + x*y/2", beta=4.0, sites=12, masses=(1.0, 2.0))
    sample = reweight(target.lattice, target.v, GaussianPrior(target.map), 10000, np.random.default_rng(6))
    assert sample.efficiency > 0.9 and worst_pull(target, sample) < 3.5


def test_a_field_on_two_points_of_space():
    lattice, v = field_lattice((12, 2), 0.5), potential("phi**4 - phi**2/2")
    target = Target(lattice, v, covering(lattice, v).map(lattice))
    exact = lattice_exact(lattice, v, 1e-9)
    assert (
        worst_pull(target, reweight(lattice, v, GaussianPrior(target.map), 20000, np.random.default_rng(0)), exact)
        < 3.5
    )
    assert worst_pull(target, hmc(target, 24, 300, np.random.default_rng(1)), exact) < 3.5


def test_two_samplers_agree_on_a_larger_field():
    lattice, v = field_lattice((8, 8)), potential("phi**4/4 - phi**2/4")
    target = Target(lattice, v, covering(lattice, v).map(lattice))
    first = elliptical(target, 24, 300, np.random.default_rng(2))
    second = hmc(target, 24, 200, np.random.default_rng(3))
    a, b = (average(s, (s.paths**2).mean((-2, -1))) for s in (first, second))
    assert abs(a.value - b.value) < 4 * np.hypot(a.error, b.error) and a.error < 0.05 * a.value


@pytest.mark.parametrize(
    "run", ["elliptical", *(pytest.param(r, marks=pytest.mark.slow) for r in ("hmc", "tempering"))]
)
def test_standard_errors_of_chains_by_repetition(run):
    target = target_of(SINGLE, beta=4.0, sites=8)
    exact = lattice_exact(target.lattice, target.v).square[0]
    short = {"elliptical": lambda r: elliptical(target, 8, 120, r, warmup=20)}
    short["hmc"] = lambda r: hmc(target, 8, 100, r, warmup=30)
    short["tempering"] = lambda r: tempering(target, 8, 80, r, np.array([0.0, 0.4, 1.0]), warmup=10)
    pulls = []
    for seed in range(60):
        sample = short[run](np.random.default_rng(seed))
        pulls.append(average(sample, (sample.paths**2).mean((-2, -1))).pull(exact))
    assert 0.75 < np.std(pulls) < 1.3 and abs(np.mean(pulls)) < 0.45


def test_standard_errors_of_weighted_samples_by_repetition():
    target = target_of("(x**2-1)**2", beta=5.0, sites=12)
    exact = lattice_exact(target.lattice, target.v)
    prior, square, free = GaussianPrior(target.map), [], []
    for seed in range(200):
        sample = reweight(target.lattice, target.v, prior, 600, np.random.default_rng(seed))
        square.append(average(sample, (sample.paths**2).mean((-2, -1))).pull(exact.square[0]))
        free.append((sample.log_z[0] - exact.log_z) / sample.log_z[1])
    assert 0.85 < np.std(square) < 1.2 and 0.85 < np.std(free) < 1.2


def test_every_line_of_the_table_has_an_honest_error():
    """Energy, free energy, <x>, <x^2> and gap, by 120 repetitions: pulls of spread 1 about 0."""
    target = target_of("x**4/4 - x**2/2 + x/3", beta=4.0, sites=12)
    exact, prior = lattice_exact(target.lattice, target.v), GaussianPrior(target.map)
    pulls = []
    for seed in range(120):
        sample = reweight(target.lattice, target.v, prior, 1000, np.random.default_rng(seed))
        pulls.append([row.pull for row in table(target.lattice, target.v, sample, exact)])
    spread, mean = np.std(pulls, axis=0), np.mean(pulls, axis=0)
    assert len(spread) == 5 and (spread > 0.8).all() and (spread < 1.25).all()
    assert (np.abs(mean) < 0.35).all()  # the gap is a ratio, so of order 1/n biased


def test_the_gap_equation():
    lattice = path_lattice(40.0, 4000)
    for strength, mu in ((1.0, 2.0), (10.0, 4.0)):  # mu^2 = 1 + 12 lambda / (2 mu), in the continuum at low temperature
        found = gap_equation(lattice, potential(f"x**2/2 + {strength}*x**4"))
        assert np.sqrt(found.mu2[0]) == pytest.approx(mu, rel=1e-3)
    found = gap_equation(path_lattice(5.0, 30, (1.0, 3.0)), potential("(x-1)**2 + 2*(y+0.5)**2 + x*y"))
    minimum = np.linalg.solve([[2, 1], [1, 4]], [2, -2])
    assert np.allclose(found.shift, minimum, atol=1e-8)
    stiff = np.diag([1, 3**-0.5]) @ np.array([[2, 1], [1, 4]]) @ np.diag([1, 3**-0.5])
    assert np.allclose(np.sort(found.mu2), np.linalg.eigvalsh(stiff), atol=1e-8)


def test_the_gap_equation_makes_the_weights_even():
    for text, floor in (("x**2/2+0.1*x**4", 0.97), (SINGLE, 0.83), ("x**2/2+10*x**4", 0.5)):
        target = target_of(text, sites=64)
        sample = reweight(target.lattice, target.v, GaussianPrior(target.map), 5000, np.random.default_rng(0))
        assert sample.efficiency > floor, text


@pytest.mark.parametrize(
    "text",
    [
        *(
            pytest.param(t, marks=pytest.mark.slow)
            for t in (DOUBLE, "(x**2-1)**2", "(x**2-4)**2/8", "x**4/4 - x**2 + x/5")
        ),
    ],
)
def test_instanton_prior_on_double_wells(text):
    v, lattice, rng = potential(text), path_lattice(10.0, 64), np.random.default_rng(0)
    prior = fit_instantons(lattice, v, rng)
    sample = reweight(lattice, v, defended(prior), 8000, rng)
    exact = lattice_exact(lattice, v)
    assert sample.efficiency > 0.5 and sample.tail < 0.7
    assert max(abs(row.pull) for row in table(lattice, v, sample, exact)) < 3.5
    assert abs(sample.log_z[0] - exact.log_z) < 4 * sample.log_z[1]


@pytest.mark.slow
def test_errors_with_the_instanton_prior_by_repetition():
    v, lattice = potential(DOUBLE), path_lattice(10.0, 64)
    exact, prior = lattice_exact(lattice, v), fit_instantons(lattice, v, np.random.default_rng(7))
    pulls = []
    for seed in range(60):
        sample = reweight(lattice, v, defended(prior), 1500, np.random.default_rng(seed))
        pulls.append([row.pull for row in table(lattice, v, sample, exact)])
    assert (np.std(pulls, axis=0) > 0.7).all() and (np.std(pulls, axis=0) < 1.35).all()


def small_instantons():
    import torch

    numbers = {
        "first_share": [0.2, -0.1],
        "first_mean": [[0.9], [-1.1]],
        "first_logvar": [[-1.0], [-0.7]],
        "centre": [[1.0], [-0.9]],
        "logfreq": [[0.7], [0.4]],
        "offset": [0.1, 0.0],
        "far_mean": [[0.8], [-1.0]],
        "far_logvar": [[-0.8], [-0.6]],
        "far_share": [[-0.5, 0.3], [-0.2, -1.0]],
        "lograte": -0.4,
    }
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}


def test_the_instanton_density_is_normalised_and_is_what_is_drawn():
    prior = InstantonPrior(path_lattice(1.5, 3), small_instantons())
    ticks = np.linspace(-5.5, 5.5, 67)
    grid = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 1, 3)
    density = np.exp(prior.log_density(grid)) * (ticks[1] - ticks[0]) ** 3
    assert density.sum() == pytest.approx(1.0, abs=1e-6)
    q = prior.draw(40000, np.random.default_rng(0))[:, 0]
    for moment in (lambda x: x[:, 1], lambda x: x[:, 0] * x[:, 2], lambda x: x[:, 1] ** 4):
        expected, drawn = density @ moment(grid[:, 0]), moment(q)
        assert abs(drawn.mean() - expected) < 4 * drawn.std() / 200


def test_mixtures_weigh_paths_by_the_whole_mixture():
    lattice, v = path_lattice(10.0, 32), potential(DOUBLE)
    wells = [gap_equation(lattice, v, np.array([c])).map(lattice) for c in (-1.4, 1.4)]
    parts = tuple(GaussianPrior(m) for m in wells) + (GaussianPrior(covering(lattice, v).map(lattice)),)
    sample = reweight(lattice, v, MixturePrior(parts, (0.25, 0.25, 0.5)), 12000, np.random.default_rng(0))
    exact = lattice_exact(lattice, v)
    assert max(abs(row.pull) for row in table(lattice, v, sample, exact)) < 3.5
    with pytest.raises(InputError, match="share"):
        MixturePrior(parts, (0.5, 0.5))


def test_the_ladder_starts_free_and_ends_at_the_target():
    rungs = ladder(target_of(DOUBLE), np.random.default_rng(0))
    assert rungs[0] == 0 and rungs[-1] == 1 and (np.diff(rungs) > 0).all() and len(rungs) > 2


@pytest.mark.slow
def test_nuts_agrees_with_the_exact_value():
    pytest.importorskip("numpyro")
    target = target_of(SINGLE, beta=4.0, sites=8, chart="bridge")
    sample = nuts(target, 2, 250, np.random.default_rng(0))
    assert worst_pull(target, sample) < 3.5 and sample.evaluations > 1


def test_refusals():
    target, rng = target_of(SINGLE, sites=8), np.random.default_rng(0)
    for run in (elliptical, hmc, tempering):
        with pytest.raises(InputError, match="at least 2 of 4"):
            run(target, 1, 100, rng)
    with pytest.raises(InputError, match="closed paths"):
        fit_instantons(path_lattice(1, 8, ends="open"), potential("x**2"), rng)
    with pytest.raises(InputError, match="build it on this lattice"):
        Target(path_lattice(1.0, 9), potential("x**2"), whitened(path_lattice(1.0, 8), 1.0))
    with pytest.raises(CheckError, match="no solution"):
        gap_equation(path_lattice(1, 8), potential(SINGLE), most=2)
