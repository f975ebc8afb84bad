"""Builds core graphs: the verbs that rules are written in. Equal expressions become one value (hash consing)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from regauge.graph.ir import (
    Add,
    Along,
    Concat,
    Einsum,
    Free,
    Frozen,
    Graph,
    Mix,
    Op,
    Param,
    Pointwise,
    Reshape,
    Slice,
    Source,
    Value,
    evaluate,
    labels_of,
)


class Builder:
    """Collects values. Every verb takes and returns values; shapes broadcast as in PyTorch, from the right."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.source = Source()
        self._known: dict[object, Value] = {}
        self._repeated: dict[int, frozenset[int]] = {}

    # -- leaves ---------------------------------------------------------------------------------------------------

    def param(self, name: str, shape: Sequence[int], statistic: bool = False) -> Value:
        return self._make(Param(name, statistic=statistic), (), shape, learned=True, data=False)

    def free(
        self,
        key: str,
        shape: Sequence[int],
        thunk: Callable[[], Tensor],
        data: bool = False,
        total: tuple[int, float] | None = None,
        reach: tuple[int, int] | None = None,
        repeated: frozenset[int] = frozenset(),
        marks: tuple[tuple[str, int], ...] = (),
        among: tuple[int, ...] = (),
        misses: tuple[int, ...] = (),
    ) -> Value:
        """A value without parameters above it; repeated: axes over which it was expanded, whatever the input."""
        op = Free(key, thunk, data, total, reach, marks, among, misses)
        value = self._make(op, (), shape, learned=False, data=data)
        self._repeated[value.id] = repeated
        return value

    def constant(self, tensor: Tensor | float) -> Value:
        tensor = torch.as_tensor(tensor, dtype=torch.float64) if isinstance(tensor, float | int) else tensor
        key = f"const:{tensor.item()!r}" if tensor.ndim == 0 else f"const:{id(tensor)}:{len(self.values)}"
        return self.free(key, tensor.shape, lambda: tensor)

    # -- labelled axes --------------------------------------------------------------------------------------------

    def einsum(
        self, ins: Sequence[Sequence[int]], out: Sequence[int], *xs: Value, sizes: dict[int, int] | None = None
    ) -> Value:
        size = dict(sizes or {})
        for labels, x in zip(ins, xs, strict=True):
            size.update(zip(labels, x.shape, strict=True))
        return self.op(Einsum(tuple(map(tuple, ins)), tuple(out)), xs, [size[l] for l in out])

    def contract(self, x: Value, y: Value, axes_x: Sequence[int], axes_y: Sequence[int], batch: int = 0) -> Value:
        """Sum over paired axes; the first `batch` axes of both run together; rest of x, then rest of y."""
        lx = list(range(x.ndim))
        ly = list(range(batch)) + [100 + i for i in range(batch, y.ndim)]
        for a, c in zip(axes_x, axes_y, strict=True):
            ly[c % y.ndim] = lx[a % x.ndim]
        summed = {lx[a % x.ndim] for a in axes_x}
        out = [l for l in lx if l not in summed] + [l for l in ly if l >= 100]
        return self.einsum([lx, ly], out, x, y)

    def mul(self, *xs: Value) -> Value:
        ins, out, shape = self._broadcast(xs)
        return self.op(Einsum(ins, out), xs, shape)

    def add(self, xs: Sequence[Value], coefs: Sequence[float] | None = None) -> Value:
        ins, out, shape = self._broadcast(xs)
        coefs = tuple(float(c) for c in (coefs or [1.0] * len(xs)))
        if len(xs) == 1 and coefs == (1.0,):
            return xs[0]
        return self.op(Add(coefs, ins, out), xs, shape)

    def scale(self, x: Value, c: float) -> Value:
        return x if c == 1.0 else self.add([x], [c])

    def pointwise(
        self,
        name: str,
        fn: Callable[..., Tensor],
        *xs: Value,
        degree: float | None = None,
        parity: str = "",
        fixed: Sequence[int] = (),
        linear: bool = False,
    ) -> Value:
        ins, out, shape = self._broadcast(xs)
        return self.op(Pointwise(name, fn, ins, out, degree, parity, tuple(fixed), linear), xs, shape)

    def along(
        self,
        name: str,
        fn: Callable[..., Tensor],
        x: Value,
        axes: Sequence[int],
        *,
        out_axes: Sequence[int] | None = None,
        sizes: Sequence[int] | None = None,
        linear: bool = False,
        degree: float | None = None,
        parity: str = "",
        equivariant: bool = False,
        blind: bool = False,
        total: float | None = None,
        constants: bool = False,
        choice: bool = False,
    ) -> Value:
        """A function along `axes` of x. Without `sizes` the shape stays; else those axes are removed and the new axes
        `out_axes` (positions in the result) of the given sizes appear."""
        axes = [a % x.ndim for a in axes]
        lx = tuple(range(x.ndim))
        if linear:
            degree, parity = 1.0, "odd"
        if sizes is None:
            out, shape, touched = lx, x.shape, frozenset(axes)
        else:
            rest = [l for l in lx if l not in axes]
            ndim = len(rest) + len(sizes)
            new = {p % ndim: 100 + k for k, p in enumerate(out_axes or ())}
            it = iter(rest)
            out = tuple(new[p] if p in new else next(it) for p in range(ndim))
            size = dict(zip(lx, x.shape, strict=True)) | {100 + k: n for k, n in enumerate(sizes)}
            shape, touched = tuple(size[l] for l in out), frozenset(axes) | frozenset(new.values())
        op = Along(name, fn, (lx,), out, touched, linear, degree, parity, equivariant, blind, total, constants, choice)
        return self.op(op, (x,), shape)

    # -- axis bookkeeping -----------------------------------------------------------------------------------------

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        order = [o % x.ndim for o in order]
        return x if order == list(range(x.ndim)) else self.einsum([range(x.ndim)], order, x)

    def transpose(self, x: Value, a: int, b: int) -> Value:
        order = list(range(x.ndim))
        order[a], order[b] = order[b], order[a]
        return self.permute(x, order)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        shape = list(shape)
        lead = len(shape) - x.ndim
        shape = [x.shape[i - lead] if n == -1 else n for i, n in enumerate(shape)]
        if tuple(shape) == x.shape:
            return x
        ins = [lead + i if x.shape[i] == shape[lead + i] else 1000 + i for i in range(x.ndim)]
        return self.einsum([ins], range(len(shape)), x, sizes=dict(enumerate(shape)))

    def repeated(self, x: Value) -> frozenset[int]:
        """Axes over which a value was expanded, whatever the input."""
        return self._repeated.get(x.id, frozenset())

    def unrepeated(self, x: Value, axis: int) -> Value:
        """A value without an axis along which it repeats itself; what is known of constants and inputs stays known."""
        if not isinstance(x.op, Free) or x.op.total is None or x.op.total[0] == axis:
            return self.select(x, axis, 0)
        op, thunk, (last, total) = x.op, x.op.thunk, x.op.total
        shape = [n for a, n in enumerate(x.shape) if a != axis]
        repeated = frozenset(a - (a > axis) for a in self.repeated(x) if a != axis)
        known = (last - (last > axis), total), op.reach, repeated, op.marks, op.among
        return self.free(f"{op.key} once along {axis}", shape, lambda: thunk().select(axis, 0), op.data, *known)

    def sum(self, x: Value, axes: Sequence[int], keepdim: bool = False, mean: bool = False) -> Value:
        axes = [a % x.ndim for a in axes] if axes else list(range(x.ndim))
        out = [i for i in range(x.ndim) if i not in axes]
        y = self.einsum([range(x.ndim)], out, x)
        if mean:
            y = self.scale(y, 1.0 / prod(x.shape[a] for a in axes))
        return self.reshape(y, [1 if i in axes else n for i, n in enumerate(x.shape)]) if keepdim else y

    def centre(self, x: Value, axes: Sequence[int]) -> Value:
        """x minus its mean over the axes."""
        axes = sorted(a % x.ndim for a in axes)

        def fn(x: Tensor) -> Tensor:
            return x - x.mean(axes, keepdim=True)

        fn.__regauge_key__ = ("centre", tuple(axes))  # type: ignore[attr-defined]
        return self.along("centre", fn, x, axes, linear=True, equivariant=True, blind=True, total=0.0)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        shape = list(shape)
        if -1 in shape:
            shape[shape.index(-1)] = x.numel // max(1, -prod(shape))
        if tuple(shape) == x.shape:
            return x
        if isinstance(x.op, Reshape):
            return self.reshape(x.args[0], shape)
        return self.op(Reshape(), (x,), shape)

    def unsqueeze(self, x: Value, axis: int) -> Value:
        axis = axis % (x.ndim + 1)
        return self.reshape(x, [*x.shape[:axis], 1, *x.shape[axis:]])

    def squeeze(self, x: Value, axes: Sequence[int] | None = None) -> Value:
        drop = range(x.ndim) if axes is None else [a % x.ndim for a in axes]
        return self.reshape(x, [n for i, n in enumerate(x.shape) if not (i in drop and n == 1)])

    def slice(self, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        axis, n = axis % x.ndim, x.shape[axis % x.ndim]
        start = max(0, min(n, start + n if start < 0 else start))
        stop = max(start, min(n, stop + n if stop < 0 else stop))
        if step != 1:
            return self._strided(x, axis, start, stop, step)
        if (start, stop) == (0, n):
            return x
        shape = [stop - start if i == axis else m for i, m in enumerate(x.shape)]
        return self.op(Slice(axis, start), (x,), shape)

    def _strided(self, x: Value, axis: int, start: int, stop: int, step: int) -> Value:
        """Every step-th entry: as a slice of a finer axis where the sizes allow, else entry by entry."""
        n = x.shape[axis]
        count = len(range(start, stop, step))
        if n % step == 0 and start < step and count == n // step:
            y = self.reshape(x, [*x.shape[:axis], n // step, step, *x.shape[axis + 1 :]])
            y = self.slice(y, axis + 1, start, start + 1)
            return self.reshape(y, [*x.shape[:axis], n // step, *x.shape[axis + 1 :]])
        return self.concat([self.slice(x, axis, i, i + 1) for i in range(start, stop, step)], axis)

    def select(self, x: Value, axis: int, index: int) -> Value:
        axis, n = axis % x.ndim, x.shape[axis % x.ndim]
        index = index % n
        return self.squeeze(self.slice(x, axis, index, index + 1), [axis])

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        axis = axis % xs[0].ndim
        xs = [x for x in xs if x.shape[axis] > 0]
        if len(xs) == 1:
            return xs[0]
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        return self.op(Concat(axis), tuple(xs), shape)

    def stack(self, xs: Sequence[Value], axis: int) -> Value:
        axis = axis % (xs[0].ndim + 1)
        return self.concat([self.unsqueeze(x, axis) for x in xs], axis)

    def mix(self, x: Value, axis: int, matrix: Tensor, key: str) -> Value:
        return self.op(Mix(axis % x.ndim, matrix, key), (x,), x.shape)

    def frozen(self, name: str, fn: Callable[..., Tensor], xs: Sequence[Value], shape: Sequence[int]) -> Value:
        return self.op(Frozen(name, fn), tuple(xs), shape)

    def zeros(self, shape: Sequence[int]) -> Value:
        return self.expand(self.constant(0.0), shape) if shape else self.constant(0.0)

    # -- inside ---------------------------------------------------------------------------------------------------

    def op(self, op: Op, xs: Sequence[Value], shape: Sequence[int]) -> Value:
        if not any(x.learned for x in xs):
            return self._folded(op, tuple(xs), tuple(shape))
        value = self._make(op, tuple(xs), shape, learned=True, data=any(x.data for x in xs))
        if repeated := self._repeats(op, tuple(xs), value.shape):
            self._repeated[value.id] = repeated
        return value

    def _folded(self, op: Op, xs: tuple[Value, ...], shape: tuple[int, ...]) -> Value:
        key = (_identity(op), tuple(x.id for x in xs), shape)
        if key not in self._known:
            thunk = _memo(lambda: evaluate(op, [x.op.thunk() for x in xs], shape))  # type: ignore[union-attr]
            data, repeated = any(x.data for x in xs), self._repeats(op, xs, shape)
            self._known[key] = self.free(
                f"fold:{len(self.values)}", shape, thunk, data, _total(op, xs), repeated=repeated
            )
        return self._known[key]

    def _repeats(self, op: Op, xs: tuple[Value, ...], shape: tuple[int, ...]) -> frozenset[int]:
        """Axes along which an operation on values that repeat themselves does so too."""
        if isinstance(op, Reshape):
            return self._beside_ones(xs[0], shape)
        given = labels_of(op)
        if given is None or isinstance(op, Along):
            return frozenset()
        ins, out = given
        varying = {
            l for x, labels in zip(xs, ins, strict=True) for a, l in enumerate(labels) if a not in self.repeated(x)
        }
        return frozenset(a for a, l in enumerate(out) if l not in varying and shape[a] > 1)

    def _beside_ones(self, x: Value, shape: tuple[int, ...]) -> frozenset[int]:
        """Those of a view that differs by axes of size 1 alone."""
        old, new = ([a for a, n in enumerate(s) if n > 1] for s in (x.shape, shape))
        if not self.repeated(x) or [x.shape[a] for a in old] != [shape[a] for a in new]:
            return frozenset()
        return frozenset(new[old.index(a)] for a in self.repeated(x) if a in old)

    def _make(self, op: Op, xs: tuple[Value, ...], shape: Sequence[int], learned: bool, data: bool) -> Value:
        key = (_identity(op), tuple(x.id for x in xs), tuple(shape))
        if key not in self._known:
            value = Value(len(self.values), op, xs, tuple(int(n) for n in shape), learned, data, self.source)
            self.values.append(value)
            self._known[key] = value
        return self._known[key]

    def _broadcast(self, xs: Sequence[Value]) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...], list[int]]:
        ndim = max(x.ndim for x in xs)
        shape = [1] * ndim
        for x in xs:
            for i, n in enumerate(x.shape):
                shape[ndim - x.ndim + i] = n if n != 1 else shape[ndim - x.ndim + i]
        ins = tuple(
            tuple(
                p if n == shape[p] else 1000 + 100 * k + i for i, n in enumerate(x.shape) for p in [ndim - x.ndim + i]
            )
            for k, x in enumerate(xs)
        )
        return ins, tuple(range(ndim)), shape


def _total(op: Op, xs: tuple[Value, ...]) -> tuple[int, float] | None:
    """A known sum along one axis, where the operation makes it, keeps it at zero or adds up as many of them."""
    match op:
        case Along(total=float() as total, touched=touched) if len(touched) == 1:
            return op.out.index(next(iter(touched))), total
        case Einsum((labels,), out) if isinstance(xs[0].op, Free) and xs[0].op.total is not None:
            axis, total = xs[0].op.total
            summed = prod(n for l, n in zip(labels, xs[0].shape, strict=True) if l not in out)
            return (
                (out.index(labels[axis]), total * summed)
                if labels.count(labels[axis]) == 1 and labels[axis] in out
                else None
            )
        case Einsum(ins, out):
            for x, labels in zip(xs, ins, strict=True):
                known = x.op.total if isinstance(x.op, Free) else None
                if known is None or known[1] != 0 or labels[known[0]] not in out:
                    continue
                label = labels[known[0]]
                if sum(label in i for i in ins) == 1:
                    return out.index(label), 0.0
    return None


def _identity(op: Op) -> object:
    """What makes two operations the same: their data, and for opaque functions the function itself."""
    if isinstance(op, Pointwise | Along | Frozen):
        return op, op.name, getattr(op.fn, "__regauge_key__", id(op.fn))
    if isinstance(op, Free) and op.key.startswith("fold:"):  # numbered by each builder anew
        return op, id(op.thunk)
    return op


def _memo(thunk: Callable[[], Tensor]) -> Callable[[], Tensor]:
    cell: list[Tensor] = []

    def once() -> Tensor:
        if not cell:
            cell.append(thunk())
        return cell[0]

    return once


def subgraph(values: Sequence[Value], outputs: Sequence[Value], followers: Sequence[Value] = ()) -> Graph:
    """Only what reaches an output or a follower."""
    live = {v.id for v in (*outputs, *followers)}
    for v in sorted(values, key=lambda v: -v.id):
        if v.id in live:
            live.update(a.id for a in v.args)
    return Graph(tuple(v for v in values if v.id in live), tuple(outputs), tuple(followers))
