"""Lattices from polygons: the corners are the sites, the ends are kept, and a trained one beats the uniform one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from regauge.errors import InputError
from regauge.flow import exact_flow, integrate, knot_gauge, transport
from regauge.polytope import extract, fit_lattice, generated_lattice, train, uniform_lattice


def some_lattice(seed, steps=7):
    rng = torch.Generator().manual_seed(seed)
    gaps = torch.rand(steps, generator=rng, dtype=torch.float64) + 0.1
    angles = (gaps / gaps.sum() * math.pi).cumsum(0) - 0.1 * math.pi * gaps[0] / gaps.sum()
    return generated_lattice(angles * 0.99, torch.rand(steps, generator=rng, dtype=torch.float64) + 0.2)


@pytest.mark.parametrize("seed", range(3))
def test_sites_are_the_corners_of_the_extracted_polygon(seed):
    lattice = some_lattice(seed)
    body = extract(lattice.network())
    angle = np.arctan2(body.vertices[:, 1], body.vertices[:, 0]) - float(lattice.angles[0])
    order = np.argsort(np.round(angle % (2 * np.pi), 9) % (2 * np.pi))
    times = (angle[order] % (2 * np.pi))[: lattice.steps] / np.pi
    radius = np.linalg.norm(body.vertices[order], axis=1)[: lattice.steps]
    assert np.allclose(np.where(times > 1.99, 0, times), lattice.times[:-1], atol=1e-9)
    assert np.allclose(radius / radius[0], lattice.scales[:-1], atol=1e-9)
    assert body.f_vector == (2 * lattice.steps, 2 * lattice.steps)


def test_the_round_optimum_is_the_uniform_lattice():
    corners = extract(train(2, 6).network).vertices
    angle = np.sort(np.arctan2(corners[:, 1], corners[:, 0]))
    assert np.allclose(np.diff(angle), np.pi / 6, atol=1e-6)
    assert torch.allclose(uniform_lattice(6, torch.float64).times.diff(), torch.full((6,), 1 / 6, dtype=torch.float64))
    assert torch.allclose(uniform_lattice(6).scales, torch.ones(7))


def test_fine_lattices_of_any_polygon_keep_the_end_point():
    """The chart and the times are a gauge: with ever more steps every lattice gives the same x(1)."""
    errors = []
    for steps in (200, 400):
        angle = math.pi * torch.arange(steps, dtype=torch.float64) / steps
        lattice = generated_lattice(angle + 0.2 * (1 - torch.cos(2 * angle)), 1 + 0.5 * torch.sin(angle))
        assert float(lattice.scales.max() / lattice.scales.min()) > 1.05
        x = lattice.euler(lambda t, x: torch.cos(3 * t) * x, torch.ones(1, 1, dtype=torch.float64))
        errors.append(abs(float(x) - math.exp(math.sin(3) / 3)))
    assert errors[0] < 0.02 and errors[1] < 0.6 * errors[0]


@pytest.fixture(scope="module")
def flow():
    """A flow-matching model of a checkerboard, trained here."""
    rng = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, 2))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(500):
        cell = torch.randint(0, 8, (256,), generator=rng)
        corner = torch.stack([cell // 2 - 2, 2 * (cell % 2) + (cell // 2) % 2 - 2], dim=1)
        data, noise = corner + torch.rand(256, 2, generator=rng), torch.randn(256, 2, generator=rng)
        t = torch.rand(256, 1, generator=rng)
        loss = (model(torch.cat([(1 - t) * noise + t * data, t], dim=1)) - (data - noise)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.requires_grad_(False)
    return lambda t, x: model(torch.cat([x, t.expand(len(x), 1)], dim=1))


@pytest.mark.parametrize("steps", [4, 8])
def test_generated_beats_uniform_at_equal_cost(flow, steps):
    """A trained flow-matching model, integrated by regauge.flow on both lattices: Euler, one evaluation a step."""
    rng = torch.Generator().manual_seed(1)
    noise, fresh = torch.randn(512, 2, generator=rng), torch.randn(2048, 2, generator=rng)
    lattice = fit_lattice(flow, noise, exact_flow(flow, noise), steps, iterations=150)
    gauge = knot_gauge(lattice.times, lattice.scales)
    gauge.require_ends(fresh)
    target = exact_flow(flow, fresh)
    uniform, generated = (
        integrate(flow, fresh, "euler", steps),
        integrate(transport(flow, gauge), fresh, "euler", steps),
    )
    rms = [float((found - target).square().mean().sqrt()) for found in (uniform, generated)]
    assert rms[1] < rms[0] / 3


def test_the_lattice_is_a_gauge_of_the_flow(flow):
    """Euler steps of the transported field are the lattice's own steps; finer methods give the flow itself."""
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    lattice = some_lattice(3)
    lattice = generated_lattice(lattice.angles - lattice.angles[0], lattice.strengths)

    def field(t, x):
        return flow(t.float(), x.float()).double()

    gauge = knot_gauge(lattice.times, lattice.scales)
    moved = transport(field, gauge)
    assert torch.allclose(integrate(moved, x, "euler", lattice.steps), lattice.euler(field, x), atol=1e-12)
    fine = integrate(moved, x, "midpoint", 60 * lattice.steps)
    assert float((fine - exact_flow(field, x)).abs().max()) < 2e-4
    assert torch.allclose(gauge.space.pull(torch.tensor(0.37), gauge.space.push(torch.tensor(0.37), x)), x)


def test_knots_that_are_no_gauge_are_refused():
    with pytest.raises(InputError, match="increasing"):
        knot_gauge(torch.tensor([0.0, 0.5, 0.4]), torch.ones(3))
    with pytest.raises(InputError, match="positive"):
        knot_gauge(torch.tensor([0.0, 1.0]), torch.tensor([1.0, -1.0]))


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match="increase"):
        generated_lattice(torch.tensor([0.3, 0.1]), torch.ones(2))
    with pytest.raises(InputError, match="positive"):
        generated_lattice(torch.tensor([0.1, 0.3]), torch.tensor([1.0, -1.0]))
    with pytest.raises(InputError, match="two equal lists"):
        generated_lattice(torch.tensor([0.1, 0.3]), torch.ones(3))
    with pytest.raises(InputError, match="at least 2"):
        fit_lattice(lambda t, x: x, torch.ones(1, 1), torch.ones(1, 1), 1)
