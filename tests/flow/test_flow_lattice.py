"""The lattice: exact local symmetry with link variables, broken symmetry without, and by how much."""

import flow_fields as fields
import pytest
import torch

from regauge import flow
from regauge.errors import InputError
from regauge.flow.lattice import EulerField, linear_links, run_links, transform_links
from regauge.flow.penalties import acceleration

X, F = fields.states(), fields.Net().requires_grad_(False)


def near_identity(rng, dim=3):
    return torch.eye(dim, dtype=torch.float64) + 0.4 * torch.randn(dim, dim, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("activation", [torch.tanh, torch.relu, torch.sin, torch.nn.functional.gelu])
def test_link_nets_have_an_exact_local_symmetry(activation):
    net = flow.link_net(3, 16, 8, activation, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    one = torch.eye(3, dtype=torch.float64)
    elements = [one, *(near_identity(rng) for _ in range(7)), one]
    moved = net.transformed(elements)
    assert float((moved(X) - net(X)).detach().abs().max()) < 1e-12
    assert float((moved.blocks[3].link - net.blocks[3].link).detach().abs().max()) > 0.1
    # translations of inner sites are free too
    zero = torch.zeros(3, dtype=torch.float64)
    shifts = [zero, *torch.randn(7, 3, generator=rng, dtype=torch.float64), zero]
    assert float((net.transformed(elements, shifts)(X) - net(X)).detach().abs().max()) < 1e-11
    # open ends conjugate: net'(g_0 x) = g_L net(x)
    elements[0], elements[-1] = near_identity(rng), near_identity(rng)
    assert torch.allclose(net.transformed(elements)(X @ elements[0].T), net(X) @ elements[-1].T, atol=1e-12)


def test_temporal_gauge_is_a_plain_residual_net():
    net = flow.link_net(3, 16, 6, dtype=torch.float64)
    residual, readout = net.temporal()
    for block in residual.blocks:
        assert torch.allclose(block.link, torch.eye(3, dtype=torch.float64), atol=1e-13)
    assert torch.allclose(residual(X) @ readout.T, net(X), atol=1e-12)
    net.blocks[2].link.data.zero_()
    with pytest.raises(InputError, match="singular"):
        net.temporal()
    with pytest.raises(InputError, match="sites"):
        net.transformed([torch.eye(3, dtype=torch.float64)])


def test_relu_rescaling_inside_a_block_is_invisible():
    net = flow.link_net(3, 16, 1, torch.relu, dtype=torch.float64)
    before, block = net(X), net.blocks[0]
    scale = torch.linspace(0.5, 2, 16, dtype=torch.float64)
    with torch.no_grad():
        block.out.div_(scale)
        block.into.mul_(scale[:, None])
        block.inner_bias.mul_(scale)
    assert torch.allclose(net(X), before, atol=1e-13)


def test_linear_lattice_exact_with_links_and_broken_without():
    w = 0.5 * torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    field = flow.LinearField(lambda t: w[0] + t[..., None, None] * w[1], lambda t: torch.stack([t, 1 - t, t**2], -1))
    gauge = flow.Gauge(fields.diffeos()["affine"])
    linear_only = flow.Gauge(flow.AffineDiffeo(gauge.space.linear))
    for steps in (4, 16):
        links, shifts = linear_links(field, steps)
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        elements = torch.stack([linear_only.space.linear(t) for t in times])
        plain = run_links(links, shifts, X)
        moved = linear_only.decode(run_links(*transform_links(links, shifts, elements), linear_only.encode(X)))
        assert float((moved - plain).abs().max()) < 1e-13
        naive = linear_only.decode(
            flow.integrate(flow.transport(field, linear_only), linear_only.encode(X), "euler", steps)
        )
        assert float((naive - plain).abs().max()) > 1e-3


def test_chain_of_wilson_lines_is_the_flow():
    w = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    field = flow.LinearField(w, torch.ones(3, dtype=torch.float64))
    chain = flow.linear_chain(field, 4)
    assert torch.allclose(chain(X), flow.exact_flow(field, X, rtol=1e-11, atol=1e-11), atol=1e-8)
    # (K - 1)(d^2 + d) parameters' directions do nothing: the Jacobian's nullity, by a rank
    names = [n for n, _ in chain.named_parameters()]
    flat = torch.cat([p.detach().flatten() for p in chain.parameters()])
    shapes = [p.shape for p in chain.parameters()]

    def run(values):
        parts = values.split([s.numel() for s in shapes])
        named = {n: v.view(s) for n, v, s in zip(names, parts, shapes, strict=True)}
        return torch.func.functional_call(chain, named, (fields.states(30),))

    jac = torch.func.jacrev(run)(flat).reshape(-1, len(flat))
    assert len(flat) - int(torch.linalg.matrix_rank(jac, rtol=1e-10)) == 3 * (9 + 3)


def bump_gauge(amplitude=0.4):
    """The identity at both ends, nonlinear in space and bent in time in between."""

    def stretched(sign):
        return lambda r, x: torch.asinh(torch.sinh(x) * torch.exp(sign * amplitude * torch.sin(torch.pi * r) ** 2))

    clock = flow.BernsteinClock(3, logits=torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64)).requires_grad_(False)
    return flow.Gauge(flow.CallableDiffeo(stretched(1), stretched(-1)), clock)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
def test_breaking_has_the_order_of_the_method(solver):
    report = flow.breaking_order(F, bump_gauge(), solver, X, (16, 32, 64))
    assert report.slope == pytest.approx(report.expected, abs=0.12)
    assert "<svg" in report.svg() and report.solver in str(report)


def test_leading_coefficient_of_euler():
    gauge = bump_gauge()
    # Richardson: 2 N2 d(N2) - N1 d(N1) with N2 = 2 N1 removes the next order
    scaled = []
    for n in (48, 96):
        moved = flow.integrate(flow.transport(F, gauge), gauge.encode(X), "euler", n)
        scaled.append(n * (gauge.decode(moved) - flow.integrate(F, X, "euler", n)))
    predicted = flow.leading_breaking(F, gauge, X, 20)
    assert torch.allclose(2 * scaled[1] - scaled[0], predicted, atol=0.02 * float(predicted.abs().max()))


def test_leading_coefficient_is_the_second_derivative_formula():
    # -1/2 int D Phi_{T,t} (D phi)^-1 [phi_tt + 2 (d_t D phi) F + D^2 phi(F, F)] dt for a pure space gauge
    phi = bump_gauge(0.3).space
    gauge, x, jvp = flow.Gauge(phi), X[:, :2], torch.func.jvp
    field = fields.Net(2).requires_grad_(False)

    def bracket(t, z):
        v = field(t, z)
        first = lambda q, w: jvp(phi.push, (q, w), (torch.ones_like(q), v))[1]  # noqa: E731
        second = jvp(first, (t, z), (torch.ones_like(t), v))[1]
        return (torch.linalg.inv(phi.jacobian(t, z)) @ second.unsqueeze(-1)).squeeze(-1)

    def joint(t, state):
        z, delta = state.chunk(2, -1)
        v, pushed = jvp(lambda w: field(t, w), (z,), (delta,))
        return torch.cat([v, pushed - 0.5 * bracket(t, z)], -1)

    direct = flow.integrate(joint, torch.cat([x, torch.zeros_like(x)], -1), "rk4", 24)[:, 2:]
    assert torch.allclose(flow.leading_breaking(field, gauge, x, 24), direct, atol=1e-5)


def test_euler_field_is_a_residual_net():
    net = EulerField(F, 12)
    assert torch.allclose(net(X), flow.integrate(F, X, "euler", 12), atol=1e-14)
    coefficient = flow.euler_coefficient(F, X, steps=20)
    exact = flow.exact_flow(F, X, rtol=1e-11, atol=1e-11)
    n = 400
    assert torch.allclose(
        n * (flow.integrate(F, X, "euler", n) - exact), coefficient, atol=0.01 * float(coefficient.abs().max())
    )
    assert float(acceleration(F, torch.tensor(0.0, dtype=torch.float64), X).abs().max()) > 1e-3
