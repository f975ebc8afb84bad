"""Covariance of the general neural ODE: every gauge, one flow. The active convention is pinned by signs here."""

import flow_fields as fields
import pytest
import torch
from torchdiffeq import odeint, odeint_adjoint

from regauge import flow
from regauge.errors import CheckError
from regauge.flow.diffeos import PullDiffeo
from regauge.flow.spacetime import SpacetimeField, from_lapse_and_shift, lapse, shift

X, F = fields.states(), fields.Net().requires_grad_(False)
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def bent():
    torch.manual_seed(1)
    return flow.BernsteinClock(4, logits=torch.randn(4, dtype=torch.float64)).requires_grad_(False)


def gauges():
    return {name: flow.Gauge(phi.requires_grad_(False), bent()) for name, phi in fields.diffeos().items()}


@pytest.mark.parametrize("name", gauges())
def test_every_gauge_has_the_same_flow(name):
    gauge = gauges()[name]
    end = flow.integrate(F, X, "rk4", 64)
    y = flow.integrate(flow.transport(F, gauge), gauge.encode(X), "rk4", 64)
    assert torch.allclose(gauge.decode(y), end, atol=3e-5)
    assert float((y - end).abs().max()) > 1e-2


@pytest.mark.parametrize("name", ["scale", "channels", "low_rank", "coupling"])
@pytest.mark.parametrize("clock", ["bernstein", "network"])
def test_single_precision_is_single_precision(name, clock):
    torch.manual_seed(0)
    times = {"bernstein": flow.BernsteinClock(5, logits=torch.randn(5)), "network": flow.NetworkClock()}[clock]
    gauge, r = flow.Gauge(fields.diffeos()[name], times.double()).requires_grad_(False), torch.tensor(0.4).double()
    exact = flow.transport(F, gauge)(r, X), gauge.decode(gauge.encode(X))
    single = flow.transport(fields.Net().float().requires_grad_(False), gauge.float())
    moved = single(r.float(), X.float()), gauge.decode(gauge.encode(X.float()))
    for ours, theirs in zip(moved, exact, strict=True):
        assert ours.dtype == torch.float32 and torch.allclose(ours.double(), theirs, atol=2e-5)


def test_pull_form_is_the_push_form():
    gauge = gauges()["pull_only"]
    r, y = torch.tensor(0.4, dtype=torch.float64), fields.states(seed=8)
    assert isinstance(gauge.space, PullDiffeo)
    x = gauge.space.pull(r, y)
    v = gauge.clock.rate(r) * F(gauge.clock(r), x)
    push_form = gauge.space.tangent(r, x, v, torch.ones_like(r))
    assert torch.allclose(flow.transport(F, gauge)(r, y), push_form, atol=1e-8)


@pytest.mark.parametrize(
    ("second", "first"), [("affine", "coupling"), ("channels", "scale"), ("reclocked", "low_rank")]
)
def test_composition_is_transport_twice(second, first):
    h, g = gauges()[second], gauges()[first]
    r, y = torch.tensor(0.3, dtype=torch.float64), fields.states(seed=9)
    twice = flow.TransportedField(flow.TransportedField(F, g), h)
    assert torch.allclose(flow.TransportedField(F, h @ g)(r, y), twice(r, y), atol=1e-9)


@pytest.mark.parametrize("name", ["affine", "coupling", "channels"])
def test_inverse_undoes_transport(name):
    gauge = gauges()[name]
    r, y = torch.tensor(0.6, dtype=torch.float64), fields.states(seed=9)
    back = flow.TransportedField(flow.TransportedField(F, gauge), gauge.inverse())
    assert torch.allclose(back(r, y), F(r, y), atol=1e-8)


def test_signs_of_the_active_convention():
    # x -> e^g x with F = w x + b: w' = w + gdot, b' = e^g b (a passive reading would give w - gdot)
    w, b, g = 0.7, 0.4, lambda r: torch.sin(r)
    line = flow.transport(lambda t, x: w * x + b, flow.Gauge(flow.ScaleDiffeo(g)))
    r = torch.tensor(0.3, dtype=torch.float64)
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    bias, slope_and_bias = line(r, y).flatten().tolist()
    assert bias == pytest.approx(torch.exp(g(r)).item() * b)
    assert slope_and_bias - bias == pytest.approx(w + torch.cos(r).item())
    # t = t(r): F' = tdot F(t(r)); infinitesimally, tau = t + f gives dF = -d(f F)/dt
    eps = 1e-5
    clock = flow.PowerClock(2.0)
    field = flow.transport(lambda t, x: torch.cos(t) * x, flow.Gauge(clock=clock))
    assert field(r, y)[1].item() == pytest.approx(2 * 0.3 * torch.cos(r**2).item())

    class Delay(flow.Clock):
        def forward(self, r):  # the inverse of tau = t + eps sin(pi t), to first order
            return r - eps * torch.sin(torch.pi * r)

    moved = flow.transport(lambda t, x: torch.cos(t) * x, flow.Gauge(clock=Delay()))
    product = torch.pi * torch.cos(torch.pi * r) * torch.cos(r) - torch.sin(torch.pi * r) * torch.sin(r)
    assert ((moved(r, y)[1] - torch.cos(r)) / eps).item() == pytest.approx(-product.item(), abs=1e-4)


def test_infinitesimal_law_is_the_commutator():
    # phi = x + eps xi(t, x): dF = d_t xi + [F, xi], [F, xi] = (F.grad) xi - (xi.grad) F
    xi = fields.Net(seed=4).requires_grad_(False)
    eps, t = 1e-6, torch.tensor(0.4, dtype=torch.float64)
    small = flow.PullDiffeo(lambda r, y: y - eps * xi(r, y))
    change = (flow.transport(F, flow.Gauge(small))(t, X) - F(t, X)) / eps
    jvp = torch.func.jvp
    along_f = jvp(lambda x: xi(t, x), (X,), (F(t, X),))[1]
    along_xi = jvp(lambda x: F(t, x), (X,), (xi(t, X),))[1]
    rate = jvp(lambda q: xi(q, X), (t,), (torch.ones_like(t),))[1]
    assert torch.allclose(change, rate + along_f - along_xi, atol=1e-5)


def test_ends_and_dressing():
    torch.manual_seed(0)
    gauge = gauges()["affine"]
    with pytest.raises(CheckError, match=r"regauge\.flow\.dress"):
        gauge.require_ends(X)
    encoder, decoder = torch.nn.Linear(5, 3).double(), torch.nn.Linear(3, 2).double()
    inputs = fields.states(6, 5)
    exact = decoder(flow.exact_flow(F, encoder(inputs), **TIGHT))
    first, field, last = flow.dress(encoder, F, decoder, gauge)
    assert torch.allclose(last(flow.exact_flow(field, first(inputs), **TIGHT)), exact, atol=1e-8)
    bump = flow.ScaleDiffeo(lambda r: torch.sin(torch.pi * r))
    flow.Gauge(bump, bent()).require_ends(X)
    assert flow.Gauge(bump).ends(X).worst < 1e-14


def test_stabiliser_is_larger_than_identity_at_the_ends():
    # a rotation commutes with an isotropic flow: phi_T o Phi = Phi o phi_0 although neither end is the identity
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64))
    phi = flow.AffineDiffeo(lambda r: turn.expand(*r.shape, 2, 2))
    x = fields.states(5, 2)

    def isotropic(z):
        return flow.integrate(lambda t, q: -q * q.square().sum(-1, keepdim=True), z, "rk4", 20)

    assert flow.stabiliser_defect(isotropic, phi, x, 0.0, 1.0) < 1e-12
    assert flow.stabiliser_defect(lambda z: z + torch.tensor([1.0, 0.0], dtype=torch.float64), phi, x, 0.0, 1.0) > 0.1


@pytest.mark.slow
def test_adjoint_training_gradients_agree():
    gauge, target = gauges()["coupling"], fields.states(seed=21)
    gradients = []
    for solver in ("plain", "moved", "adjoint"):
        net = fields.Net()
        grid = torch.linspace(0, 1, 33, dtype=torch.float64)
        if solver == "plain":
            end = odeint(net, X, grid, method="rk4")[-1]
        else:
            ode = odeint_adjoint if solver == "adjoint" else odeint
            end = gauge.decode(ode(flow.transport(net, gauge), gauge.encode(X), grid, method="rk4")[-1])
        (end - target).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    scale = gradients[0].abs().max()
    assert torch.allclose(gradients[1], gradients[0], atol=1e-4 * scale)
    assert torch.allclose(gradients[2], gradients[0], atol=1e-4 * scale)


def test_covectors_pair_invariantly():
    gauge, r = gauges()["coupling"], torch.tensor(0.4, dtype=torch.float64)
    v, p = fields.states(seed=3), fields.states(seed=4)
    w = gauge.space.tangent(r, X, v, torch.zeros_like(r))
    assert torch.allclose((gauge.push_covector(r, X, p) * w).sum(-1), (p * v).sum(-1), atol=1e-12)


def test_adm_form():
    gauge = gauges()["channels"]
    r, y = torch.tensor(0.4, dtype=torch.float64), fields.states(seed=8)
    x = gauge.space.pull(r, y)
    pushed = gauge.space.tangent(r, x, F(gauge.clock(r), x), torch.zeros_like(r))
    adm = lapse(gauge, r) * pushed + shift(gauge, r, y)
    assert torch.allclose(adm, flow.transport(F, gauge)(r, y), atol=1e-12)
    # back from lapse and shift: the gauge they generate starts at the identity, so compare shifts and flows
    built = from_lapse_and_shift(
        lambda q: 1 + 0.3 * torch.cos(torch.pi * q), lambda q, z: torch.sin(q) * torch.tanh(z), steps=6
    )
    assert torch.allclose(shift(built, r, y), torch.sin(r) * torch.tanh(y), atol=1e-5)
    end = flow.integrate(F, X, "rk4", 16)
    moved = built.decode(flow.integrate(flow.transport(F, built), built.encode(X), "rk4", 8))
    assert torch.allclose(moved, end, atol=1e-4)


def test_full_spacetime_diffeomorphism():
    # tau = t + k t (1 - t) q(x) with y = x: the inverse is the quadratic formula
    k = 0.2

    def q(x):
        return torch.tanh(x[..., 0])

    def forward(t, x):
        return t + k * t * (1 - t) * q(x), x

    def backward(tau, x):
        a = k * q(x)
        return 2 * tau / ((1 + a) + torch.sqrt((1 + a) ** 2 - 4 * a * tau)), x

    field = SpacetimeField(F, forward, backward)
    end = flow.exact_flow(F, X, **TIGHT)
    assert torch.allclose(flow.exact_flow(field, X, **TIGHT), end, atol=1e-8)  # tau runs from 0 to 1 for every state
    backwards = SpacetimeField(F, lambda t, x: (1 - t, x), lambda tau, x: (1 - tau, x))
    with pytest.raises(CheckError, match="runs backwards"):
        backwards(torch.tensor(0.5, dtype=torch.float64), X)


def test_conjugated_steps_are_exact_and_naive_ones_are_not():
    gauge = flow.Gauge(fields.diffeos()["coupling"].requires_grad_(False))
    step = flow.conjugated(F, gauge.space.push, gauge.space.pull, "rk4")
    x = flow.integrate(F, X, "rk4", 4)
    y = gauge.encode(X)
    for k in range(4):
        y = step(torch.tensor(k / 4, dtype=torch.float64), 0.25, y)
    assert float((gauge.decode(y) - x).abs().max()) < 1e-13
    naive = gauge.decode(flow.integrate(flow.transport(F, gauge), gauge.encode(X), "rk4", 4))
    assert float((naive - x).abs().max()) > 1e-8
