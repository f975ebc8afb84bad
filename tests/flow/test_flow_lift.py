"""Feedforward nets and attention as what the lattice keeps of the continuum."""

import pytest
import torch
from torch import nn

from regauge import flow
from regauge.errors import CheckError, InputError
from regauge.flow.attention import Head, rotary_element
from regauge.flow.lift import lift, lift_residual, site_elements


def net(activation=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 7), activation(), nn.Linear(7, 5), activation(), nn.Linear(5, 3)).double()


X = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def monomial(n, seed, signed=False):
    rng = torch.Generator().manual_seed(seed)
    scale = torch.rand(n, generator=rng, dtype=torch.float64) + 0.5
    order = torch.randperm(n, generator=rng)
    sign = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0).double() if signed else torch.ones(n).double()
    return torch.diag(scale if not signed else sign)[order]


def one(n):
    return torch.eye(n, dtype=torch.float64)


def test_lift_and_back():
    model = net()
    lifted = lift(model)
    assert lifted.widths == [4, 7, 5, 3]
    assert torch.allclose(lifted(X), model(X), atol=1e-14)
    assert torch.allclose(lifted.lower()(X), model(X), atol=1e-14)
    # the weight is a Wilson line: integrate the layer's field with another solver
    pair = torch.cat([X, torch.zeros(9, 7, dtype=torch.float64)], -1)
    end = flow.exact_flow(lifted.fields[0], pair, rtol=1e-11, atol=1e-11)
    assert torch.allclose(end[:, 4:], model[0](X), atol=1e-9)


@pytest.mark.parametrize(("activation", "signed"), [(nn.ReLU, False), (nn.Tanh, True)])
def test_gauge_elements_are_ends_of_spatial_diffeomorphisms(activation, signed):
    model = net(activation)
    lifted = lift(model)
    elements = [one(4), monomial(7, 2, signed), monomial(5, 3, signed), one(3)]
    moved = lifted.transformed(elements)
    assert torch.allclose(moved(X), model(X), atol=1e-12)
    assert not torch.allclose(moved.lower()[0].weight, model[0].weight)
    # and the element is read back from the two checkpoints
    found = site_elements(lifted, lift(moved.lower()))
    assert found.residual < 1e-12
    for g, h in zip(found.elements, elements, strict=True):
        assert torch.allclose(g, h, atol=1e-10)
    # the transformed line is that of the transported field: any path g(t) between the ends gives the same Wilson line
    g0, g1 = torch.block_diag(elements[1], elements[2]), torch.block_diag(elements[1], elements[2])
    turn = torch.randn(12, 12, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.2

    def path(t):
        s = torch.sin(torch.pi * t)[..., None, None]
        return torch.linalg.matrix_exp(s * turn) @ g0

    carried = flow.transport(lifted.fields[1], flow.Gauge(flow.AffineDiffeo(path)))
    line, offset = flow.wilson_line(carried, torch.tensor(1.0, dtype=torch.float64), steps=30)
    weight, bias = moved.fields[1].line()
    assert torch.allclose(g1[:7, :7], elements[1])
    assert torch.allclose(line[7:, :7], weight, atol=1e-5) and torch.allclose(offset[7:], bias, atol=1e-5)


def test_elements_must_commute_with_the_kick():
    lifted = lift(net())
    with pytest.raises(CheckError, match="site 1.*ReLU"):
        lifted.transformed([one(4), -one(7), one(5), one(3)])
    with pytest.raises(CheckError, match="site 2"):
        lift(net(nn.GELU)).transformed([one(4), one(7), 2 * one(5), one(3)])
    with pytest.raises(InputError, match="BatchNorm1d"):
        lift(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    with pytest.raises(InputError, match="Softmax"):
        lift(nn.Sequential(nn.Linear(3, 3), nn.Softmax(-1)))


def test_residual_nets_lift_to_fields():
    stack = flow.link_net(3, 8, 5, dtype=torch.float64)
    x = X[:, :3]
    assert torch.allclose(flow.integrate(lift_residual(stack), x, "euler", 5, 0.0, 5.0), stack(x), atol=1e-13)


def head(scores):
    rng = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (4, 3), (4, 2), (2, 4))
    return Head(*(torch.randn(*s, generator=rng, dtype=torch.float64) for s in shapes), scores=scores)


@pytest.mark.parametrize("scores", ["softmax", "relu"])
def test_attention_keeps_general_linear_groups(scores):
    rng = torch.Generator().manual_seed(3)
    a, b = torch.randn(3, 3, generator=rng, dtype=torch.float64), torch.randn(2, 2, generator=rng, dtype=torch.float64)
    assert torch.linalg.det(a) < 0 or torch.linalg.det(-a) < 0  # either sign of the determinant
    for inner in (a, -a):
        assert torch.allclose(head(scores).transformed(inner, b)(X), head(scores)(X), atol=1e-10)


def test_scales_of_attention_need_relu_and_a_sign():
    relu = head("relu")
    assert torch.allclose(relu.transformed(scale=2.5)(X), relu(X), atol=1e-12)
    with pytest.raises(InputError, match="positive"):
        relu.transformed(scale=-1.0)
    with pytest.raises(InputError, match="ReLU"):
        head("softmax").transformed(scale=2.0)
    wrong = Head(-relu.query, relu.key, -relu.value, relu.output, "relu")  # product one, signs wrong
    assert not torch.allclose(wrong(X), relu(X))


def test_rotary_leaves_a_complex_torus():
    rng = torch.Generator().manual_seed(4)
    q, k = torch.randn(2, 5, 6, generator=rng, dtype=torch.float64)
    angle = torch.arange(5.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.3, 0.07], dtype=torch.float64)

    def turn(x):
        low, high = x.chunk(2, -1)
        return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)

    element = rotary_element(torch.randn(3, generator=rng).double(), torch.randn(3, generator=rng).double())
    back = torch.linalg.inv(element).T
    assert torch.allclose(turn(q @ element) @ turn(k @ back).T, turn(q) @ turn(k).T, atol=1e-12)
    generic = torch.randn(6, 6, generator=rng, dtype=torch.float64)
    assert not torch.allclose(
        turn(q @ generic) @ turn(k @ torch.linalg.inv(generic).T).T, turn(q) @ turn(k).T, atol=1e-3
    )
