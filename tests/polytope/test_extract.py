"""The complex of {f <= 1} against brute force: zonotopes, half-space intersections, quadrature, random points."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, HalfspaceIntersection

from regauge.errors import CheckError, InputError
from regauge.polytope import Maxout, Slopes, canonical_form, extract, network, rational
from regauge.polytope.quadrature import sphere_rule


def random_network(seed, dim, widths, activation="abs", slope=None):
    rng = np.random.default_rng(seed)
    sizes = [dim, *widths]
    weights = [rng.normal(size=(m, n)) / math.sqrt(n) for n, m in zip(sizes, sizes[1:], strict=False)]
    return network(weights, rng.uniform(0.5, 1.5, widths[-1]), activation, slope)


def same_rows(a, b, tolerance=1e-8):
    """Whether two sets of points are equal."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    gap = np.abs(a[:, None] - b[None]).max(axis=2)
    return len(a) == len(b) and (gap.min(axis=1) < tolerance).all() and (gap.min(axis=0) < tolerance).all()


@pytest.mark.parametrize(("dim", "units"), [(d, n) for d in (2, 3, 4, 5) for n in range(d, d + 4)])
def test_generic_counts(dim, units):
    """2 C(N, d - 1) vertices and 2 sum_{k < d} C(N - 1, k) facets for N generic absolute values."""
    body = extract(random_network(units, dim, [units]))
    assert body.f_vector[0] == 2 * math.comb(units, dim - 1)
    assert body.f_vector[-1] == 2 * sum(math.comb(units - 1, k) for k in range(dim))
    assert sum((-1) ** k * count for k, count in enumerate(body.f_vector)) == 1 - (-1) ** dim
    assert body.convex and body.bounded


@pytest.mark.parametrize(("dim", "units", "seed"), [(2, 4, 0), (3, 4, 1), (3, 6, 2), (4, 5, 3), (4, 6, 4)])
def test_polar_of_the_zonotope(dim, units, seed):
    """Facet normals of {sum a |w.x| <= 1} are the vertices of sum [-a w, a w], and vertices its facet normals."""
    net = random_network(seed, dim, [units])
    body = extract(net)
    signs = np.array(list(itertools.product((1, -1), repeat=units)))
    hull = ConvexHull(signs @ (net.out[:, None] * net.layers[0].weight))
    assert same_rows(body.normals, hull.points[hull.vertices])
    planes = np.unique(np.round(-hull.equations[:, :-1] / hull.equations[:, -1:], 9), axis=0)
    assert same_rows(body.vertices, planes, 1e-6)


@pytest.mark.parametrize(("dim", "units", "seed"), [(2, 5, 0), (3, 7, 1), (4, 6, 2)])
def test_against_half_space_intersection(dim, units, seed):
    body = extract(random_network(seed, dim, [units]))
    planes = np.column_stack([body.normals, -np.ones(len(body.normals))])
    corners = HalfspaceIntersection(planes, np.zeros(dim)).intersections
    hull = ConvexHull(corners)
    assert same_rows(body.vertices, corners[hull.vertices])
    assert body.volume == pytest.approx(hull.volume, rel=1e-9)


DEEP = [
    (2, (3, 3), "relu"), (2, (4, 4), "abs"), (3, (4, 4), "relu"), (3, (5, 4), "leaky"), (3, (4, 4, 4), "abs"),
    (3, (5, 5), "maxout"), (4, (4, 4), "abs"), (4, (5, 5), "relu"), (3, (4, 4), "prelu"),
]  # fmt: skip


def deep_network(dim, widths, kind, seed):
    if kind == "maxout":
        rng = np.random.default_rng(seed)
        weights = [rng.normal(size=(3 * widths[0], dim)), rng.normal(size=(2 * widths[1], widths[0]))]
        return network(weights, np.ones(widths[1]), [Maxout(3), Maxout(2)])
    if kind == "prelu":
        rng = np.random.default_rng(seed)
        slopes = [Slopes(np.ones(w), rng.uniform(-1, 2, w)) for w in widths]
        return network([rng.normal(size=(widths[0], dim)), rng.normal(size=widths)], np.ones(widths[1]), slopes)
    return random_network(seed, dim, widths, kind)


@pytest.mark.parametrize(("dim", "widths", "kind"), DEEP)
@pytest.mark.parametrize("seed", range(3))
def test_deep_networks_against_random_points(dim, widths, kind, seed):
    """At random points the gradient of f is the normal of some facet, all large facets are met, vertices have f = 1,
    and both convexity and boundedness agree with what the points show."""
    net = deep_network(dim, widths, kind, seed)
    body = extract(net)
    points = np.random.default_rng(seed).normal(size=(4000, dim))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    value, step = net(points), 1e-7
    if len(body.vertices):
        assert np.abs(net(body.vertices) - 1).max() < 1e-8
    inside = value > 1e-6
    slopes = np.stack([(net(points + step * e) - net(points - step * e)) / (2 * step) for e in np.eye(dim)], axis=1)
    smooth = inside & (np.abs((slopes * points).sum(axis=1) - value) < 1e-6)  # the others straddle a wall
    size = 1 + np.abs(net.gradient(points)).max()
    if smooth.any():
        gap = np.abs(slopes[smooth][:, None] - body.normals[None]).max(axis=2).min(axis=1)
        assert np.median(gap) < 1e-5 * size and np.quantile(gap, 0.9) < 1e-3 * size
    if (value < -1e-9).any():
        assert not body.bounded
    # f = max of its pieces exactly when {f <= 1} is convex
    best = (points[inside] @ body.normals.T).max(axis=1, initial=-np.inf)
    bulge = (best - value[inside]).max(initial=0.0)
    assert body.convex == (bulge < 1e-9 * size) or bulge < 1e-4 * size


@pytest.mark.parametrize(("dim", "widths", "kind"), DEEP)
def test_floating_and_rational_agree(dim, widths, kind):
    for seed in range(3):
        net = deep_network(dim, widths, kind, seed)
        rounded, exact = extract(net), extract(net, exact=True)
        assert exact.certified and not rounded.certified
        assert rounded.f_vector == exact.f_vector
        assert (rounded.convex, rounded.bounded) == (exact.convex, exact.bounded)
        if exact.bounded:
            assert isinstance(exact.volume, Fraction)
            assert float(exact.volume) == pytest.approx(rounded.volume, rel=1e-6)
            assert same_rows(exact.vertices, rounded.vertices, 1e-5 * np.abs(rounded.vertices).max())


@pytest.mark.parametrize(
    ("dim", "widths", "kind", "seed"), [(2, (4, 4), "abs", 0), (3, (4, 4), "abs", 0), (4, (4, 4), "abs", 1)]
)
def test_volume_by_quadrature(dim, widths, kind, seed):
    """vol {f <= 1} = |S^{d-1}| / d * mean of f^{-d} over the sphere."""
    net = random_network(seed, dim, widths, kind)
    nodes, weight = sphere_rule(dim, {2: 20000, 3: 500, 4: 90}[dim])
    ball = math.pi ** (dim / 2) / math.gamma(dim / 2 + 1)
    assert extract(net).volume == pytest.approx(ball * (weight @ net(nodes) ** -dim), rel=2e-3)


def test_coincident_walls_and_crossings():
    """The mirrors of the cube and of the icosahedron: many planes through one line, no artificial face."""
    cube = [v for v in itertools.product((-1, 0, 1), repeat=3) if 1 <= np.abs(v).sum() <= 2 and v > (0, 0, 0)]
    assert len(cube) == 9
    for exact in (False, True):
        assert extract(network([cube], np.ones(9), "abs"), exact=exact).f_vector == (26, 72, 48)
    phi = (1 + 5**0.5) / 2
    lines = np.array(
        [
            np.roll(v, k)
            for v in [(2, 0, 0), *((1, s * phi, t / phi) for s in (1, -1) for t in (1, -1))]
            for k in range(3)
        ]
    )
    assert extract(network([lines], np.ones(15), "abs")).f_vector == (62, 180, 120)


def test_exact_values_of_known_bodies():
    octahedron = extract(network([np.eye(3)], np.ones(3), "abs"), exact=True)
    assert octahedron.f_vector == (6, 12, 8) and octahedron.volume == Fraction(4, 3)
    assert sorted(map(len, octahedron.facets)) == [3] * 8
    assert extract(network([np.eye(4)], np.ones(4), "abs"), exact=True).volume == Fraction(2, 3)
    cuboctahedron = extract(network([[[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]], np.ones(4), "abs"), exact=True)
    assert sorted(map(len, cuboctahedron.facets)) == [3] * 8 + [4] * 6
    assert cuboctahedron.volume == Fraction(5, 48)


def test_units_that_bend_nothing_leave_no_wall():
    """relu(z) - relu(-z) = z: four such units are linear, and the orthants that extraction starts from vanish."""
    w = np.random.default_rng(0).normal(size=(3, 3))
    lines = np.random.default_rng(1).normal(size=(4, 3))
    plain = extract(network([w], np.ones(3), "abs"))
    hidden = np.concatenate([w, -w, lines, -lines])
    out = np.concatenate([np.ones(6), [0.02, 0.04, 0.02, 0.02, -0.02, -0.04, -0.02, -0.02]])
    shifted = extract(network([hidden], out, "relu"))
    assert shifted.f_vector == plain.f_vector
    assert shifted.regions.fan.counts[-1] > shifted.f_vector[-1]
    assert not np.allclose(np.sort(shifted.vertices.sum(1)), np.sort(plain.vertices.sum(1)))  # the linear part moves it


def test_unbounded_and_empty():
    half = extract(network([np.eye(2)], np.ones(2), "relu"))
    assert not half.bounded and half.convex and half.f_vector == (2, 3) and half.volume == math.inf
    slab = extract(network([[[1.0, 0, 0]]], [1.0], "abs"))
    assert slab.f_vector == (0, 0, 2) and slab.convex and not slab.bounded
    everything = extract(network([np.eye(3)], -np.ones(3), "abs"))
    assert everything.f_vector == (0, 0, 0) and not everything.bounded
    with pytest.raises(InputError, match="unbounded"):
        _ = half.edges


def test_facets_run_counterclockwise_and_edges_are_shared_by_two():
    body = extract(random_network(3, 3, (6, 6), "abs"))
    assert body.loops.holes == 0
    directed = [(a, b) for f in body.facets for a, b in zip(f, (*f[1:], f[0]), strict=True)]
    assert len(set(directed)) == len(directed) == 2 * body.f_vector[1]
    assert set(directed) == {(b, a) for a, b in directed}
    v = body.vertices
    total = sum(v[f[0]] @ np.cross(v[f[i]], v[f[i + 1]]) for f in body.facets for i in range(1, len(f) - 1)) / 6
    assert total == pytest.approx(body.volume, rel=1e-9)


def test_a_facet_with_a_hole():
    """An octahedron with a dent in the middle of one facet: the second layer's other unit is positive only there."""
    differences = [[1, -1, 0], [0, 1, -1], [-1, 0, 1]]
    first = np.concatenate([np.eye(3), -np.eye(3), differences, np.negative(differences)])
    norm = np.concatenate([np.ones(6), np.zeros(6)])
    dent = np.concatenate([np.ones(3), -9 * np.ones(3), -3 * np.ones(6)])
    body = extract(network([first, np.stack([norm, dent])], [1.0, 0.1], "relu"))
    assert body.bounded and not body.convex and body.loops.holes == 1
    v, e, f = body.f_vector
    assert v - e + f == 2 + body.loops.holes
    ((outer, hole),) = (curves for curves in body.loops.facets if len(curves) > 1)
    assert len(outer) == 3 and len(hole) == 6 and not set(outer) & set(hole)
    with pytest.raises(InputError, match="not that of a polytope"):
        canonical_form(body)


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match="dimension 1"):
        extract(network([np.ones((3, 1))], np.ones(3), "abs"))
    with pytest.raises(InputError, match="section"):
        extract(random_network(0, 11, [12]))
    with pytest.raises(InputError, match="reads 2 inputs"):
        network([np.eye(3), np.ones((2, 2))], np.ones(2), "relu")
    with pytest.raises(InputError, match="not known"):
        network([np.eye(3)], np.ones(3), "tanh")
    with pytest.raises(InputError, match="not finite"):
        network([np.full((3, 3), np.nan)], np.ones(3), "abs")
    with pytest.raises(InputError, match="negative"):
        extract(random_network(0, 3, [4]), tolerance=-1.0)


def test_section_is_the_body_in_the_subspace():
    net = random_network(5, 5, [6])
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 3)))[0].T
    body = extract(net.section(basis))
    assert body.dim == 3 and np.abs(net(body.vertices @ basis) - 1).max() < 1e-9


def test_rational_keeps_the_function():
    net = random_network(7, 3, (4, 3), "leaky", 0.3)
    points = np.random.default_rng(0).integers(-9, 9, size=(5, 3))
    exact = rational(net)(points.astype(object))
    assert all(isinstance(v, Fraction) for v in exact)
    assert np.abs(exact.astype(float) - net(points)).max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda d: st.tuples(
            st.just(d),
            st.lists(st.lists(st.integers(-2, 2), min_size=d, max_size=d), min_size=1, max_size=5),
            st.lists(st.lists(st.integers(-2, 2), min_size=5, max_size=5), min_size=1, max_size=3),
        )
    )
)
def test_degenerate_integer_networks(case):
    """Small integer weights: parallel units, zero units, many coincidences. Float, rational and Euler agree."""
    dim, first, second = case
    rows = np.array(second)[:, : len(first)]
    net = network([np.array(first), rows], np.ones(len(rows)), "relu")
    rounded, exact = extract(net), extract(net, exact=True)
    assert rounded.f_vector == exact.f_vector
    assert (rounded.convex, rounded.bounded) == (exact.convex, exact.bounded)
    if exact.bounded and exact.convex:
        assert sum((-1) ** k * count for k, count in enumerate(exact.f_vector)) == 1 - (-1) ** dim
        hull = ConvexHull(exact.vertices.astype(float))
        assert len(hull.vertices) == exact.f_vector[0]
        assert float(exact.volume) == pytest.approx(hull.volume, rel=1e-9)


@pytest.mark.parametrize("dim", [3, 4])
def test_near_coincidences_are_consistent_or_refused(dim):
    """Mirrors of the cube moved by about the tolerance: either a true fan, or the error that says what to do."""
    mirrors = [v for v in itertools.product((-1, 0, 1), repeat=dim) if 1 <= np.abs(v).sum() <= 2 and v > (0,) * dim]
    refused = 0
    for size in (1e-5, 1e-6, 3e-7, 1e-9):
        for seed in range(4):
            noise = size * np.random.default_rng(seed).normal(size=(len(mirrors), dim))
            net = network([np.array(mirrors) + noise], np.ones(len(mirrors)), "abs")
            try:
                body = extract(net, tolerance=1e-6)
            except CheckError as error:
                assert "exact=True" in str(error)
                refused += 1
                body = extract(net, exact=True)
            assert sum((-1) ** k * n for k, n in enumerate(body.f_vector)) == 1 - (-1) ** dim
            assert body.convex and body.bounded
    assert refused < 12
