"""Lattices and linear maps: modes, determinants, fibres, and the statement about the measure."""

import numpy as np
import pytest
import torch

from regauge.errors import InputError
from regauge.pathsum import (
    Target,
    action,
    bridge,
    field_lattice,
    lattice_exact,
    path_lattice,
    potential,
    random_cosine,
    relu,
    step,
    whitened,
)
from regauge.pathsum.ensembles import random_cosines, random_steps
from regauge.pathsum.lattice import Axis, Lattice, force, laplacian
from regauge.pathsum.measure import log_volume, parameters

RNG = np.random.default_rng(5)
LATTICES = [
    path_lattice(3.0, 8),
    path_lattice(3.0, 7),
    path_lattice(3.0, 8, (1.0, 2.5), "open"),
    field_lattice((6, 5), 0.7),
]
LATTICES.append(Lattice((Axis(4, 0.5), Axis(3, 0.9, "open"), Axis(3, 1.1)), (1.7,)))


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_modes_diagonalise_the_laplacian(lattice):
    waves = lattice.modes()
    assert np.allclose(waves.T @ waves, np.eye(lattice.sites), atol=1e-12)
    assert np.allclose(laplacian(lattice, waves.T), -(waves * lattice.rates()).T, atol=1e-10)


@pytest.mark.parametrize("lattice", LATTICES, ids=str)
def test_action_by_hand_and_force_by_autograd(lattice):
    v = potential("x**4 + x**2*y**2 + y**2") if lattice.dim == 2 else potential("x**4 + x")
    q = RNG.standard_normal((3, lattice.dim, lattice.sites))
    x = torch.tensor(q, requires_grad=True)
    grid = x.reshape(3, lattice.dim, *lattice.shape)
    kinetic = 0.0
    for i, axis in enumerate(lattice.axes):
        step = grid.roll(-1, 2 + i) - grid
        if axis.ends == "open":
            step = step.narrow(2 + i, 0, axis.sites - 1)
        kinetic = (
            kinetic + (torch.tensor(lattice.mass)[:, None] * (step**2).flatten(2)).sum((1, 2)) / axis.spacing**2 / 2
        )
    s = lattice.volume * (kinetic + v(x, torch).sum(-1))
    assert np.allclose(action(lattice, v, q), s.detach(), rtol=1e-12)
    (slope,) = torch.autograd.grad(s.sum(), x)
    assert np.allclose(force(lattice, v, q), slope, rtol=1e-10, atol=1e-10)


def all_maps(lattice):
    found = [
        whitened(lattice, 2.0),
        step(lattice, 0.7),
        relu(lattice),
        random_cosine(lattice, 3 * lattice.sites, 1.0, RNG),
    ]
    return found + ([bridge(lattice, 1.5), bridge(lattice, 1.5, fixing=9.0)] if lattice.time.ends == "periodic" else [])


@pytest.mark.parametrize("lattice", LATTICES[:3], ids=str)
def test_jacobians_and_inverses(lattice):
    for chart in all_maps(lattice):
        theta = RNG.standard_normal((4, lattice.dim, chart.weights))
        flat = np.eye(lattice.dim * chart.weights).reshape(-1, lattice.dim, chart.weights)
        jacobian = (chart(flat) - chart(np.zeros_like(flat))).reshape(len(flat), -1).T
        expected = 0.5 * np.linalg.slogdet(jacobian @ jacobian.T)[1]
        assert chart.log_volume == pytest.approx(expected, abs=1e-6), chart.name
        q = chart(theta)
        assert np.allclose(chart(chart.solve(q)), q, atol=1e-7), chart.name
        assert np.allclose(chart(theta - chart.kernel_part(theta)), q, atol=1e-8), chart.name
        slope = RNG.standard_normal(q.shape)
        assert np.allclose(
            (chart.pull_back(slope) * theta).sum((1, 2)), (slope * (q - chart(0 * theta))).sum((1, 2)), atol=1e-8
        )
        covariance = jacobian @ jacobian.T
        log_density = -0.5 * (q.reshape(4, -1) * np.linalg.solve(covariance, q.reshape(4, -1).T).T).sum(1)
        log_density -= 0.5 * (np.linalg.slogdet(covariance)[1] + q[0].size * np.log(2 * np.pi))
        assert np.allclose(chart.log_density(q), log_density, atol=1e-5), chart.name


def test_facts_about_the_maps():
    lattice = path_lattice(10.0, 64)
    assert step(lattice).redundancy == 0 and bridge(lattice).redundancy == 1
    eps = lattice.volume
    assert step(lattice).log_volume == pytest.approx(63 * 0.5 * np.log(eps))  # det 1 in units of the increments
    for sites in (64, 512):  # the oscillator's condition number does not grow with the number of sites
        lattice = path_lattice(10.0, sites)
        stiff = lattice.volume * (lattice.modes() * (lattice.rates() + 1)) @ lattice.modes().T
        for chart, bound in ((bridge(lattice, 1.0), 3.6), (whitened(lattice, 1.0), 1 + 1e-9)):
            m = chart.matrix[0]
            hessian = m.T @ stiff @ m
            values = np.linalg.eigvalsh(hessian)
            assert values[-1] / values[values > 1e-9 * values[-1]][0] < bound


def test_whitened_modes_are_the_harmonic_theory():
    lattice = path_lattice(5.0, 20, (2.0,))
    chart = whitened(lattice, 3.0)
    exact = lattice_exact(lattice, potential("3*x**2"))  # m mu^2 / 2 = 3
    q = chart(np.eye(20)[:, None])
    assert (q**2).sum(0).mean() == pytest.approx(exact.square[0], abs=1e-10)
    target = Target(lattice, potential("3*x**2"), chart)
    theta = RNG.standard_normal((5, 1, 20))
    assert np.ptp(target.excess(theta)) < 1e-10


def test_refusals():
    with pytest.raises(InputError, match="positive mu"):
        whitened(path_lattice(1, 4), 0.0)
    with pytest.raises(InputError, match="close"):
        bridge(path_lattice(1, 4, ends="open"))
    with pytest.raises(InputError, match="positive, or the sum diverges"):
        bridge(path_lattice(1, 4), fixing=0.0)
    with pytest.raises(InputError, match="4-dimensional set"):
        random_cosine(path_lattice(1, 8), 4, 1.0, RNG)
    with pytest.raises(InputError, match="axes"):
        step(field_lattice((4, 4)))
    with pytest.raises(InputError, match="ends"):
        Axis(4, 1.0, "closed")


class OneCosine(torch.nn.Module):
    """q(t) = a cos(t + b): with both a and b summed, two sites a quarter period apart are polar coordinates."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        self.b = torch.nn.Parameter(torch.tensor([0.3], dtype=torch.float64))

    def forward(self, t):
        return self.a * torch.cos(t + self.b)


def test_a_flat_sum_over_hidden_parameters_is_another_theory():
    lattice, v = path_lattice(2.0, 2), potential("x**4 + x**2/2")
    times = torch.tensor([0.0, -np.pi / 2], dtype=torch.float64)
    network = OneCosine()
    assert parameters(network)[0].tolist() == [1.0, 0.3]
    a, b = np.meshgrid(np.linspace(1e-6, 4, 400), np.linspace(0, 2 * np.pi, 200, endpoint=False), indexing="ij")
    q = np.stack([a * np.cos(b), a * np.cos(b - np.pi / 2)], -1).reshape(-1, 1, 2)
    weight = np.exp(-action(lattice, v, q))
    spots = [(0.7, 0.2), (1.9, 2.0), (3.0, 5.0)]
    volumes = [float(log_volume(network, times, torch.tensor(s, dtype=torch.float64))) for s in spots]
    assert np.allclose(volumes, [np.log(s[0]) for s in spots], atol=1e-12)  # the volume is a, not a constant
    exact = lattice_exact(lattice, v).square[0]
    flat = (weight * (q**2).mean((1, 2))).sum() / weight.sum()
    right = (weight * a.ravel() * (q**2).mean((1, 2))).sum() / (weight * a.ravel()).sum()
    assert right == pytest.approx(exact, abs=1e-5)
    assert abs(flat - exact) > 0.2 * exact


def test_a_thin_set_of_paths_is_refused():
    with pytest.raises(InputError, match="thin set"):
        log_volume(
            OneCosine(), torch.linspace(0, 1, 3, dtype=torch.float64), torch.tensor([1.0, 0.3], dtype=torch.float64)
        )


def test_random_networks_have_the_stated_cumulants():
    rng, n, omega = np.random.default_rng(1), 400_000, 1.5
    times = np.array([0.0, 0.4, 1.1])
    for units in (1, 4):
        q = random_cosines(times, units, omega, n, rng)
        pair = q[:, :1] * q
        expected = np.exp(-omega * times) / (2 * omega)
        assert (np.abs(pair.mean(0) - expected) < 4.5 * pair.std(0) / np.sqrt(n)).all()
        fourth = (q[:, 0] ** 4).mean() - 3 * (q[:, 0] ** 2).mean() ** 2
        assert fourth == pytest.approx(-1.5 / (2 * omega) ** 2 / units, rel=0.05)
    q = random_steps(np.array([0.5, 2.0]), 3, 4.0, n, rng, mass=2.0)
    assert np.allclose(q.T @ q / n, np.array([[0.5, 0.5], [0.5, 2.0]]) / 2, atol=0.02)
    kurtosis = (q**4).mean(0) / (q**2).mean(0) ** 2 - 3
    assert np.allclose(kurtosis, [3 / 3 * (4 / 0.5 - 1), 3 / 3 * (4 / 2 - 1)], rtol=0.15)
