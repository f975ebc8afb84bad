"""Bodies of |z|^p: duality certificates, an independent maximiser, polytopes at p = 1, Hilbert's identities."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial import ConvexHull

from regauge.errors import InputError
from regauge.polytope import extract, network, pbody, roundest

CASES = [
    (2, 2, 3),
    (3, 3, 1.5),
    (3, 5, 4),
    (3, 6, 1.5),
    (4, 7, 3),
    (3, 6, 1),
    (3, 6, math.inf),
    (3, 5, 2),
    (3, 8, 7.5),
    (3, 8, 1.1),
]


@pytest.mark.parametrize(("dim", "units", "p"), CASES)
def test_section_and_projection_are_polar(dim, units, p):
    """h(y) = max over the section = min over the projection: both sides are shown and meet."""
    rng = np.random.default_rng(units)
    body = pbody(rng.normal(size=(units, dim)), p)
    for y in rng.normal(size=(6, dim)):
        found = body.polar(y)
        assert float(body.gauge(found.x)) == pytest.approx(1, abs=1e-12)
        assert np.abs(body.w.T @ found.z - y).max() < 1e-9
        assert np.linalg.norm(found.z, ord=body.q) == pytest.approx(found.x @ y, rel=1e-9)
        assert body.polar(3 * y).value == pytest.approx(3 * found.value, rel=1e-9)


@pytest.mark.parametrize(("dim", "units", "p"), [(2, 2, 3), (3, 5, 4), (3, 6, 1.5)])
def test_polar_against_a_general_maximiser(dim, units, p):
    rng = np.random.default_rng(0)
    body = pbody(rng.normal(size=(units, dim)), p)
    y = rng.normal(size=dim)
    best = max(-minimize(lambda x: -(x @ y) / body.gauge(x), rng.normal(size=dim), tol=1e-12).fun for _ in range(5))
    assert body.polar(y).value == pytest.approx(best, rel=1e-6)


def test_orthogonal_square_weights_exchange_p_and_q():
    """Only for N = d is the polar again an l_q ball."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for p in (1.5, 3.0, 4.0):
        body = pbody(turn, p)
        for y in np.random.default_rng(1).normal(size=(4, 3)):
            assert body.polar(y).value == pytest.approx(float(pbody(turn, body.q).gauge(y)), rel=1e-9)


def test_polar_of_p_one_is_the_zonotope_and_the_mahler_products():
    w = np.random.default_rng(3).normal(size=(6, 3))
    body, section = pbody(w, 1), extract(network([w], np.ones(6), "abs"))
    signs = np.array(np.meshgrid(*[[1, -1]] * 6)).reshape(6, -1).T
    zonotope = ConvexHull(signs @ w)
    for y in np.random.default_rng(4).normal(size=(5, 3)):
        h = max((zonotope.equations[:, :3] @ y) / -zonotope.equations[:, 3])
        assert body.polar(y).value == pytest.approx(h, rel=1e-9)
    product = section.volume * zonotope.volume
    assert 32 / 3 <= product <= (4 * math.pi / 3) ** 2  # Mahler's lower bound for d = 3, Blaschke-Santalo above
    cube = extract(network([np.eye(3)], np.ones(3), "abs"))
    assert cube.volume * 8 == pytest.approx(32 / 3)


@pytest.mark.parametrize(
    ("dim", "power", "least"), [(2, 4, 3), (2, 6, 4), (2, 8, 5), (3, 4, 6), (3, 6, 11), (4, 4, 11)]
)
def test_least_units_of_the_exact_sphere(dim, power, least):
    assert roundest(dim, power, least, starts=20).rms < 1e-13
    assert roundest(dim, power, least - 1, starts=2).rms > 1e-3


def test_hilbert_weights_hold_everywhere():
    w = roundest(3, 4, 6, starts=20).w
    points = np.random.default_rng(0).normal(size=(50, 3))
    assert ((np.abs(points @ w.T) ** 4).sum(1) / (points**2).sum(1) ** 2) == pytest.approx(1, abs=1e-12)


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match="norm"):
        pbody(np.eye(3), 0.5)
    with pytest.raises(InputError, match="rank"):
        pbody(np.ones((3, 2)), 2)
    with pytest.raises(InputError, match="power"):
        roundest(3, 1, 4)
