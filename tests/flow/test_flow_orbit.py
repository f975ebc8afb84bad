"""The orbit of a method under per-step gauges: what the sampler's table stands for, by gauges written out in full.

On steps of any widths, a gauge of spacetime, y = exp(a) [z - sum_j p_j V_j] and y0 = r - q, is integrated by the method
as it is and undone. Run on symbols in place of states (velocities are unit vectors) it shows the method that it is from outside.
"""

import flow_fields as fields
import pytest
import torch
from torch.func import jacrev

from regauge import flow


def numbers(rk, steps, rng=None):
    """Widths of steps; values and rates of a, p, q at their nodes: of size 0.2, or even and zero without rng."""
    points, total = len({*rk.nodes, 1.0}), steps * rk.stages
    shapes = {"a": (), "a_rate": (), "q": (), "q_rate": (), "p": (total,), "p_rate": (total,)}
    size = 0.0 if rng is None else 0.2
    found = {name: size * torch.randn(steps, points, *s, generator=rng).double() for name, s in shapes.items()}
    # times that stay in [0, 1], beyond which a field need not be defined
    widths = torch.softmax(size * torch.randn(steps, generator=rng).double(), 0)
    return found | {"q": -0.2 * found["q"].abs(), "q_rate": 0.2 * found["q_rate"].abs(), "widths": widths}


def gauged(rk, steps, gauge, evaluate, start):
    """(times, states) of all evaluations and the end: `steps` steps of rk in the gauge. evaluate(i, r, z) is dz/dr."""
    points = sorted({*rk.nodes, 1.0})
    z, known = start, []
    times, states = [], []
    for k in range(steps):
        h, begin = gauge["widths"][k], gauge["widths"][:k].sum()
        own = k * rk.stages

        def frame(name, u, k=k, own=own):
            here = gauge[name][k, points.index(u)]
            fixed = name in ("a", "q", "p") and u == 0.0
            if not here.dim():
                return here * (not fixed)
            total = torch.zeros_like(start)
            for j, velocity in enumerate(known):
                # p along a velocity of this step is flat at every node that was used before it was known
                visited = rk.nodes[: max(j - own + (name == "p"), 0)]
                total = total + here[j] * velocity * (not fixed and u not in visited)
            return total

        time_slopes, slopes = [], []
        for i, (node, row) in enumerate(zip(rk.nodes, rk.matrix, strict=True)):
            y0 = sum((w * s for w, s in zip(row, time_slopes, strict=True)), 0 * z.sum())
            y = sum((w * s for w, s in zip(row, slopes, strict=True)), z)
            r = begin + h * (y0 + frame("q", node)) if i else begin
            here = (-frame("a", node)).exp() * y + frame("p", node)
            times.append(r)
            states.append(here)
            known.append(evaluate(own + i, r, here))
            # d/du is h d/dr; the method sees rates at its nodes
            time_slopes.append(1 - frame("q_rate", node))
            slopes.append(frame("a_rate", node) * y + frame("a", node).exp() * (h * known[-1] - frame("p_rate", node)))
        y = sum((w * s for w, s in zip(rk.weights, slopes, strict=True)), z)
        z = (-frame("a", 1.0)).exp() * y + frame("p", 1.0)
    return times, [*states, z]


def seen_from_outside(rk, steps, gauge):
    """(times (N,), alpha (N + 1,), weights (N + 1, N)): the states as combinations of z(0) and the velocities."""
    total = steps * rk.stages
    units = torch.eye(total + 1).double()
    times, states = gauged(rk, steps, gauge, lambda i, r, z: units[i + 1], units[0])
    rows = torch.stack(states)
    return torch.stack(times), rows[:, 0], rows[:, 1:]


@pytest.mark.parametrize("method", sorted(flow.METHODS))
def test_a_method_in_gauges_is_the_sampler_with_its_table(method):
    rk, steps = flow.METHODS[method], 2
    gauge = numbers(rk, steps, torch.Generator().manual_seed(0))
    field, x = fields.Net(2).requires_grad_(False), fields.states(8, 2)
    by_hand = gauged(rk, steps, gauge, lambda i, r, z: field(r, z), x)[1][-1]
    times, alpha, weights = seen_from_outside(rk, steps, gauge)
    assert bool((weights.triu() == 0).all())  # causal
    assert bool(((times >= 0) & (times <= 1)).all())
    sampler = flow.ComovingSampler(method, steps).double()
    plain = seen_from_outside(rk, steps, numbers(rk, steps))
    with torch.no_grad():
        assert torch.allclose(sampler(field, x), flow.integrate(field, x, rk, steps), atol=1e-12)
        sampler.times.copy_(times - plain[0])
        sampler.local_scales.copy_(alpha[:, None] - 1)
        sampler.weights.copy_((weights - plain[2]).unsqueeze(-1))
        assert torch.allclose(sampler(field, x), by_hand, atol=1e-12)


@pytest.mark.parametrize("method", sorted(flow.METHODS))
def test_gauges_reach_every_method_nearby(method):
    # the derivative of (times, alpha, weights) in the gauge has as many independent columns as the table has numbers
    rk, steps = flow.METHODS[method], 2
    total = steps * rk.stages

    def table(gauge):
        times, alpha, weights = seen_from_outside(rk, steps, gauge)
        lower = torch.tril_indices(total, total)
        return torch.cat([times[1:], alpha[1:], weights[1:][lower[0], lower[1]]])

    gauge = numbers(rk, steps, torch.Generator().manual_seed(0))
    parts = jacrev(table)(gauge)
    jac = torch.cat([parts[name].flatten(1) for name in gauge], 1)
    free = total - 1 + total + total * (total + 1) // 2
    assert jac.shape[0] == free
    assert int(torch.linalg.matrix_rank(jac, rtol=1e-9)) == free
