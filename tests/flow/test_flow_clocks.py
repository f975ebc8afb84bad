"""Clocks: ends, rates against finite differences, inverses, group laws."""

import pytest
import torch

from regauge.errors import InputError
from regauge.flow import BernsteinClock, IdentityClock, NetworkClock, PowerClock, ShiftClock
from regauge.flow.clocks import ComposedClock, bernstein, bernstein_rate
from regauge.flow.schedules import Cosine, ScheduleClock, StretchedClock, VariancePreserving
from regauge.flow.spacetime import LapseClock

R = torch.linspace(0.05, 0.95, 13, dtype=torch.float64)


def clocks():
    torch.manual_seed(0)
    return {
        "identity": IdentityClock(),
        "bernstein": BernsteinClock(6, logits=torch.randn(6, dtype=torch.float64)),
        "bernstein_wide": BernsteinClock(3, -1.0, 2.5, logits=torch.randn(3, dtype=torch.float64)),
        "power": PowerClock(2.5),
        "shift": ShiftClock(3.0),
        "network": NetworkClock().double(),
        "cosine": ScheduleClock(Cosine()),
        "vp": StretchedClock(ScheduleClock(VariancePreserving())),
        "lapse": LapseClock(lambda r: 1 + 0.5 * torch.cos(torch.pi * r)),
        "composed": ComposedClock(PowerClock(2.0), ShiftClock(0.5)),
    }


@pytest.mark.parametrize("name", clocks())
def test_rate_inverse_and_ends(name):
    clock = clocks()[name]
    r = clock.start + R * (clock.end - clock.start)
    eps = 1e-6
    difference = (clock(r + eps) - clock(r - eps)) / (2 * eps)
    assert torch.allclose(clock.rate(r), difference, rtol=1e-7, atol=1e-8)
    assert bool((clock.rate(r) > 0).all())
    back = clock.inverse()
    assert torch.allclose(back(clock(r)), r, atol=1e-12)
    assert torch.allclose(back.rate(clock(r)) * clock.rate(r), torch.ones_like(r), atol=1e-9)
    assert clock.ends() == pytest.approx((clock.start, clock.end), abs=1e-9)


def test_bernstein_reproduces_monomials():
    # u^2 = sum_k k(k-1)/(n(n-1)) B_k^n(u), the classical identity
    n = 7
    k = torch.arange(n + 1, dtype=torch.float64)
    u = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    assert torch.allclose(bernstein(k * (k - 1) / (n * (n - 1)), u), u**2, atol=1e-15)
    assert torch.allclose(bernstein_rate(k * (k - 1) / (n * (n - 1)), u), 2 * u, atol=1e-14)


def test_bernstein_ends_are_safe_to_differentiate():
    c = torch.randn(9, dtype=torch.float64)
    u = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(bernstein(c, u).sum(), u)
    assert torch.allclose(slope, torch.stack([8 * (c[1] - c[0]), 8 * (c[8] - c[7])]))


def test_shifts_form_a_group():
    both = ComposedClock(ShiftClock(3.0), ShiftClock(3.0))
    assert torch.allclose(both(R), ShiftClock(9.0)(R), atol=1e-15)
    # the formula in noise level: sigma' = a sigma / (1 + (a - 1) sigma)
    sigma = 1 - R
    assert torch.allclose(1 - ShiftClock(3.0)(R), 3 * sigma / (1 + 2 * sigma), atol=1e-15)


def test_inverse_clock_is_differentiable_in_parameters():
    clock = BernsteinClock(4, logits=torch.tensor([0.3, -0.2, 0.1, 0.4], dtype=torch.float64))
    t = torch.tensor(0.4, dtype=torch.float64)
    (grad,) = torch.autograd.grad(clock.inverse()(t), clock.logits)
    eps = 1e-6
    for k in range(4):
        ends = []
        for sign in (1, -1):
            moved = clock.logits.detach().clone()
            moved[k] += sign * eps
            ends.append(BernsteinClock(4, logits=moved).inverse()(t).item())
        assert grad[k].item() == pytest.approx((ends[0] - ends[1]) / (2 * eps), abs=1e-8)


def test_bad_clocks_are_refused():
    with pytest.raises(InputError, match="turns time around"):
        ShiftClock(-1.0)
    with pytest.raises(InputError, match="no finite rate"):
        PowerClock(0.5)
    with pytest.raises(InputError, match="time would stop"):
        LapseClock(lambda r: torch.cos(torch.pi * r))
