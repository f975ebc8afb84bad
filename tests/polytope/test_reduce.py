"""Pruning and merging keep the function and the body, and find the true number of units."""

import numpy as np
import pytest
import torch

import regauge
from regauge.errors import InputError
from regauge.polytope import Maxout, Slopes, describe, extract, module, network, rational, read, reduce, settle, train

POINTS = np.random.default_rng(9).normal(size=(200, 3))


def same_function(a, b, tolerance=1e-12):
    return np.abs(a(POINTS) - b(POINTS)).max() < tolerance


def test_dead_parallel_and_opposite_units():
    w = np.random.default_rng(0).normal(size=(3, 3))
    rows = np.concatenate([w, 2 * w[:1], -0.5 * w[1:2], np.zeros((1, 3)), w[2:]])
    net = network([rows], [1, 1, 1, 0.5, 2, 7, 0.0], "abs")
    small = reduce(net)
    assert small.layers[0].units == 3 and same_function(net, small)
    assert np.allclose(np.linalg.norm(small.layers[0].weight, axis=1), 1)
    assert extract(small).f_vector == extract(net).f_vector == (6, 12, 8)


def test_sign_pairs_of_relu_become_absolute_values():
    w = np.random.default_rng(1).normal(size=(4, 3))
    net = network([np.concatenate([w, -3 * w])], np.concatenate([np.ones(4), np.ones(4) / 3]), "relu")
    small = reduce(net)
    kind = small.layers[0].activation
    assert small.layers[0].units == 4 and same_function(net, small)
    assert np.allclose(kind.positive, 1) and np.allclose(kind.negative, -1)


def test_pairs_that_cancel_disappear():
    w = np.random.default_rng(2).normal(size=(4, 3))
    net = network([np.concatenate([w, w[:1]])], [1, 1, 1, 1, -1], "abs")
    assert reduce(net).layers[0].units == 3 and same_function(net, reduce(net))


@pytest.mark.parametrize("kind", ["abs", "relu", "prelu"])
def test_inner_layers(kind):
    rng = np.random.default_rng(3)
    w = rng.normal(size=(3, 3))
    flip = -1.0 if kind == "abs" else 1.0
    slopes = Slopes(np.ones(7), np.full(7, 0.3)) if kind == "prelu" else kind
    second = Slopes(np.ones(4), np.full(4, 0.3)) if kind == "prelu" else kind
    rows = np.concatenate([w, 2 * flip * w, np.zeros((1, 3))])
    net = network([rows, rng.normal(size=(4, 7))], np.ones(4), [slopes, second])
    small = reduce(net)
    assert small.layers[0].units == 3 and small.layers[1].units == 4 and same_function(net, small)
    assert extract(net).f_vector == extract(small).f_vector


def test_maxout_groups():
    rng = np.random.default_rng(4)
    groups = rng.normal(size=(2, 3, 3))
    rows = np.concatenate([groups[0], groups[1], 2 * groups[0], np.zeros((3, 3))])
    net = network([rows], [1.0, 1.0, 1.0, 5.0], Maxout(3))
    assert reduce(net).layers[0].units == 2 and same_function(net, reduce(net))


def test_rough_training_is_cleaned_before_it_is_named():
    """Tiny left-over units make the raw body nonconvex with extra faces; without them it is the octahedron."""
    w = train(3, 3).network.layers[0].weight
    noise = 1e-4 * np.random.default_rng(0).normal(size=(2, 3))
    net = network([np.concatenate([w, noise])], [1, 1, 1, -1, -1], "abs")
    raw = extract(net)
    assert not raw.convex and raw.f_vector != (6, 12, 8)
    assert describe(extract(reduce(net, dead=1e-3))) == "octahedron"
    assert describe(extract(settle(reduce(net, dead=1e-3)).network)) == "octahedron"


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match="every unit"):
        reduce(network([np.zeros((2, 3))], np.ones(2), "abs"))
    with pytest.raises(InputError, match="floating"):
        reduce(rational(network([np.eye(3)], np.ones(3), "abs")))


def transformed(net, rng):
    """An element of the gauge group of every hidden axis: permutation, positive scales, signs where units are even."""
    weights, out = [layer.weight.copy() for layer in net.layers], net.out.copy()
    for i, layer in enumerate(net.layers):
        order = rng.permutation(layer.units)
        scale = rng.uniform(0.5, 2.0, layer.units)
        even = (layer.activation.positive == -layer.activation.negative).all()
        sign = rng.choice([-1, 1], layer.units) if even else np.ones(layer.units)
        weights[i] = (weights[i] * (scale * sign)[:, None])[order]
        if i + 1 < len(weights):
            weights[i + 1] = (weights[i + 1] / scale)[:, order]
        else:
            out = (out / scale)[order]
    return network(weights, out, [layer.activation for layer in net.layers])


@pytest.mark.parametrize("kind", ["abs", "relu", "leaky"])
@pytest.mark.parametrize("widths", [(5,), (4, 3), (3, 4, 3)])
def test_gauge_equivalent_networks_reduce_to_one(kind, widths):
    rng = np.random.default_rng(len(widths))
    sizes = [3, *widths]
    weights = [rng.normal(size=(m, n)) for n, m in zip(sizes, widths, strict=False)]
    net = network(weights, rng.uniform(0.5, 1.0, widths[-1]), kind)
    first = reduce(net)
    for _ in range(4):
        other = transformed(net, rng)
        assert same_function(net, other, 1e-9)
        again = reduce(other)
        assert np.allclose(first.out, again.out, atol=1e-10)
        for a, b in zip(first.layers, again.layers, strict=True):
            assert np.allclose(a.weight, b.weight, atol=1e-10)


GROUPS = {"relu": "R+ wr S{}", "leaky": "R+ wr S{}", "abs": "R* wr S{}", "maxout": "R+ wr S{}"}


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("widths", [(5,), (4, 3)])
def test_the_compiler_finds_the_group_that_reduce_fixes(kind, widths):
    """regauge.infer on the module: one scale a unit, and no sampled element changes what reduce gives."""
    pieces = 2 if kind == "maxout" else 1
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(pieces * m, n)) for n, m in zip((3, *widths), widths, strict=False)]
    net = network(weights, rng.uniform(0.5, 1, widths[-1]), Maxout(2) if kind == "maxout" else kind)
    model = module(net)
    gauge = regauge.infer(model, (torch.randn(4, 3, dtype=torch.float64),))
    found = [str(bond.group) for bond in gauge.bonds]
    assert gauge.dim == sum(widths) and [g for g in found if "R" in g] == [GROUPS[kind].format(m) for m in widths]
    if kind == "maxout":  # and the order of the pieces of every unit
        assert [g for g in found if "R" not in g] == [f"S2 wr S{m}" for m in widths]
    first = reduce(net)
    for seed in range(3):
        other = module(net)
        moved = gauge.sample(seed).apply(model.state_dict())
        assert (moved["0.weight"] - model.state_dict()["0.weight"]).abs().max() > 0.1
        other.load_state_dict(moved)
        again = read(other)
        assert same_function(net, again, 1e-9)
        fixed = reduce(again)
        assert np.allclose(fixed.out, first.out, atol=1e-9)
        for a, b in zip(fixed.layers, first.layers, strict=True):
            assert np.allclose(a.weight, b.weight, atol=1e-9)
