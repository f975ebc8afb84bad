"""A gauge transformation of a neural ODE: a clock t(r) and a diffeomorphism phi_r, as one value.

The convention, stated once and tested: everything is ACTIVE. A trajectory x(t) becomes y(r) = phi(r, x(t(r))), hence

    F'(r, y) = d_r phi + D phi . tdot(r) F(t(r), chi(r, y)).

`h @ g` means g first, then h, like matrices on columns. The group is that of foliation-preserving spacetime
diffeomorphisms; `spacetime.py` holds the larger one, where the new time depends on the state.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regauge.errors import CheckError
from regauge.flow.clocks import Clock, ComposedClock, IdentityClock
from regauge.flow.diffeos import ComposedDiffeo, Diffeo, IdentityDiffeo, ReclockedDiffeo, solve


@dataclass(frozen=True)
class EndReport:
    """How far a gauge is from the identity at the two ends, on sample states.

    state_start, state_end: max |phi(x) - x|; time_start, time_end: |t(r) - r|.
    """

    state_start: float
    state_end: float
    time_start: float
    time_end: float

    @property
    def worst(self) -> float:
        return max(self.state_start, self.state_end, self.time_start, self.time_end)

    def __str__(self) -> str:
        return (
            f"start: |phi - id| {self.state_start:.2e}, |t - r| {self.time_start:.2e}; "
            f"end: |phi - id| {self.state_end:.2e}, |t - r| {self.time_end:.2e}"
        )


class Gauge(nn.Module):
    """y(r) = phi(r, x(t(r))). `start` and `end` are the ends of the *new* time r."""

    def __init__(self, space: Diffeo | None = None, clock: Clock | None = None) -> None:
        super().__init__()
        self.space = IdentityDiffeo() if space is None else space
        self.clock = IdentityClock() if clock is None else clock

    @property
    def start(self) -> float:
        return self.clock.start

    @property
    def end(self) -> float:
        return self.clock.end

    def encode(self, x: Tensor) -> Tensor:
        """The dressing of the input side: phi at the first time, to apply to what an encoder gives."""
        return self.space.push(_time(self.start, x), x)

    def decode(self, y: Tensor) -> Tensor:
        """The dressing of the read-out side: chi at the last time, to apply before a decoder."""
        return self.space.pull(_time(self.end, y), y)

    def __matmul__(self, first: "Gauge") -> "Gauge":
        """self after first: z(q) = psi_q(phi_{r(q)}(x(t(r(q)))))."""
        return Gauge(
            ComposedDiffeo(self.space, ReclockedDiffeo(first.space, self.clock)),
            ComposedClock(first.clock, self.clock),
        )

    def inverse(self) -> "Gauge":
        back = self.clock.inverse()
        return Gauge(ReclockedDiffeo(self.space.inverse(), back), back)

    def ends(self, x: Tensor) -> EndReport:
        """Compare with the identity at both ends on states x (batch, d)."""
        with torch.no_grad():
            gaps = [float((self.space.push(_time(r, x), x) - x).abs().max()) for r in (self.start, self.end)]
        old_start, old_end = self.clock.ends()
        return EndReport(gaps[0], gaps[1], abs(old_start - self.start), abs(old_end - self.end))

    def require_ends(self, x: Tensor, tolerance: float = 1e-6) -> None:
        """Raise CheckError unless the gauge is the identity at both ends, so that x(0) -> x(T) needs no dressing."""
        report = self.ends(x)
        if report.worst > tolerance:
            raise CheckError(
                f"gauge ends: not the identity ({report}), so the undressed model changes its function; "
                "wrap encoder and decoder with gauge.encode and gauge.decode, or use regauge.flow.dress"
            )

    def push_covector(self, r: Tensor, x: Tensor, p: Tensor) -> Tensor:
        """The law of gradients (adjoint states): p' = (D phi)^-T p at the point x, all (..., d)."""
        return solve(self.space.jacobian(r, x).mT, p)


def _time(value: float, x: Tensor) -> Tensor:
    return torch.tensor(value, dtype=x.dtype, device=x.device)


def identity() -> Gauge:
    """The identity on [0, 1]."""
    return Gauge()
