"""Closed-form schedule gauges, safe at both ends, and compared with flow_matching where it is installed."""

import flow_fields as fields
import pytest
import torch

from regauge import flow
from regauge.errors import InputError
from regauge.flow.schedules import SCHEDULES

X = fields.states(9, 2)
EXACT = torch.exp(torch.tensor(-1.0, dtype=torch.float64))


def decay(t, x):
    return -x


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4"])
@pytest.mark.parametrize("name", ["cosine", "vp"])
def test_both_ends_are_safe_for_every_solver(name, solver):
    gauge = flow.from_condot(SCHEDULES[name], stretch=True)
    field = flow.transport(decay, gauge)
    errors = []
    for steps in (16, 32):
        end = gauge.decode(flow.integrate(field, gauge.encode(X), solver, steps))
        errors.append(float((end - EXACT * X).abs().max()))
    order = flow.METHODS[solver].order
    assert errors[1] < 0.1
    assert errors[0] / errors[1] > 0.6 * 2**order  # the method keeps its order up to the ends


@pytest.mark.parametrize(
    "schedule", [flow.Cosine(), flow.Polynomial(2.0), flow.VariancePreserving(), flow.EDM(10.0, 3.0)]
)
def test_rates_and_signal_to_noise(schedule):
    r = torch.linspace(0.05, 0.9, 9, dtype=torch.float64)
    eps = 1e-6
    for rate, ahead, behind in zip(schedule.rates(r), schedule.at(r + eps), schedule.at(r - eps), strict=True):
        assert torch.allclose(rate, (ahead - behind) / (2 * eps), atol=1e-6, rtol=1e-6)
    gauge = flow.from_condot(schedule)
    alpha, sigma = schedule.at(r)
    t = gauge.clock(r)
    assert torch.allclose(t / (1 - t), alpha / sigma, rtol=1e-9)
    # one data point and one noise: the CondOT line becomes the target's path
    x0, x1 = X[:1], X[1:2]
    moved = torch.cat([gauge.space.push(q, (1 - q_t) * x0 + q_t * x1) for q, q_t in zip(r, t, strict=True)])
    assert torch.allclose(moved, alpha[:, None] * x1 + sigma[:, None] * x0, atol=1e-12)


def test_between_two_schedules_composes():
    gauge = flow.between(flow.Cosine(), flow.Polynomial(2.0))
    direct = flow.from_condot(flow.Polynomial(2.0))
    there = flow.TransportedField(flow.transport(decay, flow.from_condot(flow.Cosine())), gauge)
    r = torch.tensor(0.4, dtype=torch.float64)
    assert torch.allclose(there(r, X), flow.transport(decay, direct)(r, X), atol=1e-8)


def test_vp_says_what_it_leaves_out_and_where_it_is_infinite():
    assert flow.from_condot(flow.VariancePreserving()).clock.ends()[0] == pytest.approx(0.00653, abs=2e-5)
    assert flow.from_condot(flow.VariancePreserving(), stretch=True).clock.ends() == pytest.approx(
        (0.0, 1.0), abs=1e-12
    )
    own = flow.from_condot(flow.VariancePreserving(root_time=False))
    with pytest.raises(InputError, match="root_time"):
        flow.transport(decay, own)(torch.tensor(1.0, dtype=torch.float64), X)


def test_root_time_is_the_same_schedule():
    q = torch.linspace(0, 0.99, 7, dtype=torch.float64)
    own, root = flow.VariancePreserving(root_time=False), flow.VariancePreserving()
    for a, b in zip(own.at(1 - (1 - q) ** 2), root.at(q), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    alpha, sigma = root.at(q)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(q), atol=1e-12)


def test_noise_predicting_models():
    # data at a point m: eps = (x - alpha m) / sigma, and the flow is known: x(r) = alpha m + sigma x0
    m, vp = X[3], flow.VariancePreserving(root_time=False)

    def epsilon(r, x):
        alpha, sigma = vp.at(r)
        return (x - alpha * m) / sigma

    field = flow.EpsilonField(epsilon, vp)
    (alpha0, sigma0), (alpha1, sigma1) = (vp.at(torch.tensor(r, dtype=torch.float64)) for r in (0.0, 0.9))
    end = flow.exact_flow(field, alpha0 * m + sigma0 * X, 0.0, 0.9, 1e-10, 1e-10)
    assert torch.allclose(end, alpha1 * m + sigma1 * X, atol=1e-7)


def test_flow_matching_agrees_inside_and_fails_at_the_end():
    scheduler = pytest.importorskip("flow_matching.path.scheduler")
    wrapper = pytest.importorskip("flow_matching.utils").ModelWrapper

    class Decay(wrapper):
        def forward(self, x, t, **extras):
            return -x * (1 + t.reshape(-1, 1))

    def field(t, x):
        return -x * (1 + t)

    cases = {
        "cosine": (scheduler.CosineScheduler(), flow.Cosine()),
        "vp": (scheduler.VPScheduler(), flow.VariancePreserving(root_time=False)),
    }
    for theirs, ours in cases.values():
        model = scheduler.ScheduleTransformedModel(Decay(torch.nn.Identity()), scheduler.CondOTScheduler(), theirs)
        moved = flow.transport(field, flow.from_condot(ours))
        for at in (0.2, 0.5, 0.8):
            r = torch.tensor(at, dtype=torch.float64)
            other = model(x=X, t=r.reshape(1))
            assert torch.allclose(moved(r, X), other, rtol=1e-5, atol=1e-6)
    # the closed form at the end itself: u = (sdot/s) z + tdot s F(1, z/s), s = 1, sdot = tdot = ... of S + C
    end = torch.tensor(1.0, dtype=torch.float64)
    half_pi = torch.pi / 2
    expected = -half_pi * X + half_pi * (-2 * X)
    assert torch.allclose(flow.transport(field, flow.from_condot(flow.Cosine()))(end, X), expected, atol=1e-12)
