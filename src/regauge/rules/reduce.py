"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.norm import centre, mean_square
from regauge.rules.pointwise import keyed
from regauge.rules.registry import rule

Axes = Sequence[int] | int | None


def _axes(x: Value, axes: Axes) -> list[int]:
    if axes is None or (not isinstance(axes, int) and len(axes) == 0):
        return list(range(x.ndim))
    return [a % x.ndim for a in ([axes] if isinstance(axes, int) else axes)]


@rule("aten.sum.default", samples=lambda t: [(t(3, 5),)])
@rule("aten.sum.dim_IntList", samples=lambda t: [(t(3, 5), [1]), (t(3, 5), [-1], True)])
def sum_(b: Builder, x: Value, axes: Axes = None, keepdim: bool = False, **_: Any) -> Value:
    return b.sum(x, _axes(x, axes), keepdim)


@rule("aten.mean.default", samples=lambda t: [(t(3, 5),)])
@rule("aten.mean.dim", samples=lambda t: [(t(3, 5), [1]), (t(3, 5), [-1], True)])
def mean(b: Builder, x: Value, axes: Axes = None, keepdim: bool = False, **_: Any) -> Value:
    return b.sum(x, _axes(x, axes), keepdim, mean=True)


def _variance(b: Builder, x: Value, axes: list[int], correction: float, keepdim: bool) -> Value:
    count = 1.0
    for a in axes:
        count *= x.shape[a]
    y = mean_square(b, centre(b, x, axes), axes, count - correction)
    return y if keepdim else b.squeeze(y, axes)


@rule("aten.var.correction", "aten.var.dim", samples=lambda t: [(t(3, 5), [1])])
def var(
    b: Builder,
    x: Value,
    axes: Axes = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Value:
    correction = float(unbiased) if isinstance(unbiased, bool) else 1.0 if correction is None else correction
    return _variance(b, x, _axes(x, axes), correction, keepdim)


@rule("aten.var_mean.correction", samples=lambda t: [(t(3, 5), [1])])
def var_mean(
    b: Builder, x: Value, axes: Axes = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Value, Value]:
    axes = _axes(x, axes)
    return _variance(b, x, axes, 1.0 if correction is None else correction, keepdim), b.sum(x, axes, keepdim, mean=True)


@rule("aten.std.correction", "aten.std.dim", samples=lambda t: [(t(3, 5), [1])])
def std(
    b: Builder,
    x: Value,
    axes: Axes = None,
    unbiased: Any = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Value:
    v = var(b, x, axes, unbiased, keepdim, correction=correction)
    return b.pointwise("aten.sqrt.default", keyed("aten.sqrt.default"), v, degree=0.5)


@rule("aten.norm.Scalar", samples=lambda t: [(t(3, 5),), (t(3, 5), 1)])
@rule(
    "aten.linalg_vector_norm.default",
    "aten.norm.ScalarOpt_dim",
    samples=lambda t: [(t(3, 5), 2, [-1], True), (t(3, 5), 1, [-1])],
)
def vector_norm(b: Builder, x: Value, order: float = 2, axes: Axes = None, keepdim: bool = False, **_: Any) -> Value:
    axes = _axes(x, axes)
    if order == 2:
        y = b.pointwise("aten.sqrt.default", keyed("aten.sqrt.default"), mean_square(b, x, axes, 1.0), degree=0.5)
        return y if keepdim else b.squeeze(y, axes)
    return _along(
        b,
        "norm",
        lambda x: torch.linalg.vector_norm(x, order, axes, keepdim),
        x,
        axes,
        keepdim,
        degree=1,
        parity="even",
    )


@rule("aten.linalg_norm.default", samples=lambda t: [(t(3, 5), None, [-1])])
def linalg_norm(
    b: Builder, x: Value, order: float | None = None, axes: Axes = None, keepdim: bool = False, **_: Any
) -> Value:
    return vector_norm(b, x, 2 if order is None else order, axes, keepdim)


def _along(
    b: Builder,
    name: str,
    fn: Any,
    x: Value,
    axes: list[int],
    keepdim: bool,
    degree: float | None,
    parity: str = "",
    constants: bool = False,
) -> Value:
    y = b.along(
        name, fn, x, axes, out_axes=[], sizes=[], degree=degree, parity=parity, equivariant=True, constants=constants
    )
    return b.reshape(y, [1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdim else y


@rule("aten.amax.default", samples=lambda t: [(t(3, 5), [1])])
def amax(b: Builder, x: Value, axes: Axes = None, keepdim: bool = False) -> Value:
    axes = _axes(x, axes)
    return _along(b, "amax", lambda x: x.amax(axes, keepdim), x, axes, keepdim, degree=1, constants=True)


@rule("aten.amin.default", samples=lambda t: [(t(3, 5), [1])])
def amin(b: Builder, x: Value, axes: Axes = None, keepdim: bool = False) -> Value:
    axes = _axes(x, axes)
    return _along(b, "amin", lambda x: x.amin(axes, keepdim), x, axes, keepdim, degree=1, constants=True)


@rule("aten.max.default", samples=lambda t: [(t(3, 5),)])
def max_all(b: Builder, x: Value) -> Value:
    return amax(b, x)


@rule("aten.min.default", samples=lambda t: [(t(3, 5),)])
def min_all(b: Builder, x: Value) -> Value:
    return amin(b, x)


@rule("aten.logsumexp.default", samples=lambda t: [(t(3, 5), [1])])
def logsumexp(b: Builder, x: Value, axes: Axes, keepdim: bool = False) -> Value:
    axes = _axes(x, axes)
    total = lambda x: x.logsumexp(axes, keepdim)  # noqa: E731
    return _along(b, "logsumexp", total, x, axes, keepdim, degree=None, constants=True)


@rule("aten.prod.dim_int", samples=lambda t: [(t(3, 5), 1)])
def prod(b: Builder, x: Value, axis: int, keepdim: bool = False, **_: Any) -> Value:
    axes = _axes(x, axis)
    return _along(b, "prod", lambda x: x.prod(axes[0], keepdim), x, axes, keepdim, degree=float(x.shape[axes[0]]))


@rule("aten.cumsum.default", samples=lambda t: [(t(3, 5), 1)])
def cumsum(b: Builder, x: Value, axis: int, **_: Any) -> Value:
    return b.along("cumsum", lambda x: x.cumsum(axis), x, [axis], linear=True)


@rule("aten.cumprod.default", samples=lambda t: [(t(3, 5), 1)])
def cumprod(b: Builder, x: Value, axis: int, **_: Any) -> Value:
    return b.along("cumprod", lambda x: x.cumprod(axis), x, [axis])


@rule("aten.any.dim", samples=lambda t: [(t(3, 5), 1)])
def any_along(b: Builder, x: Value, axis: int, keepdim: bool = False) -> Value:
    return _along(b, "any", lambda x: x.any(axis, keepdim).to(x.dtype), x, [axis % x.ndim], keepdim, degree=0)
