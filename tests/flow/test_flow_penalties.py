"""Gauge-fixing penalties: the linear closed form against the general one, and as training losses."""

import flow_fields as fields
import pytest
import torch

from regauge import flow
from regauge.flow.penalties import linear_defect


def smooth_field():
    torch.manual_seed(3)
    w = torch.nn.Parameter(0.4 * torch.randn(3, 3, 3, dtype=torch.float64))
    b = torch.nn.Parameter(0.4 * torch.randn(3, 3, dtype=torch.float64))
    field = flow.LinearField(
        lambda t: w[0] + torch.sin(3 * t)[..., None, None] * w[1] + (t**2)[..., None, None] * w[2],
        lambda t: b[0] + torch.cos(t)[..., None] * b[1],
    )
    return field, [w, b]


def test_data_weighted_form_is_the_mean_squared_acceleration():
    field, _ = smooth_field()
    t = torch.tensor(0.4, dtype=torch.float64)
    x = fields.states(2000) @ torch.diag(torch.tensor([1.0, 2.0, 0.3], dtype=torch.float64)) + 0.7
    direct = flow.straightness(field, t, x)
    mean, covariance = x.mean(0), torch.cov(x.T, correction=0)
    closed = flow.lorenz_penalty(field, t.reshape(1), mean, covariance)
    assert direct.item() == pytest.approx(closed.item(), rel=1e-10)


def test_acceleration_against_finite_differences_of_the_flow():
    net = fields.Net().requires_grad_(False)
    x, eps = fields.states(), 1e-3
    t = torch.tensor(0.5, dtype=torch.float64)
    ahead, behind = (flow.integrate(net, x, "rk4", 4, 0.5, 0.5 + s * eps) for s in (1, -1))
    assert torch.allclose(flow.acceleration(net, t, x), (ahead - 2 * x + behind) / eps**2, atol=1e-5)


def test_plain_form_is_frobenius():
    field, _ = smooth_field()
    t = torch.tensor(0.2, dtype=torch.float64)
    q_matrix, q_vector = linear_defect(field, t)
    eps = 1e-5
    wdot = (field.weight(t + eps) - field.weight(t - eps)) / (2 * eps)
    assert torch.allclose(q_matrix, wdot + field.weight(t) @ field.weight(t), atol=1e-8)
    expected = q_matrix.square().sum() + q_vector.square().sum()
    assert flow.lorenz_penalty(field, t.reshape(1)).item() == pytest.approx(expected.item())


@pytest.mark.slow
def test_penalty_is_a_training_loss():
    field, parameters = smooth_field()
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    adam = torch.optim.Adam(parameters, lr=2e-2)
    start = flow.lorenz_penalty(field, times).item()
    for _ in range(150):
        adam.zero_grad()
        flow.lorenz_penalty(field, times).backward()
        adam.step()
    assert flow.lorenz_penalty(field, times).item() < 0.1 * start
    net = fields.Net()
    flow.straightness(net, torch.tensor(0.3, dtype=torch.float64), fields.states()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_gauge_mass_is_not_invariant_but_straightness_has_a_zero_on_the_orbit():
    field, _ = smooth_field()
    with torch.no_grad():
        times = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
        straight = flow.to_linear_transport(field).segments[0]
        assert flow.lorenz_penalty(straight, times).item() < 1e-12 < flow.lorenz_penalty(field, times).item()
        assert flow.gauge_mass(straight, times).item() != pytest.approx(flow.gauge_mass(field, times).item(), rel=1e-2)


def test_straight_gauge_minimises_kinetic_energy_on_its_orbit():
    field, _ = smooth_field()
    with torch.no_grad():
        x = fields.states(50)
        straight = flow.to_linear_transport(field).segments[0]
        bump = flow.Gauge(flow.ScaleDiffeo(lambda r: 0.2 * torch.sin(torch.pi * r)))
        energies = []
        for other in (straight, field, flow.transport(straight, bump)):
            z, total = x, 0.0
            for k in range(40):
                t = torch.tensor(k / 40, dtype=torch.float64)
                total += flow.kinetic(other, t, z).item() / 40
                z = flow.integrate(other, z, "rk4", 1, k / 40, (k + 1) / 40)
            energies.append(total)
        assert energies[0] < energies[1] and energies[0] < energies[2]
