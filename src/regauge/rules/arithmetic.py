"""Sums, products and choices of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.ir import Einsum, Value
from regauge.rules.pointwise import keyed
from regauge.rules.registry import rule

aten = torch.ops.aten
Operand = Value | float
DROPPED = -1e4  # a score that is set to this or less is left out by every softmax


def is_number(x: Any) -> bool:
    return isinstance(x, int | float | bool)


def plus(b: Builder, x: Operand, y: Operand, cx: float = 1.0, cy: float = 1.0) -> Value:
    """cx * x + cy * y, where either may be a number."""
    if is_number(x):
        x, cx = b.constant(float(x) * cx), 1.0  # type: ignore[arg-type]
    if is_number(y):
        if y == 0:
            return b.scale(x, cx)  # type: ignore[arg-type]
        y, cy = b.constant(float(y) * cy), 1.0  # type: ignore[arg-type]
    masked = _masked(b, x, y, cx, cy) or _masked(b, y, x, cy, cx)  # type: ignore[arg-type]
    return masked or b.add([x, y], [cx, cy])  # type: ignore[list-item]


def _masked(b: Builder, product: Value, level: Value, c: float, d: float) -> Value | None:
    """c x m + d l with fixed m and l, where m is 1 and l is 0, or m is 0 and d l very negative: a choice by m."""
    if not isinstance(product.op, Einsum) or len(product.args) != 2 or level.learned or not product.learned:
        return None
    if product is not b.mul(*product.args):  # some other contraction
        return None
    x, mask = sorted(product.args, key=lambda v: not v.learned)
    m, low = fixed(mask), fixed(level)
    if m is None or low is None or not bool(((m == 0) | (m == 1)).all()):
        return None
    zero, low = torch.broadcast_tensors(m == 0, d * low)
    levels = low[zero].unique()
    if len(levels) != 1 or float(levels) > DROPPED or bool(low[~zero].any()):
        return None
    return _keep(b, mask, b.scale(x, c), float(levels), True)


@rule("aten.add.Scalar", samples=lambda t: [(t(3, 5), 0.5, 2.0)])
@rule("aten.add.Tensor", samples=lambda t: [(t(3, 5), t(3, 5)), (t(3, 5), t(5)), (t(3, 5), 0.5)])
def add(b: Builder, x: Operand, y: Operand, alpha: float = 1.0) -> Value:
    return plus(b, x, y, 1.0, alpha)


@rule("aten.sub.Scalar", samples=lambda t: [(t(3, 5), 0.5)])
@rule("aten.sub.Tensor", samples=lambda t: [(t(3, 5), t(3, 5)), (t(3, 5), 1.0)])
def subtract(b: Builder, x: Operand, y: Operand, alpha: float = 1.0) -> Value:
    return plus(b, x, y, 1.0, -alpha)


@rule("aten.rsub.Tensor", samples=lambda t: [(t(3, 5), t(5))])
@rule("aten.rsub.Scalar", samples=lambda t: [(t(3, 5), 1.0)])
def reverse_subtract(b: Builder, x: Operand, y: Operand, alpha: float = 1.0) -> Value:
    return plus(b, y, x, 1.0, -alpha)


@rule("aten.neg.default", samples=lambda t: [(t(3, 5),)])
def negative(b: Builder, x: Value) -> Value:
    return b.scale(x, -1.0)


@rule("aten.mul.Scalar", samples=lambda t: [(t(3, 5), 0.5), (t(3, 5), 0)])
@rule(
    "aten.mul.Tensor", "aten.multiply.Tensor", samples=lambda t: [(t(3, 5), t(3, 5)), (t(3, 5), t(5)), (t(3, 5), 0.5)]
)
def multiply(b: Builder, x: Operand, y: Operand) -> Value:
    if is_number(y):
        return b.scale(x, float(y)) if y != 0 else b.zeros(x.shape)  # type: ignore[arg-type,union-attr]
    if is_number(x):
        return multiply(b, y, x)
    return b.mul(x, y)  # type: ignore[arg-type]


@rule("aten.div.Scalar", samples=lambda t: [(t(3, 5), 2.0)])
@rule("aten.div.Tensor", "aten.true_divide.Tensor", samples=lambda t: [(t(3, 5), t(3, 5).abs() + 1.0), (t(3, 5), 2.0)])
def divide(b: Builder, x: Operand, y: Operand) -> Value:
    if is_number(y):
        return b.scale(x, 1.0 / float(y))  # type: ignore[arg-type]
    inverse = b.pointwise("reciprocal", keyed("aten.reciprocal.default"), y, degree=-1, parity="odd")  # type: ignore[arg-type]
    return multiply(b, x, inverse)


def _whole(name: str, numbers: bool) -> None:
    """Results that jump: no law of scaling."""

    @rule(name, samples=lambda t: [(3 * t(3, 5), 0.7) if numbers else (3 * t(3, 5), t(5).abs() + 0.5)])
    def divide_whole(b: Builder, x: Value, y: Operand) -> Value:
        if isinstance(y, Value):
            return b.pointwise("divide_whole", keyed(name), x, y)
        return b.pointwise("divide_whole", keyed(name, y), x)


for _name in ("remainder", "fmod"):
    _whole(f"aten.{_name}.Tensor", False)
    _whole(f"aten.{_name}.Scalar", True)
_whole("aten.floor_divide.default", False)


@rule(
    "aten.div.Tensor_mode",
    samples=lambda t: [
        ((3 * t(3, 5), t(5).abs() + 0.5), dict(rounding_mode="floor")),
        ((3 * t(3, 5), t(5).abs() + 0.5), dict(rounding_mode="trunc")),
    ],
)
def divide_rounded(b: Builder, x: Value, y: Operand, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is None:
        return divide(b, x, y)

    def whole(*xs: Tensor) -> Tensor:
        return torch.div(*xs, *([] if isinstance(y, Value) else [y]), rounding_mode=rounding_mode)

    return b.pointwise("divide_whole", whole, x, *([y] if isinstance(y, Value) else []))


@rule("aten.addcmul.default", samples=lambda t: [(t(3, 5), t(3, 5), t(5))])
def addcmul(b: Builder, x: Value, y: Value, z: Value, value: float = 1.0) -> Value:
    return b.add([x, b.mul(y, z)], [1.0, value])


@rule("aten.addcdiv.default", samples=lambda t: [(t(3, 5), t(3, 5), t(5).abs() + 1.0)])
def addcdiv(b: Builder, x: Value, y: Value, z: Value, value: float = 1.0) -> Value:
    return b.add([x, divide(b, y, z)], [1.0, value])


@rule("aten.lerp.Scalar", samples=lambda t: [(t(3, 5), t(3, 5), 0.3)])
@rule("aten.lerp.Tensor", samples=lambda t: [(t(3, 5), t(3, 5), t(5))])
def lerp(b: Builder, x: Value, y: Value, weight: Operand) -> Value:
    return b.add([x, multiply(b, weight, b.add([y, x], [1.0, -1.0]))])


@rule("aten.where.self", samples=lambda t: [(t(3, 5) > 0, t(3, 5), t(3, 5)), (t(3, 5) > 0, t(3, 5), torch.tensor(0.0))])
@rule("aten.where.ScalarOther", samples=lambda t: [(t(3, 5) > 0, t(3, 5), 0.0), (t(3, 5) > 0, t(3, 5), -1e9)])
@rule("aten.where.ScalarSelf", samples=lambda t: [(t(3, 5) > 0, 0.5, t(3, 5))])
@rule("aten.where.Scalar", samples=lambda t: [(t(3, 5) > 0, 1.0, 0.0)])
def where(b: Builder, condition: Value, x: Operand, y: Operand) -> Value:
    x, y = _as_number(x), _as_number(y)
    if isinstance(x, int | float) and isinstance(y, int | float):
        yes, no = float(x), float(y)
        name = "choose_truth" if {yes, no} <= {0.0, 1.0} else "choose"
        return b.pointwise(name, lambda c: torch.where(c.bool(), yes, no), condition, degree=0)
    if is_number(y):
        return _keep(b, condition, x, float(y), True)  # type: ignore[arg-type]
    if is_number(x):
        return _keep(b, condition, y, float(x), False)  # type: ignore[arg-type]
    return b.pointwise(
        "where",
        lambda c, x, y: torch.where(c.bool(), x, y),
        condition,
        x,  # type: ignore[arg-type]
        y,  # type: ignore[arg-type]
        degree=1,
        fixed=(0,),
        linear=not condition.learned,
    )


def _as_number(x: Operand) -> Operand:
    """A constant with one value everywhere, as that value."""
    if isinstance(x, Value) and not x.learned and is_filled(x):
        return float(x.op.thunk().flatten()[0])  # type: ignore[union-attr]
    return x


def is_filled(x: Value) -> bool:
    """A constant with one value everywhere."""
    t = fixed(x)
    return t is not None and bool((t == t.flatten()[0]).all())


def fixed(x: Value) -> Tensor | None:
    """What a value holds, if that is the same for every input, and not too much to look at."""
    if x.learned or x.data or x.numel == 0 or x.numel > 1 << 22:
        return None
    try:
        return x.op.thunk()  # type: ignore[union-attr]
    except (KeyError, RuntimeError):
        return None


def _keep(b: Builder, condition: Value, x: Value, fill: float, when: bool) -> Value:
    """x where the condition is `when`, else a constant: a product for 0, a dropped entry for very negative ones."""

    def fn(c: Tensor, x: Tensor) -> Tensor:
        c = c.bool() if when else ~c.bool()
        low = torch.finfo(x.dtype).min if x.is_floating_point() and fill != float("-inf") else fill
        return torch.where(c, x, torch.as_tensor(max(fill, low), dtype=x.dtype))

    if fill == 0:
        return b.pointwise("mask", fn, condition, x, degree=1, parity="odd", fixed=(0,), linear=not condition.learned)
    name = "drop" if fill <= DROPPED else "fill"
    return b.pointwise(name, fn, condition, x, fixed=(0,), degree=1 if abs(fill) == float("inf") else None)


@rule("aten.masked_fill.Tensor", samples=lambda t: [(t(3, 5), t(3, 5) > 0, t(1).abs()[0])])
@rule("aten.masked_fill.Scalar", samples=lambda t: [(t(3, 5), t(3, 5) > 0, 0.0), (t(3, 5), t(5) > 0, -1e9)])
def masked_fill(b: Builder, x: Value, mask: Value, value: Operand) -> Value:
    return where(b, mask, value, x)


@rule("aten.tril.default", samples=lambda t: [(t(3, 5),)])
def tril(b: Builder, x: Value, diagonal: int = 0) -> Value:
    return _band(b, x, lambda s: torch.ones(s).tril(diagonal))


@rule("aten.triu.default", samples=lambda t: [(t(3, 5),)])
def triu(b: Builder, x: Value, diagonal: int = 0) -> Value:
    return _band(b, x, lambda s: torch.ones(s).triu(diagonal))


def _band(b: Builder, x: Value, make: Any) -> Value:
    shape = x.shape[-2:]
    mask = b.free(f"band:{shape}:{make(shape).sum().item()}", shape, lambda: make(shape))
    return _keep(b, mask, x, 0.0, True)
