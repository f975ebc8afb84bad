"""Operators on indices and complex numbers: what moves entries moves one-hot rows and pairs, whose last axis stays last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules import axes as ax
from regauge.rules.complex import Complex, multiply
from regauge.rules.indexing import Index
from regauge.rules.registry import Rule

Move = Callable[..., Any]
Packed = Index | Complex  # one more axis than the model sees
JOINS = ("cat.default", "concat.default", "concatenate.default", "stack.default")
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _reshape(b: Builder, i: Packed, shape: Sequence[int]) -> Value:
    shape = list(shape)
    if -1 in shape:
        shape[shape.index(-1)] = prod(i.shape) // max(1, -prod(shape))
    return b.reshape(i.inner, [*shape, i.inner.shape[-1]])


def _expand(b: Builder, i: Packed, shape: Sequence[int], **_: Any) -> Value:
    return b.expand(i.inner, [*shape, i.inner.shape[-1]])


def _same(b: Builder, i: Packed, *_: Any, **__: Any) -> Value:
    return i.inner


def _along(rule: Move, count: int = 1, grows: int = 0) -> Move:
    """A rule whose first `count` numbers are axes, counted from the right without the one-hot axis."""

    def move(b: Builder, i: Packed, *args: Any, **kwargs: Any) -> Any:
        ndim = i.ndim + grows
        moved = [a % max(1, ndim) for a in args[:count]] or [0]
        return rule(b, i.inner, *moved, *args[count:], **kwargs)

    return move


def _squeeze(b: Builder, i: Packed, axes: Any = None) -> Value:
    drop = range(i.ndim) if axes is None else [a % i.ndim for a in ([axes] if isinstance(axes, int) else axes)]
    return b.squeeze(i.inner, list(drop))


def _permute(b: Builder, i: Packed, order: Sequence[int]) -> Value:
    return b.permute(i.inner, [*(o % i.ndim for o in order), i.ndim])


def _flatten(b: Builder, i: Packed, start: int = 0, end: int = -1) -> Value:
    return ax.flatten(b, i.inner, start % i.ndim, end % i.ndim)


def _interleave(b: Builder, i: Packed, count: int, axis: int | None = None, **_: Any) -> Value:
    if axis is None:
        return ax.repeat_interleave(b, _reshape(b, i, [-1]), count, 0)
    return ax.repeat_interleave(b, i.inner, count, axis % i.ndim)


def _joined(b: Builder, parts: Sequence[Packed], dim: int = 0, *, stacked: bool) -> Packed | None:
    """Parts one after another, or side by side; indices only if they count the same places."""
    if len({x.inner.shape[-1] for x in parts}) > 1:
        return None
    axis = dim % (parts[0].ndim + stacked)
    inner = [x.inner for x in parts]
    return type(parts[0])(b.stack(inner, axis) if stacked else b.concat(inner, axis))


MOVES: dict[str, Move] = {
    **dict.fromkeys(("view.default", "reshape.default", "_unsafe_view.default"), _reshape),
    **dict.fromkeys(("clone.default", "alias.default", "detach.default", "contiguous.default"), _same),
    "expand.default": _expand,
    "unsqueeze.default": _along(ax.unsqueeze, grows=1),
    "transpose.int": _along(ax.transpose, 2),
    "select.int": _along(ax.select),
    "slice.Tensor": _along(ax.slice_),
    **dict.fromkeys(("squeeze.dim", "squeeze.dims", "squeeze.default"), _squeeze),
    "permute.default": _permute,
    "flatten.using_ints": _flatten,
    "repeat_interleave.self_int": _interleave,
}


def call(known: Rule, b: Builder, args: Any, kwargs: Any) -> Any:
    """Lower one operator whose operands may be indices or complex: moved as one-hot rows or pairs, read as such, or else
    (indices only) as numbers."""
    flat, spec = torch.utils._pytree.tree_flatten((args, kwargs))
    packed = [x for x in flat if isinstance(x, Packed)]
    if not packed:
        return known.lower(b, *args, **kwargs)
    name = known.operator.removeprefix("aten.")
    if name in MOVES and isinstance(args[0], Packed):
        return type(args[0])(MOVES[name](b, *args, **kwargs))
    if name in JOINS and all(isinstance(x, type(packed[0])) for x in args[0]):
        joined = _joined(b, *args, stacked=name == "stack.default", **kwargs)
        if joined is not None:
            return joined
    if any(isinstance(x, Complex) for x in packed):
        if name in ("mul.Tensor", "mul.Scalar"):
            return multiply(b, *args)
        if name == "view_as_real.default":
            return known.lower(b, *args)
        raise NotImplementedError("an operator on complex numbers that depend on parameters")
    if name in ("_to_copy.default", "to.dtype") and (kwargs.get("dtype") or (args[1:] or [None])[0]) in (
        None,
        *INTEGERS,
    ):
        return args[0]
    if known.indices:
        return known.lower(b, *args, **kwargs)
    args, kwargs = torch.utils._pytree.tree_unflatten([x.numbers(b) if isinstance(x, Index) else x for x in flat], spec)
    return known.lower(b, *args, **kwargs)
