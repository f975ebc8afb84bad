"""Conversions of type, dropout, and complex numbers as pairs of real ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.registry import rule


def convert(b: Builder, x: Value, dtype: torch.dtype | None) -> Value:
    """Values are real numbers: a conversion to integers cuts them, one to truth values asks whether they are zero."""
    if dtype is None or dtype.is_floating_point:
        return x
    if dtype.is_complex:
        raise NotImplementedError("a conversion to complex numbers")
    if dtype == torch.bool:
        return b.pointwise("not_zero", _not_zero, x, degree=0, parity="even")
    return b.pointwise("whole", _whole, x, parity="odd")


def _not_zero(x: Tensor) -> Tensor:
    return (x != 0).to(x.dtype)


def _whole(x: Tensor) -> Tensor:
    return x.trunc() if x.is_floating_point() else x


@rule(
    "aten._to_copy.default",
    samples=lambda t: [
        ((t(3, 5),), dict(dtype=torch.float64)),
        ((3 * t(3, 5),), dict(dtype=torch.int64)),
        ((t(3, 5),), {}),
    ],
)
def to_copy(b: Builder, x: Value, *, dtype: torch.dtype | None = None, **_: Any) -> Value:
    return convert(b, x, dtype)


@rule(
    "aten.to.dtype",
    samples=lambda t: [(t(3, 5), torch.float64), (3 * t(3, 5), torch.int64), (t(3, 5).relu(), torch.bool)],
)
def to_dtype(b: Builder, x: Value, dtype: torch.dtype, *_: Any, **__: Any) -> Value:
    return convert(b, x, dtype)


@rule("aten.type_as.default", samples=lambda t: [(t(3, 5), t(2))])
def type_as(b: Builder, x: Value, other: Value) -> Value:
    """As a conversion between floating types; another type of a given tensor is looked up."""
    if other.learned or other.data:
        return x
    return convert(b, x, other.op.thunk().dtype)  # type: ignore[union-attr]


@rule(
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    samples=lambda t: [(t(3, 5), 0.5, False), (t(3, 5), 0.0, True)],
)
def dropout(b: Builder, x: Value, p: float, train: bool) -> Value:
    """In training mode each entry is kept or dropped by itself, which no mixing of entries respects."""
    if not train or p == 0:
        return x
    return b.pointwise("dropout", lambda x: torch.nn.functional.dropout(x, p), x, degree=1, parity="odd")


@rule("aten.native_dropout.default", samples=lambda t: [(t(3, 5), 0.5, False)])
def native_dropout(b: Builder, x: Value, p: float, train: bool | None) -> tuple[Value, Value]:
    return dropout(b, x, p, bool(train)), b.expand(b.constant(1.0), x.shape)
