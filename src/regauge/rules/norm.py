"""Normalisations: centre, divide by the root mean square, scale and shift."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.pointwise import keyed
from regauge.rules.registry import rule


def centre(b: Builder, x: Value, axes: Sequence[int]) -> Value:
    """x minus its mean over the axes."""
    return b.centre(x, axes)


def mean_square(b: Builder, x: Value, axes: Sequence[int], count: float | None = None) -> Value:
    """sum of x^2 over the axes, divided by count (their size); the axes are kept with size 1."""
    axes = [a % x.ndim for a in axes]
    out = [i for i in range(x.ndim) if i not in axes]
    y = b.einsum([range(x.ndim), range(x.ndim)], out, x, x)
    y = b.scale(y, 1.0 / (prod(x.shape[a] for a in axes) if count is None else count))
    return b.reshape(y, [1 if i in axes else n for i, n in enumerate(x.shape)])


def inverse_root(b: Builder, x: Value, eps: float) -> Value:
    x = b.add([x, b.constant(float(eps))]) if eps else x
    return b.pointwise("aten.rsqrt.default", keyed("aten.rsqrt.default"), x, degree=-0.5)


def affine(b: Builder, x: Value, weight: Value | None, bias: Value | None) -> Value:
    x = x if weight is None else b.mul(x, weight)
    return x if bias is None else b.add([x, bias])


@rule("aten.layer_norm.default", samples=lambda t: [(t(2, 3, 5), [5], t(5), t(5)), (t(2, 3, 5), [3, 5])])
def layer_norm(
    b: Builder,
    x: Value,
    shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    axes = range(x.ndim - len(shape), x.ndim)
    c = centre(b, x, axes)
    return affine(b, b.mul(c, inverse_root(b, mean_square(b, c, axes), eps)), weight, bias)


@rule("aten.native_layer_norm.default", samples=lambda t: [(t(2, 3, 5), [5], t(5), t(5), 1e-5)])
def native_layer_norm(
    b: Builder, x: Value, shape: Sequence[int], weight: Value | None, bias: Value | None, eps: float
) -> tuple[Value, ...]:
    axes = range(x.ndim - len(shape), x.ndim)
    c = centre(b, x, axes)
    r = inverse_root(b, mean_square(b, c, axes), eps)
    return affine(b, b.mul(c, r), weight, bias), b.sum(x, list(axes), keepdim=True, mean=True), r


@rule("aten.rms_norm.default", samples=lambda t: [(t(2, 3, 5), [5], t(5), 1e-6), (t(2, 5), [5], None, 1e-6)])
def rms_norm(
    b: Builder, x: Value, shape: Sequence[int], weight: Value | None = None, eps: float | None = None
) -> Value:
    axes = range(x.ndim - len(shape), x.ndim)
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    return affine(b, b.mul(x, inverse_root(b, mean_square(b, x, axes), eps)), weight, None)


@rule("aten._fused_rms_norm.default", samples=lambda t: [(t(2, 5), [5], t(5), 1e-6)])
def fused_rms_norm(
    b: Builder, x: Value, shape: Sequence[int], weight: Value | None, eps: float | None
) -> tuple[Value, Value]:
    axes = range(x.ndim - len(shape), x.ndim)
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    return rms_norm(b, x, shape, weight, eps), inverse_root(b, mean_square(b, x, axes), eps)


@rule("aten.group_norm.default", samples=lambda t: [(t(2, 4, 3), 2, t(4), t(4))])
def group_norm(
    b: Builder,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    shape = x.shape
    x = b.reshape(x, [shape[0], groups, shape[1] // groups, *shape[2:]])
    axes = range(2, x.ndim)
    c = centre(b, x, axes)
    y = b.reshape(b.mul(c, inverse_root(b, mean_square(b, c, axes), eps)), shape)
    return affine(b, y, *(per_channel(b, p, y) for p in (weight, bias)))


@rule("aten.native_group_norm.default", samples=lambda t: [(t(2, 4, 3), t(4), t(4), 2, 4, 3, 2, 1e-5)])
def native_group_norm(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[Value, ...]:
    shape = x.shape
    grouped = b.reshape(x, [shape[0], groups, prod(shape[1:]) // groups])
    centred = centre(b, grouped, [2])
    r = inverse_root(b, mean_square(b, centred, [2]), eps)
    y = b.reshape(b.mul(centred, r), shape)
    y = affine(b, y, *(per_channel(b, p, y) for p in (weight, bias)))
    return y, b.sum(grouped, [2], mean=True), b.squeeze(r, [2])


def per_channel(b: Builder, p: Value | None, x: Value) -> Value | None:
    return None if p is None else b.reshape(p, [p.numel, *[1] * (x.ndim - 2)])


@rule(
    "aten.instance_norm.default",
    samples=lambda t: [
        (t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, True, 0.1, 1e-5, False),
        (t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, False, 0.1, 1e-5, False),
    ],
    statistics=(3, 4),
)
def instance_norm(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    use_input: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Value:
    if not use_input and mean is not None and var is not None:
        return _fixed(b, x, weight, bias, mean, var, eps)
    axes = range(2, x.ndim)
    c = centre(b, x, axes)
    y = b.mul(c, inverse_root(b, mean_square(b, c, axes), eps))
    return affine(b, y, per_channel(b, weight, y), per_channel(b, bias, y))


def _fixed(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, eps: float
) -> Value:
    """gamma (x - mean) / sqrt(var + eps) + beta with stored statistics."""
    c = b.add([x, per_channel(b, mean, x)], [1.0, -1.0])  # type: ignore[list-item]
    y = b.mul(c, per_channel(b, inverse_root(b, var, eps), x))  # type: ignore[arg-type]
    return affine(b, y, per_channel(b, weight, x), per_channel(b, bias, x))


def _batch(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    """Statistics of the batch, and the running ones that follow them."""
    axes = [0, *range(2, x.ndim)]
    count = prod(x.shape[a] for a in axes)
    c = centre(b, x, axes)
    power = mean_square(b, c, axes)
    r = inverse_root(b, power, eps)
    y = affine(b, b.mul(c, r), per_channel(b, weight, x), per_channel(b, bias, x))
    m = b.sum(x, axes, mean=True)
    v = b.scale(b.reshape(power, [x.shape[1]]), count / max(1, count - 1))
    new_mean = mean if mean is None else b.add([mean, m], [1 - momentum, momentum])
    new_var = var if var is None else b.add([var, v], [1 - momentum, momentum])
    return y, m, b.reshape(r, [x.shape[1]]), new_mean, new_var  # type: ignore[return-value]


@rule(
    "aten.batch_norm.default",
    samples=lambda t: [
        (t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, True, 0.1, 1e-5, False),
        (t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, False, 0.1, 1e-5, False),
    ],
    statistics=(3, 4),
)
def batch_norm(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value | None,
    var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> Value:
    if training or mean is None or var is None:
        return _batch(b, x, weight, bias, None, None, momentum, eps)[0]
    return _fixed(b, x, weight, bias, mean, var, eps)


@rule(
    "aten._native_batch_norm_legit_no_training.default",
    samples=lambda t: [(t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, 0.1, 1e-5)],
    statistics=(3, 4),
)
def batch_norm_eval(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, mean: Value, var: Value, momentum: float, eps: float
) -> tuple[Value, ...]:
    none = b.zeros([0])
    return _fixed(b, x, weight, bias, mean, var, eps), none, none


@rule(
    "aten._native_batch_norm_legit.default",
    "aten.native_batch_norm.default",
    samples=lambda t: [
        (t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, True, 0.1, 1e-5),
        (t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, False, 0.1, 1e-5),
    ],
    statistics=(3, 4),
)
def batch_norm_in_place(b: Builder, *args: Any) -> tuple[Value, ...]:
    return batch_norm_train(b, *args)[:3]


@rule(
    "aten._native_batch_norm_legit_functional.default",
    samples=lambda t: [(t(2, 3, 2), t(3), t(3), t(3), t(3).abs() + 0.5, True, 0.1, 1e-5)],
    statistics=(3, 4),
)
def batch_norm_train(
    b: Builder,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    mean: Value,
    var: Value,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, ...]:
    if not training:
        return _fixed(b, x, weight, bias, mean, var, eps), b.zeros([0]), b.zeros([0]), mean, var
    return _batch(b, x, weight, bias, mean, var, momentum, eps)


@rule("aten._native_batch_norm_legit.no_stats", samples=lambda t: [(t(2, 3, 2), t(3), t(3), True, 0.1, 1e-5)])
def batch_norm_no_stats(
    b: Builder, x: Value, weight: Value | None, bias: Value | None, training: bool, momentum: float, eps: float
) -> tuple[Value, ...]:
    return _batch(b, x, weight, bias, None, None, momentum, eps)[:3]


@rule("aten._weight_norm.default", samples=lambda t: [(t(4, 5), t(4, 1), 0)])
def weight_norm(b: Builder, v: Value, g: Value, axis: int = 0) -> Value:
    axes = [i for i in range(v.ndim) if i != axis % v.ndim]
    return b.mul(b.mul(v, inverse_root(b, mean_square(b, v, axes, count=1.0), 0.0)), g)


@rule("aten._weight_norm_interface.default", samples=lambda t: [(t(4, 5), t(4, 1), 0)])
def weight_norm_interface(b: Builder, v: Value, g: Value, axis: int = 0) -> tuple[Value, ...]:
    axes = [i for i in range(v.ndim) if i != axis % v.ndim]
    root = b.pointwise("aten.sqrt.default", keyed("aten.sqrt.default"), mean_square(b, v, axes, count=1.0), degree=0.5)
    return weight_norm(b, v, g, axis), root
