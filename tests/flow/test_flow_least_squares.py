"""The search: its Jacobian against automatic differentiation of the whole sampler, its minimum against scipy's."""

import flow_fields as fields
import pytest
import torch
from scipy.optimize import least_squares
from torch.func import functional_call, jacrev

from regauge import flow
from regauge.flow.least_squares import _normal_equations, fit

FIELD = fields.Net(2).requires_grad_(False)
X = fields.states(40, 2)
EXACT = flow.exact_flow(FIELD, X, rtol=1e-10, atol=1e-10)
ONES = torch.ones(len(X), dtype=torch.float64)


def bent_sampler(method, steps=2, seed=0, **options):
    """Away from zero, where no derivative vanishes by accident."""
    sampler = flow.ComovingSampler(method, steps, torch.eye(2, dtype=torch.float64), degree=3, **options).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in sampler.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=rng, dtype=torch.float64))
    return sampler


def dense_jacobian(sampler, names):
    def end(values):
        return functional_call(sampler, values, (FIELD, X)) - EXACT

    parts = jacrev(end)({name: sampler.get_parameter(name).detach() for name in names})
    return torch.cat([parts[name].flatten(2) for name in names], 2)


@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "rk4_38"])
@pytest.mark.parametrize("invariants", [False, True])
def test_normal_equations_are_those_of_the_dense_jacobian(method, invariants):
    sampler = bent_sampler(method, invariants=invariants)
    names = sampler.smooth_parameters() + sampler.local_parameters()
    jac = dense_jacobian(sampler, names).flatten(0, 1)
    residual = (sampler(FIELD, X) - EXACT).detach().flatten()
    normal, slope = _normal_equations(sampler, names, FIELD, (X, EXACT), ONES, 16, 8, None)
    # dF/dt is a central difference, hence not 1e-12
    assert torch.allclose(normal, jac.T @ jac, atol=1e-5 * float(normal.abs().max()))
    assert torch.allclose(slope, jac.T @ residual, atol=1e-5 * float(slope.abs().max()))


def test_weights_are_repetitions():
    sampler = bent_sampler("midpoint")
    names, times = sampler.smooth_parameters(), torch.arange(len(X)) % 3
    twice = X.repeat_interleave(times, 0), EXACT.repeat_interleave(times, 0)
    weighted = _normal_equations(sampler, names, FIELD, (X, EXACT), times.double(), 16, 8, None)
    repeated = _normal_equations(sampler, names, FIELD, twice, torch.ones(len(twice[0])).double(), 16, 8, None)
    for ours, theirs in zip(weighted, repeated, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10 * float(theirs.abs().max()))


def test_random_directions_are_unbiased_and_the_slope_is_exact():
    sampler = bent_sampler("midpoint")
    names, rng = sampler.local_parameters(), torch.Generator().manual_seed(0)
    normal, slope = _normal_equations(sampler, names, FIELD, (X, EXACT), ONES, 64, 2, None)
    draws = []
    for _ in range(300):
        estimate, exact = _normal_equations(sampler, names, FIELD, (X, EXACT), ONES, 64, 1, rng)
        assert torch.allclose(exact, slope, atol=1e-10 * float(slope.abs().max()))
        draws.append(estimate)
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    assert bool(((draws.mean(0) - normal).abs() <= 5 * error + 1e-12).all())


def test_minimum_is_that_of_scipy():
    # a smooth gauge: five numbers, one minimum nearby
    sampler = flow.ComovingSampler("euler", 4, None, degree=3).double()
    names = sampler.smooth_parameters()
    sizes = [sampler.get_parameter(n).numel() for n in names]

    def residual(values):
        parts = torch.as_tensor(values).split(sizes)
        named = {n: v.view_as(sampler.get_parameter(n)) for n, v in zip(names, parts, strict=True)}
        with torch.no_grad():
            return (functional_call(sampler, named, (FIELD, X)) - EXACT).flatten().numpy()

    theirs = least_squares(residual, torch.zeros(sum(sizes), dtype=torch.float64).numpy(), method="lm")
    start = float((residual(torch.zeros(sum(sizes), dtype=torch.float64)) ** 2).sum())
    found = fit(sampler, names, FIELD, (X, EXACT), (X, EXACT), 50)
    ours = found.best**2 * len(X)
    assert 2 * theirs.cost < 0.5 * start
    assert ours == pytest.approx(2 * theirs.cost, rel=1e-3)
    assert all(b < a for a, b in zip(found.history, found.history[1:], strict=False))


def test_the_iterate_is_chosen_on_watched_states():
    # four states, many parameters: fitted to the last digit, so the best one for others is an early one
    sampler = flow.ComovingSampler("rk4", 2, torch.eye(2, dtype=torch.float64)).double()
    names = sampler.smooth_parameters() + sampler.local_parameters()
    rough = FIELD, (X[:4], EXACT[:4]), (X[4:], EXACT[4:])
    before = float((sampler(FIELD, X[4:]) - EXACT[4:]).detach().square().sum(-1).mean().sqrt())
    found = fit(sampler, names, *rough, 15)
    after = float((sampler(FIELD, X[4:]) - EXACT[4:]).detach().square().sum(-1).mean().sqrt())
    assert after == pytest.approx(found.best) and after <= before
    assert found.history[-1] < 0.01 * found.best


def test_samples_are_drawn_anew():
    # two halves in turn: both are fitted, and every draw is used for `refresh` iterations
    sampler, drawn = bent_sampler("euler"), []
    halves = torch.arange(20), torch.arange(20, 40)

    def draw():
        drawn.append(len(drawn) % 2)
        return halves[drawn[-1]], torch.ones(20, dtype=torch.float64)

    before = float((sampler(FIELD, X) - EXACT).detach().square().sum(-1).mean().sqrt())
    found = fit(sampler, sampler.local_parameters(), FIELD, (X, EXACT), (X, EXACT), 12, draw=draw, refresh=3)
    assert 2 <= len(drawn) and len(found.history) <= 3 * len(drawn)  # it may end where watched states gain no more
    assert found.best < 0.2 * before
