"""transport(F, gauge): the vector field in another gauge, ready for any ODE solver; and the dressed model."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jvp

from regauge.flow.diffeos import Diffeo, PullDiffeo
from regauge.flow.fields import Field, divergence
from regauge.flow.gauge import Gauge


class TransportedField(nn.Module):
    """F'(r, y) = d_r phi + D phi . tdot F(t(r), chi(r, y)). Differentiable in F's and the gauge's parameters.

    Where only chi is known (PullDiffeo) the pull form (D chi)^-1 [tdot F - d_r chi] is used: the same field.
    """

    def __init__(self, field: Field, gauge: Gauge) -> None:
        super().__init__()
        self.field, self.gauge = field, gauge

    def forward(self, r: Tensor, y: Tensor) -> Tensor:
        clock, space = self.gauge.clock, self.gauge.space
        x = space.pull(r, y)
        rate = clock.rate(r)
        velocity = _times(rate, self.field(_broadcast(clock(r), x), x))
        if isinstance(space, PullDiffeo):
            return space.tangent_at_image(r, y, velocity, torch.ones_like(r))
        return space.tangent(r, x, velocity, torch.ones_like(r))

    def divergence(self, r: Tensor, y: Tensor) -> Tensor:
        """div F' = tdot div F + (d/dr along the flow) log |det D phi|: F's own exact divergence, transported."""
        clock, space = self.gauge.clock, self.gauge.space
        x = space.pull(r, y)
        t, rate = clock(r), clock.rate(r)
        own = getattr(self.field, "divergence", None)
        div = own(t, x) if own is not None else divergence(self.field, t, x)
        velocity = _times(rate, self.field(_broadcast(t, x), x))
        gain = jvp(space.log_det, (r, x), (torch.ones_like(r), velocity))[1]
        return rate * div + gain

    def encode(self, x: Tensor) -> Tensor:
        return self.gauge.encode(x)

    def decode(self, y: Tensor) -> Tensor:
        return self.gauge.decode(y)


def transport(field: Field, gauge: Gauge) -> nn.Module:
    """The field in the new gauge.

    Fields that know their own law (`LinearField`: W' = g W g^-1 + gdot g^-1) return their own kind; every other
    callable or module becomes a `TransportedField` of the same signature (r, y) -> (..., d).
    """
    own: Callable[[Gauge], nn.Module | None] | None = getattr(field, "transported", None)
    if own is not None:
        result = own(gauge)
        if result is not None:
            return result
    return TransportedField(field, gauge)


class DressedEncoder(nn.Module):
    """phi at the first time, after the encoder."""

    def __init__(self, encoder: nn.Module, gauge: Gauge) -> None:
        super().__init__()
        self.encoder, self.gauge = encoder, gauge

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.gauge.encode(self.encoder(*inputs))


class DressedDecoder(nn.Module):
    """chi at the last time, before the decoder."""

    def __init__(self, decoder: nn.Module, gauge: Gauge) -> None:
        super().__init__()
        self.decoder, self.gauge = decoder, gauge

    def forward(self, y: Tensor) -> Tensor:
        return self.decoder(self.gauge.decode(y))


def dress(encoder: nn.Module, field: Field, decoder: nn.Module, gauge: Gauge) -> tuple[nn.Module, nn.Module, nn.Module]:
    """(encoder', F', decoder') with the same function as (encoder, F, decoder), whatever the gauge's ends are."""
    return DressedEncoder(encoder, gauge), transport(field, gauge), DressedDecoder(decoder, gauge)


def stabiliser_defect(flow: Callable[[Tensor], Tensor], space: Diffeo, x: Tensor, start: float, end: float) -> float:
    """max |phi_T(Phi(x)) - Phi(phi_0(x))|: zero iff the *undressed* function Phi is unchanged by phi's ends."""
    first, last = (torch.tensor(r, dtype=x.dtype) for r in (start, end))
    with torch.no_grad():
        return float((space.push(last, flow(x)) - flow(space.push(first, x))).abs().max())


def log_det_correction(gauge: Gauge, x_start: Tensor, x_end: Tensor) -> Tensor:
    """log|det D phi_T|(x_T) - log|det D phi_0|(x_0): what a gauge adds to a log-determinant (0 if ends are id)."""
    first = torch.tensor(gauge.start, dtype=x_start.dtype)
    last = torch.tensor(gauge.end, dtype=x_end.dtype)
    return gauge.space.log_det(last, x_end) - gauge.space.log_det(first, x_start)


def _times(rate: Tensor, v: Tensor) -> Tensor:
    return (rate if rate.dim() == 0 else rate.unsqueeze(-1)) * v


def _broadcast(t: Tensor, x: Tensor) -> Tensor:
    """Times in the state's dtype: solvers may keep time in double while a float32 model expects its own."""
    return t.to(x.dtype)
