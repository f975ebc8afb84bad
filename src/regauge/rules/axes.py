"""Operators that move, cut and join axes, and those that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Value
from regauge.rules.registry import rule


@rule("aten.clone.default", "aten.alias.default", "aten.detach.default", "aten.detach_.default", "aten.contiguous.default",
      "aten.lift_fresh_copy.default", "aten.positive.default", samples=lambda t: [(t(3, 5),)])  # fmt: skip
def identity(b: Builder, x: Value, *_: Any, **__: Any) -> Value:
    return x


@rule("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.view_copy.default", "aten._reshape_copy.default",
      samples=lambda t: [(t(3, 8), [3, 2, 4])])  # fmt: skip
def view(b: Builder, x: Value, shape: Sequence[int]) -> Value:
    return b.reshape(x, shape)


@rule("aten.flatten.using_ints", samples=lambda t: [(t(3, 2, 4), 1)])
def flatten(b: Builder, x: Value, start: int = 0, end: int = -1) -> Value:
    start, end = start % max(1, x.ndim), end % max(1, x.ndim)
    return b.reshape(x, [*x.shape[:start], prod(x.shape[start : end + 1]), *x.shape[end + 1 :]])


@rule("aten.unflatten.int", samples=lambda t: [(t(3, 8), 1, [2, 4])])
def unflatten(b: Builder, x: Value, axis: int, sizes: Sequence[int]) -> Value:
    axis = axis % x.ndim
    sizes = list(sizes)
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[axis] // -prod(sizes)
    return b.reshape(x, [*x.shape[:axis], *sizes, *x.shape[axis + 1 :]])


@rule("aten.transpose.int", samples=lambda t: [(t(3, 5), 0, 1)])
def transpose(b: Builder, x: Value, a: int, c: int) -> Value:
    return b.transpose(x, a % x.ndim, c % x.ndim)


@rule("aten.t.default", "aten.numpy_T.default", "aten.mT.default", samples=lambda t: [(t(3, 5),)])
def matrix_transpose(b: Builder, x: Value) -> Value:
    return x if x.ndim < 2 else b.transpose(x, x.ndim - 2, x.ndim - 1)


@rule("aten.permute.default", samples=lambda t: [(t(2, 3, 4), [2, 0, 1])])
def permute(b: Builder, x: Value, order: Sequence[int]) -> Value:
    return b.permute(x, list(order))


@rule("aten.movedim.int", samples=lambda t: [(t(2, 3, 4), 0, 2)])
@rule("aten.movedim.intlist", samples=lambda t: [(t(2, 3, 4), [0, 2], [1, 0])])
def movedim(b: Builder, x: Value, source: Any, destination: Any) -> Value:
    shape = list(range(1, x.ndim + 1))  # sizes that tell the axes apart
    moved = torch.movedim(torch.empty(shape, device="meta"), source, destination)
    return b.permute(x, [n - 1 for n in moved.shape])


@rule("aten.expand.default", samples=lambda t: [(t(3, 1), [3, 5])])
def expand(b: Builder, x: Value, shape: Sequence[int], **_: Any) -> Value:
    return b.expand(x, shape)


@rule("aten.expand_as.default", samples=lambda t: [(t(3, 1), t(3, 5))])
def expand_as(b: Builder, x: Value, other: Value) -> Value:
    return b.expand(x, other.shape)


@rule("aten.unsqueeze.default", samples=lambda t: [(t(3, 5), 1)])
def unsqueeze(b: Builder, x: Value, axis: int) -> Value:
    return b.unsqueeze(x, axis)


@rule("aten.squeeze.dim", samples=lambda t: [(t(3, 1, 5), 1), (t(3, 5), 1)])
@rule("aten.squeeze.dims", samples=lambda t: [(t(3, 1, 5, 1), [1, 3])])
@rule("aten.squeeze.default", samples=lambda t: [(t(3, 1, 5, 1),)])
def squeeze(b: Builder, x: Value, axes: Any = None) -> Value:
    return b.squeeze(x, [axes] if isinstance(axes, int) else axes)


@rule("aten.slice.Tensor", samples=lambda t: [(t(3, 8), 1, 2, 6), (t(3, 8), 1, 0, 8, 2)])
def slice_(
    b: Builder, x: Value, axis: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    n = x.shape[axis]
    return b.slice(x, axis, start or 0, n if stop is None else min(stop, n), step)


@rule("aten.narrow.default", samples=lambda t: [(t(3, 8), 1, 2, 4)])
def narrow(b: Builder, x: Value, axis: int, start: int, length: int) -> Value:
    return b.slice(x, axis, start, start + length)


@rule("aten.select.int", samples=lambda t: [(t(3, 5), 1, 2)])
def select(b: Builder, x: Value, axis: int, index: int) -> Value:
    return b.select(x, axis, index)


@rule("aten.split_with_sizes.default", "aten.split.sizes", samples=lambda t: [(t(3, 8), [3, 5], 1)])
def split_with_sizes(b: Builder, x: Value, sizes: Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(b.slice(x, axis, e - n, e) for e, n in zip(ends, sizes, strict=True))


@rule("aten.split.Tensor", samples=lambda t: [(t(3, 8), 4, 1)])
def split(b: Builder, x: Value, size: int, axis: int = 0) -> tuple[Value, ...]:
    n = x.shape[axis]
    return tuple(b.slice(x, axis, i, min(i + size, n)) for i in range(0, n, size))


@rule("aten.chunk.default", samples=lambda t: [(t(3, 8), 2, 1)])
def chunk(b: Builder, x: Value, count: int, axis: int = 0) -> tuple[Value, ...]:
    return split(b, x, -(-x.shape[axis] // count), axis)


@rule("aten.unbind.int", samples=lambda t: [(t(3, 5), 0)])
def unbind(b: Builder, x: Value, axis: int = 0) -> tuple[Value, ...]:
    return tuple(b.select(x, axis, i) for i in range(x.shape[axis]))


@rule(
    "aten.cat.default", "aten.concat.default", "aten.concatenate.default", samples=lambda t: [([t(3, 2), t(3, 4)], 1)]
)
def cat(b: Builder, xs: Sequence[Value], axis: int = 0) -> Value:
    xs = [x for x in xs if x.shape != (0,)]
    return b.concat(xs, axis)


@rule("aten.stack.default", samples=lambda t: [([t(3, 2), t(3, 2)], 1)])
def stack(b: Builder, xs: Sequence[Value], axis: int = 0) -> Value:
    return b.stack(xs, axis)


@rule("aten.repeat.default", samples=lambda t: [(t(3, 5), [2, 1, 2])])
def repeat(b: Builder, x: Value, counts: Sequence[int]) -> Value:
    shape = [1] * (len(counts) - x.ndim) + list(x.shape)
    y = b.reshape(x, [m for n in shape for m in (1, n)])
    y = b.expand(y, [m for c, n in zip(counts, shape, strict=True) for m in (c, n)])
    return b.reshape(y, [c * n for c, n in zip(counts, shape, strict=True)])


@rule("aten.repeat_interleave.self_int", samples=lambda t: [(t(3, 5), 2, 1)])
def repeat_interleave(b: Builder, x: Value, count: int, axis: int | None = None, **_: Any) -> Value:
    if axis is None:
        x, axis = b.reshape(x, [x.numel]), 0
    axis = axis % x.ndim
    y = b.unsqueeze(x, axis + 1)
    y = b.expand(y, [*x.shape[: axis + 1], count, *x.shape[axis + 1 :]])
    return b.reshape(y, [*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :]])


@rule("aten.constant_pad_nd.default", samples=lambda t: [(t(3, 5), [1, 2]), (t(3, 5), [0, -1, 1, 0])])
def constant_pad(b: Builder, x: Value, pads: Sequence[int], value: float = 0.0) -> Value:
    for i in range(len(pads) // 2):
        axis = x.ndim - 1 - i
        left, right = pads[2 * i], pads[2 * i + 1]
        x = b.slice(x, axis, max(0, -left), x.shape[axis] - max(0, -right))
        parts = []
        for n in (left, right):
            shape = [max(0, n) if a == axis else m for a, m in enumerate(x.shape)]
            parts.append(b.expand(b.constant(float(value)), shape))
        x = b.concat([parts[0], x, parts[1]], axis)
    return x


@rule("aten.pad.default", samples=lambda t: [(t(3, 5), [1, 2])])
def pad(b: Builder, x: Value, pads: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    if mode == "constant":
        return constant_pad(b, x, pads, value or 0.0)
    axes = [x.ndim - 1 - i for i in range(len(pads) // 2)]
    sizes = [x.shape[a] + pads[2 * i] + pads[2 * i + 1] for i, a in enumerate(axes)]
    fn = lambda x: torch.nn.functional.pad(x, list(pads), mode)  # noqa: E731
    return b.along("pad", fn, x, axes, out_axes=axes, sizes=sizes, linear=True)


@rule("aten.flip.default", samples=lambda t: [(t(3, 5), [0])])
def flip(b: Builder, x: Value, axes: Sequence[int]) -> Value:
    return b.along("flip", lambda x: x.flip(list(axes)), x, axes, linear=True, constants=True)


@rule("aten.roll.default", samples=lambda t: [(t(3, 5), [1], [0]), (t(3, 5), [2])])
def roll(b: Builder, x: Value, shifts: Sequence[int], axes: Sequence[int] = ()) -> Value:
    over = axes or range(x.ndim)  # without axes the entries are rolled in one row
    return b.along("roll", lambda x: x.roll(list(shifts), list(axes)), x, over, linear=True, constants=True)


@rule("aten.slice_scatter.default", samples=lambda t: [(t(3, 8), t(3, 2), 1, 3, 5)])
def slice_scatter(
    b: Builder, x: Value, y: Value, axis: int = 0, start: int | None = None, stop: int | None = None, step: int = 1
) -> Value:
    axis, n = axis % x.ndim, x.shape[axis % x.ndim]
    start = start or 0
    start = start + n if start < 0 else start
    stop = n if stop is None else min(n, stop + n if stop < 0 else stop)
    if step == 1:
        return b.concat([b.slice(x, axis, 0, start), y, b.slice(x, axis, stop, n)], axis)
    rows = {start + i * step: i for i in range(y.shape[axis])}
    return b.concat(
        [b.slice(y, axis, rows[i], rows[i] + 1) if i in rows else b.slice(x, axis, i, i + 1) for i in range(n)], axis
    )


@rule("aten.select_scatter.default", samples=lambda t: [(t(3, 5), t(3), 1, 2)])
def select_scatter(b: Builder, x: Value, y: Value, axis: int, index: int) -> Value:
    index = index % x.shape[axis]
    return slice_scatter(b, x, b.unsqueeze(y, axis % x.ndim), axis, index, index + 1)


@rule("aten.copy.default", samples=lambda t: [(t(3, 5), t(3, 5))])
def copy(b: Builder, x: Value, y: Value, *_: Any) -> Value:
    return b.expand(y, x.shape)


@rule("aten.zeros_like.default", samples=lambda t: [(t(3, 5),)])
def zeros_like(b: Builder, x: Value, **_: Any) -> Value:
    return b.zeros(x.shape)


@rule("aten.new_zeros.default", samples=lambda t: [(t(3, 5), [2, 4])])
def new_zeros(b: Builder, x: Value, shape: Sequence[int], **_: Any) -> Value:
    return b.zeros(shape)


@rule("aten.new_empty.default", samples=lambda t: [(t(3, 5), [0, 4])])
def new_empty(b: Builder, x: Value, shape: Sequence[int], **_: Any) -> Value:
    """Entries that nobody has written may hold anything: zeros."""
    return b.zeros(shape)


@rule("aten.empty_like.default", samples=lambda t: [(t(3, 0),)])
def empty_like(b: Builder, x: Value, **_: Any) -> Value:
    return b.zeros(x.shape)


@rule("aten.ones_like.default", samples=lambda t: [(t(3, 5),)])
def ones_like(b: Builder, x: Value, **_: Any) -> Value:
    return b.expand(b.constant(1.0), x.shape)


@rule("aten.new_ones.default", samples=lambda t: [(t(3, 5), [2, 4])])
def new_ones(b: Builder, x: Value, shape: Sequence[int], **_: Any) -> Value:
    return b.expand(b.constant(1.0), shape)


@rule("aten.full_like.default", samples=lambda t: [(t(3, 5), 0.5)])
def full_like(b: Builder, x: Value, value: float, **_: Any) -> Value:
    return b.expand(b.constant(float(value)), x.shape)


@rule("aten.fill.Scalar", samples=lambda t: [(t(3, 5), 0.5)])
@rule("aten.fill.Tensor", samples=lambda t: [(t(3, 5), t(1)[0])])
def fill(b: Builder, x: Value, value: float | Value) -> Value:
    return b.expand(value if isinstance(value, Value) else b.constant(float(value)), x.shape)


@rule("aten.new_full.default", samples=lambda t: [(t(3, 5), [2, 4], 0.5)])
def new_full(b: Builder, x: Value, shape: Sequence[int], value: float, **_: Any) -> Value:
    return b.expand(b.constant(float(value)), shape)


@rule("aten.unfold.default", samples=lambda t: [(t(3, 8), 1, 3, 2)])
def unfold(b: Builder, x: Value, axis: int, size: int, step: int) -> Value:
    axis = axis % x.ndim
    count = (x.shape[axis] - size) // step + 1
    fn = lambda x: x.unfold(axis, size, step)  # noqa: E731
    return b.along("unfold", fn, x, [axis], out_axes=[axis, x.ndim], sizes=[count, size], linear=True)


@rule("aten.pixel_shuffle.default", samples=lambda t: [(t(2, 8, 3, 3), 2)])
def pixel_shuffle(b: Builder, x: Value, r: int) -> Value:
    *lead, c, h, w = x.shape
    y = b.reshape(x, [*lead, c // (r * r), r, r, h, w])
    n = len(lead)
    y = b.permute(y, [*range(n), n, n + 3, n + 1, n + 4, n + 2])
    return b.reshape(y, [*lead, c // (r * r), h * r, w * r])
