"""The neural geodesic equation: the inhomogeneous law, curvature, holonomy, learning."""

import pytest
import torch

from regauge import flow
from regauge.errors import InputError
from regauge.flow import geodesic as geo
from regauge.flow import holonomy as hol
from regauge.flow.learn_connection import learn_connection


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(n, low, high, seed=0):
    low, high = torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
    return low + (high - low) * torch.rand(
        n, len(low), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


def polar_to_stereographic(x):
    theta, phi = x[..., 0], x[..., 1]
    return torch.stack([phi.cos(), phi.sin()], -1) * torch.tan(theta / 2).unsqueeze(-1)


def stereographic_to_polar(y):
    return torch.stack([2 * torch.atan(y.norm(dim=-1)), torch.atan2(y[..., 1], y[..., 0])], -1)


def half_plane_to_disc(x):
    z = torch.complex(x[..., 0], x[..., 1])
    return torch.view_as_real((z - 1j) / (z + 1j))


def real_half_plane_to_disc(x):
    u, v = x[..., 0], x[..., 1]
    bottom = u**2 + (v + 1) ** 2
    return torch.stack([(u**2 + v**2 - 1) / bottom, -2 * u / bottom], -1)


def disc_to_half_plane(w):
    a, b = w[..., 0], w[..., 1]
    bottom = (1 - a) ** 2 + b**2
    return torch.stack([-2 * b / bottom, (1 - a**2 - b**2) / bottom], -1)


CASES = {
    "sphere": (
        geo.sphere_polar,
        polar_to_stereographic,
        stereographic_to_polar,
        geo.sphere_stereographic,
        uniform(6, [0.4, -1.0], [1.6, 1.0]),
    ),
    "hyperbolic": (
        geo.half_plane,
        real_half_plane_to_disc,
        disc_to_half_plane,
        geo.poincare_disc,
        uniform(6, [-1.0, 0.5], [1.0, 2.0]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inhomogeneous_law(name):
    gamma, push, pull, other, x = CASES[name]
    y = push(x)
    assert torch.allclose(pull(y), x, atol=1e-12)
    assert torch.allclose(geo.transport_connection(gamma, push, pull)(y), other(y), atol=1e-12)


def test_the_chart_is_the_cayley_map():
    x = CASES["hyperbolic"][-1]
    assert torch.allclose(real_half_plane_to_disc(x), half_plane_to_disc(x), atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_geodesics_transport(name):
    gamma, push, pull, _, x = CASES[name]
    v = 0.3 * draw(len(x), 2)
    end = flow.integrate(geo.GeodesicField(gamma), torch.cat([x, v], -1), "rk4", 100)
    moved = geo.GeodesicField(geo.transport_connection(gamma, push, pull))
    y, w = geo.push_velocity(push, x, v)
    y_end = flow.integrate(moved, torch.cat([y, w], -1), "rk4", 100)
    assert torch.allclose(y_end, torch.cat(geo.push_velocity(push, *end.chunk(2, -1)), -1), atol=1e-8)


def test_non_metric_connections_are_covariant_too_and_torsion_is_invisible():
    base = 0.3 * draw(2, 2, 2, seed=3)

    def gamma(x):
        return base * (1 + x.square().sum(-1)[..., None, None, None])

    def push(x):
        return torch.stack([x[..., 0] + 0.3 * torch.sin(x[..., 1]), x[..., 1]], -1)

    def pull(y):
        return torch.stack([y[..., 0] - 0.3 * torch.sin(y[..., 1]), y[..., 1]], -1)

    x, v = 0.5 * draw(5, 2), 0.3 * draw(5, 2, seed=1)
    state = torch.cat([x, v], -1)
    symmetric = flow.integrate(geo.GeodesicField(lambda z: geo.symmetric_part(gamma(z))), state, "rk4", 20)
    full = flow.integrate(geo.GeodesicField(gamma), state, "rk4", 20)
    assert torch.allclose(symmetric, full, atol=1e-13)
    y, w = geo.push_velocity(push, x, v)
    moved = geo.GeodesicField(geo.transport_connection(gamma, push, pull))
    y_end = flow.integrate(moved, torch.cat([y, w], -1), "rk4", 100)
    x_end = flow.integrate(geo.GeodesicField(gamma), state, "rk4", 100)
    assert torch.allclose(y_end[:, :2], push(x_end[:, :2]), atol=1e-8)


def test_affine_time_is_a_symmetry_and_projective_changes_reparametrise():
    x, v = CASES["sphere"][-1], 0.3 * draw(6, 2)
    field = geo.GeodesicField(geo.sphere_polar)
    once = flow.integrate(field, torch.cat([x, v], -1), "rk4", 100)
    slow = flow.integrate(field, torch.cat([x, v / 2], -1), "rk4", 100, 0.0, 2.0)
    assert torch.allclose(once[:, :2], slow[:, :2], atol=1e-8)
    changed = geo.projective(geo.sphere_polar, lambda z: 0.3 * torch.cos(z))
    # the acceleration changes along v only
    a0, a1 = (
        geo.GeodesicField(g)(torch.tensor(0.0), torch.cat([x, v], -1))[:, 2:] for g in (geo.sphere_polar, changed)
    )
    difference = a1 - a0
    cross = difference[:, 0] * v[:, 1] - difference[:, 1] * v[:, 0]
    assert float(cross.abs().max()) < 1e-15 < float(difference.abs().max())


def test_levi_civita_and_curvature():
    def round_metric(x):
        return torch.diag_embed(torch.stack([torch.ones_like(x[..., 0]), x[..., 0].sin() ** 2], -1))

    x = CASES["sphere"][-1]
    assert torch.allclose(geo.levi_civita(round_metric)(x), geo.sphere_polar(x), atol=1e-13)
    riemann = geo.curvature(geo.sphere_polar, x)
    assert torch.allclose(
        riemann[:, 0, 1, 0, 1], x[:, 0].sin() ** 2, atol=1e-12
    )  # R^theta_phi theta phi of the unit sphere
    ricci = torch.einsum("nijil->njl", riemann)
    assert torch.allclose(ricci, round_metric(x), atol=1e-12)
    ricci_disc = torch.einsum("nijil->njl", geo.curvature(geo.poincare_disc, 0.3 * draw(4, 2)))
    disc_metric = 4 / (1 - (0.3 * draw(4, 2)).square().sum(-1)) ** 2
    assert torch.allclose(ricci_disc, -disc_metric[:, None, None] * torch.eye(2, dtype=torch.float64), atol=1e-12)
    event = torch.tensor([[0.0, 6.0, 0.3], [1.0, 9.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(geo.levi_civita(geo.schwarzschild_metric())(event), geo.schwarzschild(event), atol=1e-13)


def test_holonomy_of_the_sphere_is_the_enclosed_area():
    area_of_octant = torch.pi / 2
    base = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    # pole -> equator -> a quarter along it -> pole, in stereographic coordinates
    first = torch.tensor([1.0, 0.0], dtype=torch.float64)

    def quarter(u):
        return torch.stack([torch.cos(torch.pi / 2 * u), torch.sin(torch.pi / 2 * u)])

    pieces = [
        hol.straight_path(base, first),
        quarter,
        hol.straight_path(quarter(torch.tensor(1.0, dtype=torch.float64)), base),
    ]
    total = torch.eye(2, dtype=torch.float64)
    for piece in pieces:
        total = hol.parallel_transport(geo.sphere_stereographic, piece) @ total
    angle = torch.atan2(total[1, 0], total[0, 0])
    assert angle.item() == pytest.approx(area_of_octant, abs=1e-4)


CORNERS = {
    "sphere": (geo.sphere_polar, [1.0, 0.0], [[1.3, 0.4], [0.8, 0.7], [1.4, -0.5], [0.7, -0.4]], (0, 2)),
    "hyperbolic": (geo.half_plane, [0.0, 1.0], [[0.5, 1.2], [0.3, 1.8], [-0.4, 1.5], [-0.5, 0.8]], (0, 2)),
    "schwarzschild": (
        geo.schwarzschild,
        [0.0, 6.0, 0.0],
        [[2.0, 7.0, 0.3], [1.0, 8.0, -0.4], [-3.0, 5.0, 0.5], [4.0, 6.5, 0.8], [-2.0, 9.0, -0.6]],
        (1, 2),
    ),
}


@pytest.mark.parametrize("name", CORNERS)
def test_metric_connections_are_recognised_and_recovered(name):
    gamma, base, corners, signature = CORNERS[name]
    base, corners = torch.tensor(base, dtype=torch.float64), torch.tensor(corners, dtype=torch.float64)
    report = hol.metric_report(gamma, base, corners, steps=40)
    assert report.dim == 1 and report.is_metric and report.signature == signature
    metrics = {
        "sphere": lambda x: torch.diag_embed(torch.stack([torch.ones_like(x[..., 0]), x[..., 0].sin() ** 2], -1)),
        "hyperbolic": lambda x: torch.eye(2, dtype=torch.float64) / x[..., 1, None, None] ** 2,
        "schwarzschild": geo.schwarzschild_metric(),
    }
    true_base, true_there = metrics[name](base[None])[0], metrics[name](corners[1][None])[0]
    scale = report.forms[0][0, 0] / true_base[0, 0]  # the one thing that geodesics cannot tell
    assert torch.allclose(report.forms[0], scale * true_base, atol=1e-6)
    assert torch.allclose(hol.metric_at(gamma, base, report.forms[0], corners[1]), scale * true_there, atol=1e-5)


def test_flat_and_non_metric_connections():
    base, corners = torch.zeros(2, dtype=torch.float64), 0.5 * draw(4, 2)
    flat = hol.metric_report(lambda x: x.new_zeros(len(x), 2, 2, 2), base, corners, steps=10)
    assert flat.dim == 3 and flat.is_metric  # any symmetric form will do
    wild = geo.symmetric_part(0.5 * draw(2, 2, 2, seed=4))
    report = hol.metric_report(lambda x: wild * (1 + x[:, :1, None, None]), base, corners, steps=40)
    assert report.dim == 0 and not report.is_metric and report.signature is None
    with pytest.raises(InputError, match="no loop"):
        hol.kept_forms([])


def trajectories(gamma, x, v, interval, times):
    field, state, rows = geo.GeodesicField(gamma), torch.cat([x, v], -1), []
    for k in range(times):
        rows.append(state)
        state = flow.integrate(field, state, "rk4", 5, k * interval, (k + 1) * interval)
    return torch.stack(rows, 1).chunk(2, -1)


LEARNING = {
    "sphere": (geo.sphere_polar, [0.7, -1.0], [1.7, 1.0], 2e-2, (0, 2)),
    "hyperbolic": (geo.half_plane, [-0.8, 0.8], [0.8, 2.0], 2e-2, (0, 2)),
    "schwarzschild": (geo.schwarzschild, [-1.0, 5.0, -1.0], [1.0, 9.0, 1.0], 2e-2, (1, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_learned_connections(name):
    gamma, low, high, accuracy, signature = LEARNING[name]
    dim = len(low)
    x = uniform(150, low, high)
    v = 0.5 * draw(150, dim, seed=2)
    positions, velocities = trajectories(gamma, x, v, 0.1, 6)
    model = learn_connection(positions, velocities, 0.1, hidden=48, iterations=400)
    inner = uniform(50, low, high, seed=9) * 0.6 + 0.4 * torch.tensor(
        [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    )
    error = float((model(inner) - gamma(inner)).abs().max() / gamma(inner).abs().max())
    assert error < accuracy
    base = torch.tensor([(a + b) / 2 for a, b in zip(low, high, strict=True)], dtype=torch.float64)
    spread = torch.tensor([(b - a) / 2 for a, b in zip(low, high, strict=True)], dtype=torch.float64)
    corners = base + 0.6 * spread * draw(7, dim, seed=3).clamp(-1, 1)
    values = hol.metric_report(model, base, corners, threshold=0.0, steps=40).singular_values
    # one direction is kept up to the error of the fit, the next is not
    assert values[0] < 0.2 * values[1]
    report = hol.metric_report(model, base, corners, threshold=(values[0] * values[1]) ** 0.5, steps=40)
    assert report.dim == 1 and report.signature == signature
    wild = geo.symmetric_part(0.5 * draw(dim, dim, dim, seed=4))
    positions, velocities = trajectories(
        lambda z: wild * (1 + 0.3 * torch.sin(z[:, :1, None, None])), 0.3 * x / x.abs().max(), v, 0.1, 6
    )
    other = learn_connection(positions, velocities, 0.1, hidden=48, iterations=200)
    centre = positions.reshape(-1, dim).mean(0)
    loops = centre + 0.15 * draw(7, dim, seed=3).clamp(-1, 1)
    none = hol.metric_report(other, centre, loops, threshold=0.0, steps=40).singular_values
    assert none[0] > 3 * values[0]


def test_learning_refuses_bad_shapes():
    with pytest.raises(InputError, match="at least two times"):
        learn_connection(torch.zeros(3, 1, 2), torch.zeros(3, 1, 2), 0.1)
