"""Affine gauges y = g(r) x + c(r): one scale, one scale per channel in a chosen frame, or a whole matrix."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import jvp

from regauge.errors import InputError
from regauge.flow.clocks import bernstein, bernstein_rate, share
from regauge.flow.diffeos import Diffeo, column, solve

Curve = Callable[[Tensor], Tensor]


def velocity(path: Curve, r: Tensor, rdot: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(path(r), rdot d path / dr)."""
    speed = torch.ones_like(r) if rdot is None else rdot.expand_as(r).to(r.dtype)
    value, rate = jvp(path, (r,), (speed,))[:2]
    return value, rate.to(value.dtype)


class ScaleDiffeo(Diffeo):
    """y = s(r) x with s > 0 given as log s: a function of r, with its derivative or by automatic differentiation."""

    def __init__(self, log_scale: Curve, log_rate: Curve | None = None) -> None:
        super().__init__()
        self.log_scale, self.log_rate = log_scale, log_rate

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return x * column(self.log_scale(r).exp(), x)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return y * column((-self.log_scale(r)).exp(), y)

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        if self.log_rate is None:
            log_scale, rate = velocity(self.log_scale, r, rdot)
        else:
            log_scale, rate = self.log_scale(r), self.log_rate(r) * rdot
        return column(log_scale.exp(), x) * (v + column(rate, x) * x)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return (x.shape[-1] * self.log_scale(r)).expand(x.shape[:-1])


class BernsteinScale(Diffeo):
    """y = Q diag(exp a(r)) Q^T (x - m(r)): log scales a and centre m are Bernstein polynomials; zero is the identity.

    channels: 1 for one common scale, d for one per channel. frame: orthogonal Q (d, d), columns are the channels.
    centred: learn m(r) as well.
    """

    def __init__(
        self,
        degree: int = 8,
        channels: int = 1,
        frame: Tensor | None = None,
        dim: int | None = None,
        centred: bool = False,
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        super().__init__()
        if channels > 1 and frame is not None and frame.shape != (channels, channels):
            raise InputError(
                f"BernsteinScale: frame {tuple(frame.shape)} does not carry {channels} channels; give (d, d)"
            )
        if centred and dim is None:
            raise InputError("BernsteinScale: a centre needs the dimension of the state; give dim=")
        self.start, self.end, self.channels = float(start), float(end), channels
        self.log_scale = nn.Parameter(torch.zeros(degree + 1, channels))
        self.centre = nn.Parameter(torch.zeros(degree + 1, dim)) if centred and dim is not None else None
        self.frame: Tensor | None
        self.register_buffer("frame", frame)

    def _paths(self, r: Tensor) -> tuple[Tensor, Tensor, Tensor | float, Tensor | float]:
        """a, da/dr, m, dm/dr at r; each of shape r.shape + (channels,) or (d,)."""
        span = self.end - self.start
        u = share(r, self.start, self.end)
        a, rate = bernstein(self.log_scale.to(r.dtype), u), bernstein_rate(self.log_scale.to(r.dtype), u) / span
        if self.centre is None:
            return a, rate, 0.0, 0.0
        centre = self.centre.to(r.dtype)
        return a, rate, bernstein(centre, u), bernstein_rate(centre, u) / span

    def _into(self, x: Tensor) -> Tensor:
        return x if self.frame is None else x @ self.frame.to(x.dtype)

    def _out(self, x: Tensor) -> Tensor:
        return x if self.frame is None else x @ self.frame.to(x.dtype).T

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        a, _, m, _ = self._paths(r)
        return self._out(a.exp() * self._into(x - m))

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        a, _, m, _ = self._paths(r)
        return self._out((-a).exp() * self._into(y)) + m

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        a, rate, m, drift = self._paths(r)
        speed = rdot if rdot.dim() == 0 else rdot.unsqueeze(-1)
        return self._out(a.exp() * (self._into(v - speed * drift) + speed * rate * self._into(x - m)))

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        a = self._paths(r)[0]
        total = a.sum(-1) * (x.shape[-1] if self.channels == 1 else 1)
        return total.expand(x.shape[:-1])


class AffineDiffeo(Diffeo):
    """y = g(r) x + c(r): any path of invertible matrices g: r -> (d, d) and of vectors c: r -> (d,) (None: zero)."""

    def __init__(self, linear: Curve, offset: Curve | None = None) -> None:
        super().__init__()
        self.linear, self.offset = linear, offset

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        y = torch.einsum("...ij,...j->...i", self.linear(r), x)
        return y if self.offset is None else y + self.offset(r)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        y = y if self.offset is None else y - self.offset(r)
        return solve(self.linear(r).expand(*y.shape, y.shape[-1]), y)

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        g, gdot = velocity(self.linear, r, rdot)
        moved = torch.einsum("...ij,...j->...i", g, v) + torch.einsum("...ij,...j->...i", gdot, x)
        return moved if self.offset is None else moved + velocity(self.offset, r, rdot)[1]

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.linear(r)).logabsdet.expand(x.shape[:-1])

    def matrices(self, r: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """g, dg/dr, c, dc/dr at r."""
        g, gdot = velocity(self.linear, r)
        if self.offset is None:
            zero = g.new_zeros(g.shape[:-1])
            return g, gdot, zero, zero
        return g, gdot, *velocity(self.offset, r)


class LowRankDiffeo(Diffeo):
    """y = exp(U S(r) U^T) x, U (d, k) orthonormal, S(r) (k, k) symmetric: a linear map that moves k directions.

    S is a Bernstein polynomial, free at both ends (the ends are dressed). Zero is the identity.
    """

    def __init__(self, directions: Tensor, degree: int = 4, start: float = 0.0, end: float = 1.0) -> None:
        super().__init__()
        rank = directions.shape[1]
        self.start, self.end = float(start), float(end)
        self.generator = nn.Parameter(torch.zeros(degree + 1, rank, rank))
        self.directions: Tensor
        self.register_buffer("directions", torch.linalg.qr(directions).Q)

    def _block(self, r: Tensor, sign: float = 1.0) -> Tensor:
        s = bernstein(self.generator.to(r.dtype), share(r, self.start, self.end))
        eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
        return torch.linalg.matrix_exp(sign * (s + s.mT) / 2) - eye

    def _act(self, block: Tensor, x: Tensor) -> Tensor:
        u = self.directions.to(x.dtype)
        return torch.einsum("...ij,...j->...i", block, x @ u) @ u.T

    def push(self, r: Tensor, x: Tensor) -> Tensor:
        return x + self._act(self._block(r), x)

    def pull(self, r: Tensor, y: Tensor) -> Tensor:
        return y + self._act(self._block(r, -1.0), y)

    def tangent(self, r: Tensor, x: Tensor, v: Tensor, rdot: Tensor) -> Tensor:
        block, rate = velocity(self._block, r, rdot)
        return v + self._act(block, v) + self._act(rate, x)

    def log_det(self, r: Tensor, x: Tensor) -> Tensor:
        s = bernstein(self.generator.to(r.dtype), share(r, self.start, self.end))
        return torch.diagonal(s, dim1=-2, dim2=-1).sum(-1).expand(x.shape[:-1])
