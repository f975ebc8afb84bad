"""Redundant weights: Ward identities, independence of the gauge fixing, and the price of leaving it open."""

import numpy as np
import pytest
import torch

from regauge.errors import InputError
from regauge.pathsum import (
    ChainSample,
    GaussianPrior,
    Target,
    action,
    average,
    bridge,
    elliptical,
    hmc,
    lattice_exact,
    path_lattice,
    potential,
    reweight,
    whitened,
)
from regauge.pathsum.network import BridgeNetwork, PathNetwork, path_times, redundancy
from regauge.pathsum.statistics import standard_error
from regauge.pathsum.unfixed import Unfixed, cost_of_not_fixing
from regauge.pathsum.ward import kernel_force, schwinger_dyson

V = potential("x**2/2 + x**4")


def chains(sample):
    return [average(sample, (sample.paths**2).mean((-2, -1)))]


def test_schwinger_dyson_identities_hold_for_good_samplers_only():
    lattice = path_lattice(5.0, 16)
    target = Target(lattice, V, whitened(lattice, 4.0))
    good = elliptical(target, 24, 400, np.random.default_rng(0))
    weighted = reweight(lattice, V, GaussianPrior(target.map), 8000, np.random.default_rng(1))
    for sample in (good, weighted):
        assert all(abs(found.pull(0)) < 3.5 for found in schwinger_dyson(lattice, V, sample).values())
    wrong = ChainSample("one per cent too wide", 1.01 * good.paths, 1.0)
    assert schwinger_dyson(lattice, V, wrong)["scaling"].pull(0) > 4
    shifted = ChainSample("moved", good.paths + 0.05, 1.0)
    assert abs(schwinger_dyson(lattice, V, shifted)["translation of x"].pull(0)) > 4


def test_the_force_has_no_part_along_the_redundancy():
    lattice = path_lattice(5.0, 16, (2.0,))
    for fixing in (0.01, 1.0, 100.0):
        target = Target(lattice, V, bridge(lattice, 4.0, fixing))
        theta = np.random.default_rng(0).standard_normal((5, 1, 17))
        assert kernel_force(target, theta) < 1e-10
        push = target.map.kernel_part(np.ones_like(theta))
        assert np.abs(push).max() > 0.1  # there is a redundancy, and moving along it changes no path
        assert np.allclose(target.map(theta + push), target.map(theta), atol=1e-10)


def test_unseen_weights_are_normal_and_observables_do_not_know_them():
    lattice = path_lattice(5.0, 16)
    target = Target(lattice, V, bridge(lattice, 4.0))
    rng = np.random.default_rng(0)
    seen: list[np.ndarray] = []

    theta = target.draw(400, rng)
    from regauge.pathsum.elliptical import slice_step

    now = target.excess(theta)
    for _ in range(80):
        theta, now, _ = slice_step(lambda t, _: target.excess(t), theta, now, rng)
        seen.append(theta.copy())
    theta = np.stack(seen[20:], 1)
    unseen = theta[..., 0, 1:].mean(-1) * np.sqrt(lattice.sites)
    square = (target.map(theta.reshape(-1, 1, 17)) ** 2).mean((1, 2)).reshape(unseen.shape)
    for series, exact in ((unseen, 0.0), (unseen**2, 1.0), (unseen**2 * (square - square.mean()), 0.0)):
        assert abs(series.mean() - exact) < 4 * standard_error(series)
    assert abs(square.mean() - lattice_exact(lattice, V).square[0]) < 4 * standard_error(square)


def test_a_scale_left_free_changes_no_law():
    lattice = path_lattice(5.0, 8)
    target = Target(lattice, V, whitened(lattice, 4.0))
    free = Unfixed(target, 0.4)
    theta = free.draw(3, np.random.default_rng(0))
    h = 1e-6
    numeric = np.zeros_like(theta)
    for i in range(theta.shape[-1]):
        up, down = theta.copy(), theta.copy()
        up[..., i] += h
        down[..., i] -= h
        numeric[:, 0, i] = (free.energy(up) - free.energy(down)) / (2 * h)
    assert np.allclose(free.gradient(theta), numeric, rtol=1e-5, atol=1e-6)
    run = hmc(free, 24, 500, np.random.default_rng(1))
    assert abs(chains(run)[0].pull(lattice_exact(lattice, V).square[0])) < 3.5
    with pytest.raises(InputError, match="diverges"):
        Unfixed(target, 0.0)


def test_not_fixing_the_gauge_costs():
    lattice = path_lattice(10.0, 16)
    target = Target(lattice, V, whitened(lattice, 4.0))
    fixed, free = cost_of_not_fixing(target, (0.5,), np.random.default_rng(0), chains=16, steps=250)
    assert (fixed.sigma, free.sigma) == (0.0, 0.5)
    assert free.evaluations > 2 * fixed.evaluations


def jacobian_nullity(network, times):
    from regauge.pathsum.measure import parameters, path

    theta, _ = parameters(network)
    jacobian = torch.func.jacrev(lambda t: path(network, times, t))(theta)
    return theta.numel() - int(torch.linalg.matrix_rank(jacobian))


def test_the_compiler_finds_the_redundancy_of_path_networks():
    lattice = path_lattice(10.0, 64)
    relu = redundancy(PathNetwork(5, "relu"), lattice)
    (bond,) = relu.bonds
    assert bond.size == 5 and bond.dim == 5 and relu.dim == 5  # one scale per unit; their order is the discrete part
    assert "S5" in str(bond.group) and "R+" in str(bond.group)
    for signed in ("tanh", "cos"):  # odd: (a, w, b) -> -(a, w, b); even: (w, b) -> -(w, b)
        finite = redundancy(PathNetwork(5, signed), lattice)
        assert finite.dim == 0 and str(finite.bonds[0].group) == "Z2 wr S5"
    torch.manual_seed(0)
    network = PathNetwork(3, "relu")
    with (
        torch.no_grad()
    ):  # kinks inside the interval and at different places, so that nothing but the scales is redundant
        network.hidden.weight.copy_(torch.tensor([[1.0], [-0.7], [0.4]]))
        network.hidden.bias.copy_(torch.tensor([-2.0, 3.0, -1.0]))
    assert jacobian_nullity(network, path_times(lattice)) == redundancy(network, lattice).dim == 3


def test_the_compiler_finds_the_zero_mode_of_closed_steps():
    """One redundant direction, as the bridge map counts it: all steps shifted alike, along the kernel of the map."""
    lattice = path_lattice(4.0, 16, (2.0,))
    torch.manual_seed(0)
    network, chart = BridgeNetwork(lattice, 3.0), bridge(lattice, 3.0)
    group = redundancy(network, lattice)
    assert group.dim == chart.redundancy == 1
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    quiet = torch.zeros(1, 16, dtype=torch.float64)
    theta = torch.cat([before["level"], before["xi"]]).numpy()[None, None]
    path = network(quiet).detach().numpy()
    assert np.allclose(path, chart(theta)[:, 0], atol=1e-12)
    for seed in range(3):
        moved = group.sample(seed).apply(before)
        step = torch.cat([moved["level"] - before["level"], moved["xi"] - before["xi"]]).numpy()[None, None]
        assert np.abs(step).max() > 1e-3 and np.allclose(chart.kernel_part(step), step, atol=1e-12)
        network.load_state_dict(moved)
        assert np.allclose(network(quiet).detach().numpy(), path, atol=1e-12)
    with pytest.raises(InputError, match="close"):
        BridgeNetwork(path_lattice(4.0, 16, ends="open"))


@pytest.mark.parametrize("activation", ["relu", "tanh", "cos"])
def test_no_weight_of_the_path_sum_sees_the_gauge(activation):
    lattice = path_lattice(4.0, 24)
    torch.manual_seed(1)
    network = PathNetwork(6, activation)
    group = redundancy(network, lattice)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    paths = []
    for state in (before, *(group.sample(seed).apply(before) for seed in range(4))):
        network.load_state_dict(state)
        assert state is before or (state["hidden.weight"] - before["hidden.weight"]).abs().max() > 0.05
        paths.append(network(path_times(lattice)).detach().numpy()[:, 0])
    actions = action(lattice, V, np.array(paths)[:, None])
    assert np.allclose(actions, actions[0], rtol=1e-10)
