"""Feedforward nets and attention as what the lattice keeps of the continuum."""

import pytest
import torch
from torch import nn

import regauge
from regauge import flow
from regauge.errors import CheckError, InputError
from regauge.flow.attention import Head, rotary_element
from regauge.flow.lift import LiftedNet, lift, site_elements
from regauge.flow.stack import LiftedStack, stack_diffeo, stack_elements


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
    with pytest.raises(CheckError, match="site 1.*relu"):
        lifted.transformed([one(4), -one(7), one(5), one(3)])
    with pytest.raises(CheckError, match="site 2"):
        lift(net(nn.GELU)).transformed([one(4), one(7), 2 * one(5), one(3)])


def test_what_cannot_be_lifted_is_named():
    class Two(nn.Module):
        def forward(self, x):
            return x, x + 1

    class Widening(nn.Module):  # a bilinear layer: neither linear nor of the same shape
        def __init__(self):
            super().__init__()
            self.gate, self.up = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return self.gate(x) * self.up(x)

    with pytest.raises(InputError, match="returns 2 tensors"):
        lift(Two(), X)
    with pytest.raises(InputError, match=r"mul.*\(9, 4\) into \(9, 6\)"):
        lift(Widening().double(), X)
    with pytest.raises(InputError, match="batch of input states"):
        lift(nn.LayerNorm(4))


class Functional(nn.Module):
    """The same function as a stack of modules, written by hand, with one weight stored the other way round."""

    def __init__(self, activation):
        super().__init__()
        rng = torch.Generator().manual_seed(8)
        shapes = {"a": (7, 4), "a0": (7,), "b": (7, 5), "b0": (5,), "c": (3, 5), "c0": (3,)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(*shape, generator=rng, dtype=torch.float64)))
        self.activation = activation

    def forward(self, x):
        x = self.activation(x @ self.a.T + self.a0)
        x = self.activation(x @ self.b + self.b0)
        return nn.functional.linear(x, self.c, self.c0)


@pytest.mark.parametrize("activation", [torch.relu, torch.tanh, nn.functional.gelu])
def test_elements_that_the_compiler_finds_are_ends_of_diffeomorphisms(activation):
    model = Functional(activation)
    gauge = regauge.infer(model, (X,))
    moved = gauge.sample(3).apply(model.state_dict())
    other = Functional(activation)
    other.load_state_dict(moved)
    before, after = lift(model), lift(other)
    assert isinstance(before, LiftedNet) and torch.allclose(before(X), model(X), atol=1e-13)
    found = site_elements(before, after)
    assert found.residual < 1e-10
    assert not torch.allclose(found.elements[1], one(7)) and not torch.allclose(found.elements[2], one(5))
    # and back: the diffeomorphism acts on the Wilson lines, and these are the compiler's weights
    back = before.transformed(found.elements).state_dict_of_model()
    assert back.keys() == moved.keys()
    for name, tensor in back.items():
        assert torch.allclose(tensor, moved[name], atol=1e-10), name


class Residual(nn.Module):
    def __init__(self, blocks=3, dim=3, hidden=6):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.last = nn.Linear(4, dim), nn.Linear(dim, 2)
        self.up = nn.ModuleList(nn.Linear(dim, hidden) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(hidden, dim) for _ in range(blocks))
        self.double()

    def forward(self, x):
        x = self.first(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return self.last(x)


def moved_copy(model, x, make, seed=5):
    gauge = regauge.infer(model, (x,))
    other = make()
    other.load_state_dict(gauge.sample(seed).apply(model.state_dict()))
    return other


def test_residual_nets_lift_to_fields():
    model, x = Residual(), torch.randn(64, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    other = moved_copy(model, x, Residual)
    before, after = lift(model), lift(other)
    assert isinstance(before, LiftedStack) and torch.allclose(before(x), model(x), atol=1e-13)
    state = before.sites(x)[1]
    end = flow.integrate(before.field(), state, "euler", 3, 0.0, 3.0)
    assert torch.allclose(end, before.sites(x)[-2], atol=1e-13)
    found = stack_elements(before, after, x)
    assert found.residual < 1e-10
    # a residual stream has one element of GL(3) for all sites; translations differ
    first, *rest = found.maps[1:-1]
    assert all(torch.allclose(m.matrix, first.matrix, atol=1e-8) for m in rest)
    assert not torch.allclose(first.matrix, one(3), atol=0.1)
    assert torch.allclose(found.maps[0].matrix, one(4), atol=1e-10)
    assert torch.allclose(found.maps[-1].matrix, one(2), atol=1e-10)
    # other states than those they were read off: step' o phi = phi o step, so a conjugated Euler step *is* the block
    phi, y = stack_diffeo(found.maps[1:-1]), 3 * torch.randn(5, 3, dtype=torch.float64)
    step = flow.conjugated(before.field(), phi.push, phi.pull, "euler")
    for k in range(3):
        moved = after.segments[1 + k](y)
        assert torch.allclose(step(torch.tensor(float(k), dtype=torch.float64), 1.0, y), moved, atol=1e-8)


def test_link_nets_have_an_element_for_every_site():
    def make():
        return flow.link_net(3, 8, 4, dtype=torch.float64)

    model, x = make(), torch.randn(64, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before, after = lift(model, x), lift(moved_copy(model, x, make), x)
    assert torch.allclose(flow.integrate(before.field(), x, "euler", 4, 0.0, 4.0), model(x), atol=1e-13)
    found = stack_elements(before, after, x)
    assert found.residual < 1e-9
    matrices = [m.matrix for m in found.maps]
    assert torch.allclose(matrices[0], one(3), atol=1e-9) and torch.allclose(matrices[-1], one(3), atol=1e-9)
    assert all(not torch.allclose(a, b, atol=0.1) for a, b in zip(matrices[1:-1], matrices[2:-1], strict=False))
    # the same element by the law of link variables
    acted = model.transformed(matrices, [m.shift for m in found.maps])
    for ours, theirs in zip(acted.blocks, after.segments, strict=True):
        assert torch.allclose(ours(x), theirs(x), atol=1e-8)
    with pytest.raises(CheckError, match="site 1: no affine map"):
        stack_elements(before, lift(flow.link_net(3, 8, 4, seed=1, dtype=torch.float64), x), x)


def test_a_path_needs_one_orientation():
    class Flip:
        matrix, shift = torch.diag(torch.tensor([-1.0, 1.0])).double(), torch.zeros(2).double()

    class Stay:
        matrix, shift = one(2), torch.zeros(2).double()

    with pytest.raises(InputError, match="between sites 0 and 1"):
        stack_diffeo([Stay, Flip])


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
