"""Linear neural ODEs against matrix exponentials and against the general law."""

import flow_fields as fields
import pytest
import torch

from regauge import flow
from regauge.errors import InputError
from regauge.flow.linear import infinitesimal, is_affine
from regauge.flow.penalties import linear_defect
from regauge.flow.straight import obstruction

torch_double = torch.float64


def draw(*shape, seed=0, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch_double)


W0, W1, B0, B1 = draw(3, 3, seed=1), draw(3, 3, seed=2), draw(3, seed=3), draw(3, seed=4)
FIELD = flow.LinearField(
    lambda t: 0.5 * (W0 + torch.sin(2 * t)[..., None, None] * W1), lambda t: B0 + torch.cos(t)[..., None] * B1
)
X = fields.states()


@pytest.mark.parametrize("name", ["scale", "channels", "affine", "low_rank", "reclocked"])
def test_weights_transport_as_the_general_law(name):
    gauge = flow.Gauge(fields.diffeos()[name].requires_grad_(False), flow.ShiftClock(1.7))
    moved = flow.transport(FIELD, gauge)
    assert isinstance(moved, flow.LinearField)
    r = torch.tensor(0.3, dtype=torch_double)
    assert torch.allclose(moved(r, X), flow.TransportedField(FIELD, gauge)(r, X), atol=1e-12)
    # one matrix law for everything: A' = tdot G A G^-1 + Gdot G^-1, G by finite differences
    assert torch.allclose(moved.connection(r), affine_law(gauge, r), atol=1e-8)


def affine_law(gauge, r):
    def big(q):
        points = torch.cat([torch.zeros(1, 3, dtype=torch_double), torch.eye(3, dtype=torch_double)])
        image = gauge.space.push(q, points)
        g = torch.zeros(4, 4, dtype=torch_double)
        g[:3, :3], g[:3, 3], g[3, 3] = (image[1:] - image[0]).T, image[0], 1
        return g

    eps = 1e-6
    rate = (big(r + eps) - big(r - eps)) / (2 * eps)
    t = gauge.clock(r)
    return (gauge.clock.rate(r) * big(r) @ FIELD.connection(t) + rate) @ torch.linalg.inv(big(r))


def test_single_precision():
    weight, bias, turn = W0.float(), B0.float(), 0.3 * W1.float()
    one = torch.eye(3)
    gauge = flow.Gauge(flow.AffineDiffeo(lambda r: one + r[..., None, None] * turn, lambda r: r[..., None] * bias))
    field = flow.LinearField(weight, bias)
    moved = flow.transport(flow.transport(field, gauge), gauge)  # twice: also from a field without stored weights
    assert isinstance(moved, flow.LinearField) and moved.dtype == torch.float32
    r, x = torch.tensor(0.3), X.float()
    by_law = flow.TransportedField(flow.TransportedField(field, gauge), gauge)(r, x)
    assert moved(r, x).dtype == torch.float32 and torch.allclose(moved(r, x), by_law, atol=1e-4)
    bent = flow.Gauge(flow.CallableDiffeo(lambda r, x: x + 1e-2 * x.tanh(), lambda r, y: y))
    assert isinstance(flow.transport(field, bent), flow.TransportedField)
    straight = flow.to_linear_transport(field)
    end = flow.exact_flow(field, x, rtol=1e-6, atol=1e-6)
    assert straight(x).dtype == torch.float32 and torch.allclose(straight(x), end, rtol=1e-3, atol=1e-3)


def test_a_nonlinear_gauge_gives_a_general_field():
    gauge = flow.Gauge(fields.diffeos()["coupling"].requires_grad_(False))
    assert not is_affine(gauge.space, 3)
    assert isinstance(flow.transport(FIELD, gauge), flow.TransportedField)


def test_wilson_line_orders_later_times_left():
    weights, biases, hs = (
        draw(4, 3, 3, seed=7),
        draw(4, 3, seed=8),
        torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch_double),
    )
    line, offset = flow.piecewise_wilson_line(weights, biases, hs)
    product = torch.eye(3, dtype=torch_double)
    for h, w in zip(hs, weights, strict=True):
        product = torch.linalg.matrix_exp(h * w) @ product
    assert torch.allclose(line, product, atol=1e-12)
    edges = torch.cat([torch.zeros(1, dtype=torch_double), hs.cumsum(0)])
    x = X
    for k in range(4):
        constant = flow.LinearField(weights[k], biases[k])
        x = flow.exact_flow(constant, x, float(edges[k]), float(edges[k + 1]), 1e-11, 1e-11)
    assert torch.allclose(X @ line.T + offset, x, atol=1e-8)


def test_wilson_line_is_covariant_and_solves_the_ode():
    one = torch.tensor(1.0, dtype=torch_double)
    line, offset = flow.wilson_line(FIELD, one)
    assert torch.allclose(X @ line.T + offset, flow.exact_flow(FIELD, X, rtol=1e-11, atol=1e-11), atol=1e-8)
    gauge = flow.Gauge(fields.diffeos()["affine"])
    moved, shifted = flow.wilson_line(flow.transport(FIELD, gauge), one, steps=50)
    assert torch.allclose(gauge.decode(gauge.encode(X) @ moved.T + shifted), X @ line.T + offset, atol=1e-5)
    g0, g1 = (gauge.space.linear(r) for r in (torch.tensor(0.0, dtype=torch_double), one))
    assert torch.allclose(moved, g1 @ line @ torch.linalg.inv(g0), atol=1e-5)


def test_infinitesimal_law():
    a, adot, eps = draw(3, 3, seed=5), draw(3, 3, seed=6), 1e-6
    t0 = torch.tensor(0.4, dtype=torch_double)
    gauge = flow.Gauge(
        flow.AffineDiffeo(lambda r: torch.eye(3, dtype=torch_double) + eps * (a + (r - t0)[..., None, None] * adot))
    )
    moved = flow.transport(FIELD, gauge)
    dw, db = infinitesimal(FIELD.weight(t0), FIELD.bias(t0), a, adot)
    assert torch.allclose((moved.weight(t0) - FIELD.weight(t0)) / eps, dw, atol=1e-4)
    assert torch.allclose((moved.bias(t0) - FIELD.bias(t0)) / eps, db, atol=1e-4)


def test_bias_is_matter_for_gl_and_gauge_for_the_affine_group():
    # c(t) = -int_0^t b (W = 0): the translation gauges the bias away entirely
    drift = flow.LinearField(torch.zeros(3, 3, dtype=torch_double), lambda t: torch.cos(t)[..., None] * B1)
    gauge = flow.Gauge(
        flow.AffineDiffeo(lambda r: torch.eye(3, dtype=torch_double), lambda r: -torch.sin(r)[..., None] * B1)
    )
    moved = flow.transport(drift, gauge)
    r = torch.tensor(0.7, dtype=torch_double)
    assert float(moved.bias(r).abs().max()) < 1e-14


def test_straight_transport_is_exact_in_one_euler_step():
    end = flow.exact_flow(FIELD, X, rtol=1e-11, atol=1e-11)
    straight = flow.to_linear_transport(FIELD)
    assert torch.allclose(straight(X), end, atol=1e-7)
    segment = straight.segments[0]
    for at in (0.0, 0.4, 1.0):
        q_matrix, q_vector = linear_defect(segment, torch.tensor(at, dtype=torch_double))
        assert float(q_matrix.abs().max()) < 1e-9
        assert float(q_vector.abs().max()) < 1e-9
    # for every number of steps, and by any other solver
    for steps in (1, 3, 10):
        assert torch.allclose(flow.integrate(segment, X, "euler", steps), end, atol=1e-7)
    assert torch.allclose(flow.exact_flow(segment, X), end, atol=1e-6)


def test_straightening_gauge_reaches_it_without_dressing():
    gauge = flow.straightening(FIELD, steps=30)
    gauge.require_ends(X, 1e-6)
    moved, straight = flow.transport(FIELD, gauge), flow.to_linear_transport(FIELD, steps=60).segments[0]
    r = torch.tensor(0.35, dtype=torch_double)
    assert torch.allclose(moved.weight(r), straight.weight(r), atol=1e-5)
    assert torch.allclose(moved.bias(r), straight.bias(r), atol=1e-5)


def rotation_by(angle, size=1.0):
    w = torch.zeros(2, 2, dtype=torch_double)
    w[0, 1], w[1, 0] = -angle, angle
    return flow.LinearField(
        w + torch.eye(2, dtype=torch_double) * torch.log(torch.tensor(size)), torch.ones(2, dtype=torch_double)
    )


def test_negative_eigenvalues_obstruct():
    half_turn = rotation_by(torch.pi, 2.0)
    with pytest.raises(InputError, match=r"eigenvalue -2\b.*how='split'"):
        flow.to_linear_transport(half_turn)
    x = fields.states(5, 2)
    end = flow.exact_flow(half_turn, x, rtol=1e-11, atol=1e-11)
    split = flow.to_linear_transport(half_turn, how="split")
    assert len(split.segments) == 2
    assert torch.allclose(split(x), end, atol=1e-6)
    dressed = flow.to_linear_transport(half_turn, how="dress")
    assert len(dressed.segments) == 1
    assert torch.allclose(dressed(x), end, atol=1e-6)
    assert obstruction(torch.linalg.matrix_exp(rotation_by(3.0).weight(torch.tensor(0.0, dtype=torch_double)))) is None
    with pytest.raises(InputError, match="unknown"):
        flow.to_linear_transport(half_turn, how="hope")


def test_one_dimension_is_never_obstructed():
    for w in (-5.0, -0.1, 3.0):
        field = flow.LinearField(torch.tensor([[w]], dtype=torch_double), torch.tensor([0.3], dtype=torch_double))
        x = fields.states(4, 1)
        assert torch.allclose(
            flow.to_linear_transport(field)(x), flow.exact_flow(field, x, rtol=1e-10, atol=1e-10), atol=1e-6
        )


def test_nonlinear_straight_lines():
    # the gradient of a convex function: F contracts each coordinate monotonically, so straight lines do not cross
    field = lambda t, x: -torch.tanh(x) * (1 + t)  # noqa: E731
    gauge = flow.Gauge(flow.StraightLines(field, steps=20))
    x = fields.states(4, 2)
    gauge.require_ends(x, 1e-6)
    end = flow.integrate(field, x, "rk4", 40)
    moved = flow.transport(field, gauge)
    one_step = flow.integrate(moved, x, "euler", 1)
    assert torch.allclose(one_step, end, atol=1e-5)
    half = torch.tensor(0.5, dtype=torch_double)
    assert torch.allclose(moved(half, (x + end) / 2), end - x, atol=1e-4)
