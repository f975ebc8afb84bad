"""Operators that move the entries of an index: the same on its one-hot rows, whose last axis stays last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules import axes as ax
from regauge.rules.indexing import Index
from regauge.rules.registry import Rule

Move = Callable[..., Any]
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _reshape(b: Builder, i: Index, shape: Sequence[int]) -> Value:
    shape = list(shape)
    if -1 in shape:
        shape[shape.index(-1)] = prod(i.shape) // max(1, -prod(shape))
    return b.reshape(i.onehot, [*shape, i.onehot.shape[-1]])


def _expand(b: Builder, i: Index, shape: Sequence[int], **_: Any) -> Value:
    return b.expand(i.onehot, [*shape, i.onehot.shape[-1]])


def _same(b: Builder, i: Index, *_: Any, **__: Any) -> Value:
    return i.onehot


def _along(rule: Move, count: int = 1, grows: int = 0) -> Move:
    """A rule whose first `count` numbers are axes, counted from the right without the one-hot axis."""

    def move(b: Builder, i: Index, *args: Any, **kwargs: Any) -> Any:
        ndim = i.ndim + grows
        moved = [a % max(1, ndim) for a in args[:count]] or [0]
        return rule(b, i.onehot, *moved, *args[count:], **kwargs)

    return move


def _squeeze(b: Builder, i: Index, axes: Any = None) -> Value:
    drop = range(i.ndim) if axes is None else [a % i.ndim for a in ([axes] if isinstance(axes, int) else axes)]
    return b.squeeze(i.onehot, list(drop))


def _permute(b: Builder, i: Index, order: Sequence[int]) -> Value:
    return b.permute(i.onehot, [*(o % i.ndim for o in order), i.ndim])


def _flatten(b: Builder, i: Index, start: int = 0, end: int = -1) -> Value:
    return ax.flatten(b, i.onehot, start % i.ndim, end % i.ndim)


def _interleave(b: Builder, i: Index, count: int, axis: int | None = None, **_: Any) -> Value:
    if axis is None:
        return ax.repeat_interleave(b, _reshape(b, i, [-1]), count, 0)
    return ax.repeat_interleave(b, i.onehot, count, axis % i.ndim)


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
    """Lower one operator whose operands may be indices: moved as one-hot rows, read as such, or else as numbers."""
    flat, spec = torch.utils._pytree.tree_flatten((args, kwargs))
    if not any(isinstance(x, Index) for x in flat):
        return known.lower(b, *args, **kwargs)
    name = known.operator.removeprefix("aten.")
    if name in MOVES and isinstance(args[0], Index):
        return Index(MOVES[name](b, *args, **kwargs))
    if name in ("_to_copy.default", "to.dtype") and (kwargs.get("dtype") or (args[1:] or [None])[0]) in (None, *INTEGERS):
        return args[0]
    if known.indices:
        return known.lower(b, *args, **kwargs)
    args, kwargs = torch.utils._pytree.tree_unflatten([x.numbers(b) if isinstance(x, Index) else x for x in flat], spec)
    return known.lower(b, *args, **kwargs)
