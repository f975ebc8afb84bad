"""Training against quadrature, finite differences, closed forms and a table of minima."""

import math
from collections import Counter

import numpy as np
import pytest

from regauge.errors import InputError
from regauge.polytope import Maxout, describe, extract, network, rms, settle, train, train_deep
from regauge.polytope import population as loss_of
from regauge.polytope.moments import cones_of, loss_and_gradient, objective
from regauge.polytope.quadrature import rule_of_size, sphere_rule

SLOPES = {"abs": -1.0, "relu": 0.0, "leaky": 0.3}


@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("dim", [2, 3, 4])
def test_population_loss_against_quadrature(slope, dim):
    rng = np.random.default_rng(dim)
    a, w = rng.normal(size=4), rng.normal(size=(4, dim))
    nodes, weight = rule_of_size(dim, {2: 20000, 3: 250000, 4: 400000}[dim])
    z = nodes @ w.T
    mean = float(weight @ (np.where(z > 0, z, slope * z) @ a - 1) ** 2)
    assert loss_of.loss(a, w, slope) == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
def test_derivatives_against_differences(slope):
    rng = np.random.default_rng(0)
    n, d, step = 4, 3, 1e-6
    x = rng.normal(size=n + n * d)

    def value(x):
        return loss_of.loss(x[:n], x[n:].reshape(n, d), slope)

    def gradient(x):
        return np.concatenate([part.reshape(-1) for part in loss_of.gradient(x[:n], x[n:].reshape(n, d), slope)])

    eye = np.eye(len(x)) * step
    first = np.array([(value(x + e) - value(x - e)) / (2 * step) for e in eye])
    second = np.array([(gradient(x + e) - gradient(x - e)) / (2 * step) for e in eye])
    assert np.abs(first - gradient(x)).max() < 1e-8
    assert np.abs(second - loss_of.hessian(x[:n], x[n:].reshape(n, d), slope)).max() < 1e-8


def polygon_rms(sides):
    t = math.pi / sides
    return math.sqrt(1 - (math.sin(t) / t) ** 2 / (0.5 + math.sin(2 * t) / (4 * t)))


@pytest.mark.parametrize("units", [2, 3, 4, 5, 6, 7, 8, 11])
def test_plane_minima_are_regular_polygons(units):
    for seed in range(3):
        found = train(2, units, seed=seed)
        body = extract(found.network)
        assert found.rms == pytest.approx(polygon_rms(2 * units), abs=1e-12)
        assert found.gradient < 1e-12
        assert describe(body).startswith("regular") or describe(body) == "square"
        assert body.f_vector == (2 * units, 2 * units)


ABSOLUTE = {
    (3, 3): (0.1011093, (6, 12, 8), "octahedron"),
    (3, 4): (0.0750199, (12, 24, 14), "cuboctahedron"),
    (3, 5): (0.0602666, (20, 40, 22), "combinatorially a polar of the rhombic icosahedron"),
    (3, 6): (0.0395899, (30, 60, 32), "icosidodecahedron"),
    (3, 7): (0.0337198, (18, 48, 32), "combinatorially a tetrakis cuboctahedron"),
    (4, 4): (0.0978039, (8, 24, 32, 16), "16-cell"),
    (4, 5): (0.0812629, (20, 60, 70, 30), "runcinated 5-cell"),
}


@pytest.mark.parametrize(("dim", "units"), ABSOLUTE)
def test_minima_of_absolute_values(dim, units):
    value, f_vector, title = ABSOLUTE[dim, units]
    for seed in range(5):
        found = train(dim, units, seed=seed)
        body = extract(found.network, tolerance=1e-7)
        assert found.rms == pytest.approx(value, abs=6e-8) and found.gradient < 1e-12
        assert (body.f_vector, describe(body)) == (f_vector, title)
        assert body.convex and body.bounded


def test_closed_form_of_the_octahedron():
    found = train(3, 3)
    assert found.rms == pytest.approx(math.sqrt(1 - (9 / 4) / (1 + 4 / math.pi)), abs=1e-12)
    radius = np.linalg.norm(extract(found.network).vertices, axis=1)
    assert radius == pytest.approx((1 + 4 / math.pi) / 1.5, abs=1e-9)


def test_radii_of_the_fivefold_body():
    radius = np.linalg.norm(extract(train(3, 5).network, tolerance=1e-7).vertices, axis=1)
    assert (radius.min(), radius.max()) == pytest.approx((1.1437, 1.1573), abs=5e-5)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_one_unit_more_than_dimensions_gives_the_roots_of_a_simplex(dim):
    body = extract(train(dim, dim + 1, "relu").network, tolerance=1e-7)
    assert describe(body) == {2: "regular hexagon", 3: "cuboctahedron", 4: "runcinated 5-cell"}[dim]


RECTIFIED = {
    (2, 3): {0.0419297}, (2, 4): {0.0352129}, (2, 5): {0.0148508, 0.0256025, 0.0350002}, (3, 4): {0.0750199},
    (3, 5): {0.0653305}, (3, 6): {0.0487921}, (4, 5): {0.0812629},
}  # fmt: skip


@pytest.mark.parametrize(("dim", "units"), RECTIFIED)
def test_minima_of_relu(dim, units):
    seen = Counter()
    for seed in range(12):
        found = train(dim, units, "relu", seed=seed)
        nearest = min(RECTIFIED[dim, units], key=lambda value: abs(value - found.rms))
        assert found.rms == pytest.approx(nearest, abs=6e-8) and found.gradient < 1e-12
        assert extract(found.network, tolerance=1e-7).bounded
        seen[nearest] += 1
    assert len(seen) == 1 if len(RECTIFIED[dim, units]) == 1 else 0.0148508 in seen


@pytest.mark.parametrize(
    ("units", "regular"),
    [(3, True), (4, False), (5, True), (6, True), *(pytest.param(n, n == 7, marks=pytest.mark.slow) for n in (7, 8))],
)
def test_relu_reaches_the_regular_polygon_unless_a_power_of_two(units, regular):
    best = min(train(2, units, "relu", seed=seed).rms for seed in range(40))
    assert (abs(best - polygon_rms(2 * units)) < 1e-9) == regular


@pytest.mark.parametrize("units", [1, 2, 3])
def test_relu_needs_more_units_than_dimensions(units):
    assert not extract(train(3, units, "relu").network, tolerance=1e-7).bounded


def test_pairs_of_relu_reach_the_absolute_optimum():
    """2 N units started as +- pairs stay pairs: the icosidodecahedron from relu alone."""
    w = train(3, 6, seed=1).network.layers[0].weight
    start = np.concatenate([w, -w]) * 1.1
    found = settle(network([start], np.ones(12), "relu"))
    assert found.rms <= 0.0395900
    assert describe(extract(found.network, tolerance=1e-6)) == "icosidodecahedron"


def test_free_signs_keep_their_number():
    """Negative units cancel or die, so the limit is a body of fewer units."""
    values = {round(train(3, 5, signs="free", seed=seed).rms, 5) for seed in range(6)}
    known = {round(train(3, n).rms, 5) for n in range(1, 6)}
    assert values <= known and len(values) > 1


def test_fixed_signs():
    found = train(2, 4, signs=[1, 1, 1, -1], seed=0)
    assert found.rms == pytest.approx(polygon_rms(6), abs=1e-5)
    assert (np.sign(found.network.out) == [1, 1, 1, -1]).all()


def test_path_runs_from_the_start_to_the_result():
    found = train(3, 4, frames=10)
    values = [rms(net) for net in found.path]
    assert 5 <= len(values) <= 11 and values[0] > 5 * values[-1]
    assert found.path[-1] is found.network
    assert values[-1] == pytest.approx(found.rms, abs=1e-4)


def test_same_seed_same_answer():
    a, b = train(3, 5, seed=3), train(3, 5, seed=3)
    assert np.array_equal(a.network.layers[0].weight, b.network.layers[0].weight)


@pytest.mark.slow
def test_two_layers_of_absolute_values_double_the_mirrors():
    """(2, 2) units reach the octagon, as four units of one layer do."""
    best = min(train_deep(2, (2, 2), "abs", seed=seed, steps=600, points=200).rms for seed in range(4))
    assert best == pytest.approx(polygon_rms(8), abs=2e-4)


@pytest.mark.slow
def test_deeper_nets_are_rounder_than_one_layer_of_as_many_regions():
    found = train_deep(3, (6, 6), "relu", seed=1, steps=500)
    body = extract(found.network, tolerance=1e-7)
    assert found.rms < 0.06 and body.bounded


def random_net(dim, widths, kind, seed=0):
    rng = np.random.default_rng(seed)
    pieces = 2 if isinstance(kind, Maxout) else 1
    sizes = [dim, *widths]
    weights = [rng.normal(size=(pieces * m, n)) for n, m in zip(sizes, widths, strict=False)]
    return network(weights, rng.normal(size=widths[-1]), kind)


@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("dim", [2, 3])
def test_the_loss_cone_by_cone_is_the_closed_one(dim, slope):
    net = network(
        [np.random.default_rng(dim).normal(size=(5, dim))], np.random.default_rng(1).normal(size=5), "leaky", slope
    )
    value, (dw, da) = loss_and_gradient(net, cones_of(net))
    first, second = loss_of.gradient(net.out, net.layers[0].weight, slope)
    assert value == pytest.approx(loss_of.loss(net.out, net.layers[0].weight, slope), abs=1e-13)
    assert np.abs(da - first).max() < 1e-13 and np.abs(dw - second).max() < 1e-13


@pytest.mark.parametrize("kind", ["relu", "abs", Maxout(2)], ids=str)
@pytest.mark.parametrize("dim", [2, 3])
def test_the_exact_loss_of_deep_nets(dim, kind):
    """Against quadrature, and its gradient against differences; the moments of all cones add up to the sphere's."""
    net = random_net(dim, (4, 4, 3), kind)
    cones = cones_of(net)
    assert np.allclose(cones.second.sum(axis=0), np.eye(dim) / dim, atol=1e-14)
    assert np.abs(cones.first.sum(axis=0)).max() < 1e-14
    exact = objective(net)
    x = exact.vector(net)
    assert exact.value(x) == pytest.approx(rms(net, 300000) ** 2, rel=2e-5)
    step = 1e-6 * np.eye(len(x))
    numeric = np.array([(exact.value(x + e) - exact.value(x - e)) / 2e-6 for e in step])
    assert np.abs(numeric - exact.gradient(x)).max() < 1e-7 * max(1, np.abs(numeric).max())


@pytest.mark.parametrize(("dim", "widths", "kind"), [(2, (3, 3), "relu"), (3, (3, 3), "abs")])
def test_deep_nets_are_polished_to_the_last_digit(dim, widths, kind):
    rough = train_deep(dim, widths, kind, seed=0, steps=300)
    fine = settle(rough.network)
    assert fine.gradient < 1e-12 and fine.rms < rough.rms
    assert rms(fine.network, 100000) == pytest.approx(fine.rms, rel=1e-4)
    curved = np.linalg.eigvalsh(objective(fine.network).hessian(objective(fine.network).vector(fine.network)))
    assert curved.min() > -1e-6 and (curved < 1e-6).sum() >= sum(widths)  # a minimum; every unit's scale is free


def test_mirrors_of_mirrors_give_the_octagon_exactly():
    best = min(train_deep(2, (2, 2), "abs", seed=seed, steps=300, polish=True).rms for seed in range(2))
    assert best == pytest.approx(polygon_rms(8), abs=1e-12)


def test_above_three_dimensions_the_sampled_loss_is_settled():
    rough = train_deep(4, (5, 4), "abs", steps=100, points=400)
    fine = settle(rough.network, points=400, rounds=1)
    assert rms(fine.network, 4000) < rms(rough.network, 4000)


@pytest.mark.parametrize("dim", [2, 3, 4, 5])
def test_quadrature_is_exact_on_polynomials(dim):
    """E x_1^2 x_2^4 = 1 * 3 / (d (d + 2) (d + 4)), E x_1^6 = 15 / the same."""
    nodes, weight = sphere_rule(dim, 7)
    assert weight.sum() == pytest.approx(1, abs=1e-13)
    below = dim * (dim + 2) * (dim + 4)
    assert weight @ (nodes[:, 0] ** 2 * nodes[:, 1] ** 4) == pytest.approx(3 / below, rel=1e-12)
    assert weight @ nodes[:, -1] ** 6 == pytest.approx(15 / below, rel=1e-12)
    assert weight @ nodes[:, 0] ** 7 == pytest.approx(0, abs=1e-14)


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match="at least 2 dimensions"):
        train(1, 3)
    with pytest.raises(InputError, match="closed population loss"):
        train(3, 3, "tanh")
    with pytest.raises(InputError, match="signs"):
        train(3, 3, signs=[1, 2, 3])
    with pytest.raises(InputError, match="signs"):
        train(3, 3, signs="some")
    with pytest.raises(InputError, match="a unit a layer"):
        train_deep(3, ())
