"""Time reparametrisations t = t(r): smooth, increasing, with exact rates and inverses.

A clock maps the *new* time r to the *old* time t. Every clock is a module: `clock(r)` is t, `clock.rate(r)` is dt/dr
> 0, `clock.inverse()` is the clock r(t). Times may be scalars or one time per sample; clocks act elementwise.
"""

from abc import ABC, abstractmethod
from math import comb

import torch
from torch import Tensor, nn
from torch.func import jvp

from regauge.errors import InputError


def bernstein(coefficients: Tensor, u: Tensor) -> Tensor:
    """sum_k c_k B_k^n(u), B_k^n = binom(n, k) u^k (1 - u)^(n-k); c: (n+1, *extra); returns u.shape + extra."""
    degree = coefficients.shape[0] - 1
    k = torch.arange(degree + 1, dtype=u.dtype, device=u.device)
    binomial = torch.tensor([comb(degree, j) for j in range(degree + 1)], dtype=u.dtype, device=u.device)
    u = u.unsqueeze(-1)
    return torch.tensordot(binomial * u**k * (1 - u) ** (degree - k), coefficients, dims=1)


def bernstein_rate(coefficients: Tensor, u: Tensor) -> Tensor:
    """d/du of `bernstein`: degree n-1 with coefficients n (c_{k+1} - c_k)."""
    degree = coefficients.shape[0] - 1
    if degree == 0:
        return torch.zeros_like(bernstein(coefficients, u))
    return bernstein(degree * coefficients.diff(dim=0), u)


def share(r: Tensor, start: float, end: float) -> Tensor:
    """(r - start) / (end - start).

    With tensors, because forward mode gives a Python number plus or times a 0-dimensional float32 a tangent in double
    (torch 2.13), which the next matrix product refuses.
    """
    first, last = (torch.as_tensor(value, dtype=r.dtype, device=r.device) for value in (start, end))
    return (r - first) / (last - first)


class Clock(nn.Module, ABC):
    """An increasing map of the new interval [start, end] to the old one."""

    start: float = 0.0
    end: float = 1.0

    @abstractmethod
    def forward(self, r: Tensor) -> Tensor:
        """Old time t(r)."""

    def rate(self, r: Tensor) -> Tensor:
        """dt/dr, positive."""
        return jvp(self.forward, (r,), (torch.ones_like(r),))[1]

    def inverse(self) -> "Clock":
        """The clock r(t)."""
        return InverseClock(self)

    def ends(self) -> tuple[float, float]:
        """Old times at the two ends."""
        at = torch.tensor([self.start, self.end], dtype=torch.float64)
        with torch.no_grad():
            low, high = self(at).tolist()
        return low, high


class IdentityClock(Clock):
    """t = r."""

    def __init__(self, start: float = 0.0, end: float = 1.0) -> None:
        super().__init__()
        self.start, self.end = float(start), float(end)

    def forward(self, r: Tensor) -> Tensor:
        return r

    def rate(self, r: Tensor) -> Tensor:
        return torch.ones_like(r)

    def inverse(self) -> Clock:
        return self


class ComposedClock(Clock):
    """t(r(q)): `inner` runs first."""

    def __init__(self, outer: Clock, inner: Clock) -> None:
        super().__init__()
        self.outer, self.inner = outer, inner
        self.start, self.end = inner.start, inner.end

    def forward(self, r: Tensor) -> Tensor:
        return self.outer(self.inner(r))

    def rate(self, r: Tensor) -> Tensor:
        return self.outer.rate(self.inner(r)) * self.inner.rate(r)

    def inverse(self) -> Clock:
        return ComposedClock(self.inner.inverse(), self.outer.inverse())


class InverseClock(Clock):
    """r(t) by bisection, then one Newton step that carries the derivative (implicit function theorem)."""

    def __init__(self, clock: Clock, halvings: int = 60) -> None:
        super().__init__()
        self.clock, self.halvings = clock, halvings
        self.start, self.end = clock.ends()

    def forward(self, r: Tensor) -> Tensor:
        with torch.no_grad():
            low, high = torch.full_like(r, self.clock.start), torch.full_like(r, self.clock.end)
            for _ in range(self.halvings):
                middle = (low + high) / 2
                above = self.clock(middle) > r
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            root = (low + high) / 2
            slope = self.clock.rate(root)
        return root - (self.clock(root) - r) / slope

    def rate(self, r: Tensor) -> Tensor:
        return 1 / self.clock.rate(self(r))

    def inverse(self) -> Clock:
        return self.clock


class BernsteinClock(Clock):
    """Polynomial of degree n with increasing Bernstein coefficients, so increasing; logits zero is the identity.

    The coefficients are cumulative sums of softmax(logits): t(0) = 0 and t(1) = 1 hold exactly (up to rounding).
    """

    def __init__(self, degree: int = 8, start: float = 0.0, end: float = 1.0, logits: Tensor | None = None) -> None:
        super().__init__()
        if degree < 1:
            raise InputError(f"BernsteinClock: degree {degree} cannot join the two ends; give a degree of at least 1")
        self.start, self.end = float(start), float(end)
        self.logits = nn.Parameter(torch.zeros(degree) if logits is None else logits)

    def coefficients(self) -> Tensor:
        steps = torch.softmax(self.logits, 0)
        return torch.cat([steps.new_zeros(1), steps.cumsum(0)])

    def forward(self, r: Tensor) -> Tensor:
        u = share(r, self.start, self.end)
        return self.start + (self.end - self.start) * bernstein(self.coefficients().to(r.dtype), u)

    def rate(self, r: Tensor) -> Tensor:
        return bernstein_rate(self.coefficients().to(r.dtype), share(r, self.start, self.end))


class PowerClock(Clock):
    """t = r^p on [0, 1]; p < 1 has an infinite rate at r = 0 and is refused."""

    def __init__(self, power: float) -> None:
        super().__init__()
        if power < 1:
            raise InputError(f"PowerClock: r^{power} has no finite rate at r = 0; use the inverse of r^{1 / power:g}")
        self.power = float(power)

    def forward(self, r: Tensor) -> Tensor:
        return r**self.power

    def rate(self, r: Tensor) -> Tensor:
        return self.power * r ** (self.power - 1)


class ShiftClock(Clock):
    """t = r / (r + a (1 - r)): the one-parameter group of resolution shifts, shift_a o shift_b = shift_ab.

    In noise level sigma = 1 - t it reads sigma' = a sigma / (1 + (a - 1) sigma). Shifting twice by 3 is shifting by 9.
    """

    def __init__(self, shift: float) -> None:
        super().__init__()
        if shift <= 0:
            raise InputError(f"ShiftClock: shift {shift} turns time around; give a positive number")
        self.shift = float(shift)

    def forward(self, r: Tensor) -> Tensor:
        return r / (r + self.shift * (1 - r))

    def rate(self, r: Tensor) -> Tensor:
        return self.shift / (r + self.shift * (1 - r)) ** 2

    def inverse(self) -> Clock:
        return ShiftClock(1 / self.shift)


class NetworkClock(Clock):
    """t(r) proportional to int_0^r softplus(net): a network gives the logarithm of the rate, up to normalisation.

    The integral is Gauss-Legendre over [start, r], exact for polynomials of degree 2 nodes - 1; t keeps both ends.
    """

    def __init__(
        self, network: nn.Module | None = None, start: float = 0.0, end: float = 1.0, nodes: int = 16, hidden: int = 16
    ) -> None:
        super().__init__()
        import numpy as np

        self.start, self.end = float(start), float(end)
        self.network = network or nn.Sequential(nn.Linear(1, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        at, weight = np.polynomial.legendre.leggauss(nodes)
        self.at: Tensor
        self.weight: Tensor
        self.register_buffer("at", torch.tensor((at + 1) / 2), persistent=False)
        self.register_buffer("weight", torch.tensor(weight / 2), persistent=False)

    def _density(self, r: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        return nn.functional.softplus(self.network(r.to(dtype).unsqueeze(-1)).squeeze(-1)).to(r.dtype) + 1e-3

    def _integral(self, r: Tensor) -> Tensor:
        at, weight = self.at.to(r.dtype), self.weight.to(r.dtype)
        part = share(r, self.start, self.end).unsqueeze(-1)
        density = self._density(self.start + (self.end - self.start) * part * at)
        return (density * weight).sum(-1) * part.squeeze(-1)

    def forward(self, r: Tensor) -> Tensor:
        whole = self._integral(torch.as_tensor(self.end, dtype=r.dtype))
        return self.start + (self.end - self.start) * self._integral(r) / whole
