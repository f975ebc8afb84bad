"""Gauge-fixing penalties as training losses: the Lorenz-like condition and weight decay as a gauge mass.

For a linear field xddot = Q x + q with Q = Wdot + W^2 and q = bdot + W b. Averaged over x with mean mu and
covariance C,

    E |xddot|^2 = tr(Q C Q^T) + |Q mu + q|^2,

and with C = 1, mu = 0 this is |Q|_F^2 + |q|^2. For any other field the same quantity is |d_t F + (F . grad) F|^2 on
data. All are differentiable in the field's parameters.
"""

import torch
from torch import Tensor
from torch.func import jvp

from regauge.flow.affine import velocity
from regauge.flow.fields import Field
from regauge.flow.linear import LinearField


def acceleration(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """xddot = d_t F + (F . grad) F along the flow, (..., d): one forward-mode pass."""
    v = field(t, x)
    return jvp(field, (t, x), (torch.ones_like(t), v))[1]


def straightness(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """Mean |xddot|^2 over the batch: the data-weighted Lorenz-like penalty of any field."""
    return acceleration(field, t, x).square().sum(-1).mean()


def kinetic(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """Mean |F|^2 over the batch. On the gauge orbit of one flow map the straight gauge minimises its time integral."""
    return field(t, x).square().sum(-1).mean()


def linear_defect(field: LinearField, t: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, q) = (Wdot + W^2, bdot + W b) at t."""
    w, wdot = velocity(field.weight, t)
    if field.bias is None:
        return wdot + w @ w, w.new_zeros(w.shape[:-1])
    b, bdot = velocity(field.bias, t)
    return wdot + w @ w, bdot + (w @ b.unsqueeze(-1)).squeeze(-1)


def lorenz_penalty(
    field: LinearField, times: Tensor, mean: Tensor | None = None, covariance: Tensor | None = None
) -> Tensor:
    """L_R / lambda at the given times, averaged: tr(Q C Q^T) + |Q mu + q|^2 (default C = 1, mu = 0: |Q|^2 + |q|^2).

    times (n,): quadrature nodes or random times. Multiply by the interval's length for the integral.
    """
    total = []
    for t in times:
        quadratic, linear = linear_defect(field, t)
        weighted = quadratic if covariance is None else quadratic @ covariance
        shifted = linear if mean is None else linear + quadratic @ mean
        total.append((weighted * quadratic).sum() + shifted.square().sum())
    return torch.stack(total).mean()


def gauge_mass(field: LinearField, times: Tensor, bias: bool = True) -> Tensor:
    """Weight decay |W|_F^2 + |b|^2, averaged over times: not invariant, so on an orbit it picks a representative."""
    total = []
    for t in times:
        term = field.weight(t).square().sum()
        if bias and field.bias is not None:
            term = term + field.bias(t).square().sum()
        total.append(term)
    return torch.stack(total).mean()
