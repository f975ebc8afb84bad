"""Linear neural ODEs dx/dt = W(t) x + b(t): exact transport, Wilson lines, the affine connection.

Active convention, column vectors in formulas (x -> g x + c), rows in code. With A = [[W, b], [0, 0]] and
G = [[g, c], [0, 1]] all laws are one:

    A' = G A G^-1 + Gdot G^-1,     U'(t1, t0) = G(t1) U(t1, t0) G(t0)^-1.

So W is the gauge field of GL(d), and b is matter (a Higgs field, b' = g b) under GL(d) only: under the affine group it
is the translation part of the connection, and a translation c(t) can gauge it away.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from regauge.errors import InputError
from regauge.flow.affine import Curve
from regauge.flow.diffeos import Diffeo
from regauge.flow.gauge import Gauge


class LinearField(nn.Module):
    """F(t, x) = W(t) x + b(t); weight: t -> (d, d), bias: t -> (d,) or None. Constant tensors are taken as they are."""

    def __init__(self, weight: Curve | Tensor, bias: Curve | Tensor | None = None) -> None:
        super().__init__()
        self.weight = _as_curve(weight)
        self.bias = None if bias is None else _as_curve(bias)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        y = torch.einsum("...ij,...j->...i", self.weight(t), x)
        return y if self.bias is None else y + self.bias(t)

    def divergence(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.diagonal(self.weight(t), dim1=-2, dim2=-1).sum(-1).expand(x.shape[:-1])

    def connection(self, t: Tensor) -> Tensor:
        """A(t) = [[W, b], [0, 0]], (d + 1, d + 1)."""
        w = self.weight(t)
        b = w.new_zeros(w.shape[:-1]) if self.bias is None else self.bias(t)
        top = torch.cat([w, b.unsqueeze(-1)], -1)
        return torch.cat([top, torch.zeros_like(top[..., :1, :])], -2)

    def transported(self, gauge: Gauge) -> "LinearField | None":
        """W' = (tdot g W + gdot) g^-1, b' = tdot g b + cdot - W' c where the gauge is affine; None where it is not."""
        dim = self.weight(torch.tensor(gauge.clock.ends()[0], dtype=self.dtype)).shape[-1]
        return TransportedLinear(self, gauge) if is_affine(gauge.space, dim, self.dtype) else None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, whatever the dtype of the time."""
        if isinstance(self.weight, Constant):
            return self.weight.value.dtype
        return self.weight(torch.tensor(0.0, dtype=torch.float64)).dtype


def _as_curve(value: Curve | Tensor) -> Curve:
    if isinstance(value, Tensor):
        return Constant(value)
    return value


class Constant(nn.Module):
    """t -> one tensor (a parameter if it is one); a batch of times gets a batch of copies."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        if isinstance(value, nn.Parameter):
            self.value = value
        else:
            self.register_buffer("value", value)

    def forward(self, t: Tensor) -> Tensor:
        return self.value.to(t.dtype).expand(*t.shape, *self.value.shape)


class TransportedLinear(LinearField):
    """The linear field in an affine gauge: again a linear field, with W' and b' in closed form."""

    def __init__(self, field: LinearField, gauge: Gauge) -> None:
        super().__init__(self._weight, self._bias)
        self.field, self.gauge = field, gauge

    @property
    def dtype(self) -> torch.dtype:
        return self.field.dtype

    def _parts(self, r: Tensor) -> tuple[Tensor, Tensor]:
        g, gdot, c, cdot = affine_parts(self.gauge.space, r, self._size(r))
        t, rate = self.gauge.clock(r), self.gauge.clock.rate(r)
        w = self.field.weight(t)
        rate_m = rate if rate.dim() == 0 else rate[..., None, None]
        weight = (rate_m * (g @ w) + gdot) @ torch.linalg.inv(g)
        bias = cdot - (weight @ c.unsqueeze(-1)).squeeze(-1)
        if self.field.bias is not None:
            rate_v = rate if rate.dim() == 0 else rate[..., None]
            bias = bias + rate_v * (g @ self.field.bias(t).unsqueeze(-1)).squeeze(-1)
        return weight, bias

    def _size(self, r: Tensor) -> int:
        return self.field.weight(self.gauge.clock(r)).shape[-1]

    def _weight(self, r: Tensor) -> Tensor:
        return self._parts(r)[0]

    def _bias(self, r: Tensor) -> Tensor:
        return self._parts(r)[1]

    def encode(self, x: Tensor) -> Tensor:
        return self.gauge.encode(x)

    def decode(self, y: Tensor) -> Tensor:
        return self.gauge.decode(y)


def affine_parts(space: Diffeo, r: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """g, dg/dr, c, dc/dr of an affine diffeomorphism, read off its action on 0 and on the basis."""
    if r.dim() > 0:
        parts = [affine_parts(space, one, dim) for one in r.reshape(-1)]
        return tuple(torch.stack(p).reshape(*r.shape, *p[0].shape) for p in zip(*parts, strict=True))  # type: ignore
    points = torch.cat([torch.zeros(1, dim, dtype=r.dtype), torch.eye(dim, dtype=r.dtype)])
    image = space.push(r, points)
    drift = space.tangent(r, points, torch.zeros_like(points), torch.ones_like(r))
    return (image[1:] - image[0]).T, (drift[1:] - drift[0]).T, image[0], drift[0]


def is_affine(space: Diffeo, dim: int, dtype: torch.dtype = torch.float64) -> bool:
    """Whether phi_r is affine up to rounding: second differences vanish on random states at three times."""
    rng, tolerance = torch.Generator().manual_seed(0), max(1e-9, 1e3 * torch.finfo(dtype).eps)
    a, b, c = (3 * torch.randn(dim + 2, dim, dtype=torch.float64, generator=rng).to(dtype) for _ in range(3))
    with torch.no_grad():
        for at in (0.21, 0.5, 0.83):
            r = torch.tensor(at, dtype=dtype)
            second = space.push(r, a + b + c) - space.push(r, a + b) - space.push(r, a + c) + space.push(r, a)
            if float(second.abs().max()) > tolerance * (1 + float(space.push(r, a).abs().max())):
                return False
    return True


def wilson_line(
    field: LinearField, end: Tensor, start: float | Tensor = 0.0, steps: int = 200
) -> tuple[Tensor, Tensor]:
    """(U, m) with x(end) = U x(start) + m: U = T exp int W (later times left), m = int U(end, s) b(s) ds.

    Classical RK4 with `steps` steps on the (d + 1) matrix; smooth in `end`, so it may be differentiated. O(steps^-4).
    """
    start = torch.as_tensor(start, dtype=end.dtype)
    line = torch.eye(field.connection(start).shape[-1], dtype=end.dtype)
    h = (end - start) / steps
    for k in range(steps):
        t = start + k * h
        first, middle, last = field.connection(t), field.connection(t + h / 2), field.connection(t + h)
        k1 = first @ line
        k2 = middle @ (line + h / 2 * k1)
        k3 = middle @ (line + h / 2 * k2)
        k4 = last @ (line + h * k3)
        line = line + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return line[:-1, :-1], line[:-1, -1]


def piecewise_wilson_line(weights: Tensor, biases: Tensor | None, durations: Tensor) -> tuple[Tensor, Tensor]:
    """(U, m) of piecewise constant W (K, d, d), b (K, d): the ordered product of exp(h_k A_k), exact."""
    if len(weights) != len(durations):
        raise InputError(f"{len(weights)} weights but {len(durations)} durations; give one duration per piece")
    count, dim, _ = weights.shape
    connection = weights.new_zeros(count, dim + 1, dim + 1)
    connection[:, :dim, :dim] = weights
    if biases is not None:
        connection[:, :dim, dim] = biases
    line = torch.eye(dim + 1, dtype=weights.dtype)
    for h, a in zip(durations, connection, strict=True):
        line = torch.linalg.matrix_exp(h * a) @ line
    return line[:dim, :dim], line[:dim, dim]


def infinitesimal(weight: Tensor, bias: Tensor, generator: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """First-order change under g = 1 + eps a: dW = adot + [a, W], db = a b."""
    return rate + generator @ weight - weight @ generator, generator @ bias


def dilation(log_scale: Callable[[Tensor], Tensor], dim: int) -> Callable[[Tensor], Tensor]:
    """The path g(t) = exp(log_scale(t)) 1 of the scale subgroup: W' = W + d log_scale / dt, b' = e^log_scale b."""
    return lambda t: torch.exp(log_scale(t)) * torch.eye(dim, dtype=t.dtype)
