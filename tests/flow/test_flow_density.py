"""Continuous normalising flows: divergences and log-determinants in every gauge."""

import flow_fields as fields
import pytest
import torch
from torchdiffeq import odeint

from regauge import flow

X, F = fields.states(), fields.Net().requires_grad_(False)


@pytest.mark.parametrize("name", ["scale", "channels", "affine", "low_rank", "coupling", "composed", "reclocked"])
def test_transported_divergence(name):
    gauge = flow.Gauge(fields.diffeos()[name].requires_grad_(False), flow.ShiftClock(2.0))
    moved, r = flow.TransportedField(F, gauge), torch.tensor(0.4, dtype=torch.float64)
    assert torch.allclose(moved.divergence(r, X), flow.divergence(moved, r, X), atol=1e-9)


def test_total_log_determinant():
    def total(field, x):
        state = torch.cat([x, torch.zeros_like(x[:, :1])], -1)
        end = odeint(
            flow.LogDensityField(field), state, torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=1e-7, atol=1e-7
        )[-1]
        return end[:, :-1], -end[:, -1]

    end, plain = total(F, X)
    gauge = flow.Gauge(fields.diffeos()["coupling"].requires_grad_(False), flow.ShiftClock(2.0))
    _, moved = total(flow.transport(F, gauge), gauge.encode(X))
    assert torch.allclose(moved - plain, flow.log_det_correction(gauge, X, end), atol=1e-5)
    assert float((moved - plain).abs().max()) > 1e-2
    bump = flow.Gauge(flow.ScaleDiffeo(lambda r: torch.sin(torch.pi * r)), flow.ShiftClock(2.0))
    assert torch.allclose(total(flow.transport(F, bump), X)[1], plain, atol=1e-5)
    # against the Jacobian of the flow map itself
    jac = torch.autograd.functional.jacobian(lambda z: flow.integrate(F, z.unsqueeze(0), "rk4", 64).squeeze(0), X[0])
    assert plain[0].item() == pytest.approx(torch.linalg.slogdet(jac).logabsdet.item(), abs=1e-5)


def test_hutchinson_is_unbiased():
    t, rng = torch.tensor(0.3, dtype=torch.float64), torch.Generator().manual_seed(0)
    x = X[:1].expand(4000, 3)
    probe = torch.randint(0, 2, x.shape, generator=rng).double() * 2 - 1
    estimate = flow.divergence_estimate(F, t, x, probe)
    error = estimate.std() / len(estimate) ** 0.5
    assert abs(float(estimate.mean() - flow.divergence(F, t, X[:1])[0])) < 4 * float(error)
