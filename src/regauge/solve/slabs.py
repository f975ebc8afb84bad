"""A sequence of acts on one block, carried out slab by slab: each number is read once, widened, moved, and rounded once.

The acts are brought to a normal form first. Orders along axes that no matrix turns go to the front, where they say from
which place each entry is read; the factors behind them follow, and those that vary over the same axes become one. What
remains acts within slabs of one axis, which are small enough to stay in the processor's cache, and which several threads
may share: a slab is computed by one thread in the same way, whoever computes it, so that the bits do not depend on how many
there are. Slabs that lie one after another in memory can be had one by one (`parts`), while they are still in the cache.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from regauge.solve.acts import SMALL, Act, Multiply, Plus, Reorder, Times, reorder
from regauge.solve.matrices import Diagonal, Factor, Matrices, Order, Product

SLAB = 1 << 19  # entries of a slab that is moved entry by entry: 2 MB in single precision
TURNED = 1 << 21  # and of one that is multiplied by a matrix
RUN = 64  # entries at least that a slab takes of an axis: shorter stretches waste what is read with them
JOINED = 1 << 22  # entries at most of axes that an order takes as one
WINDOW = 8  # slabs that are computed before they are asked for


def carry_out(
    acts: Sequence[Act], array: Tensor, wide: torch.dtype, dtype: torch.dtype, crew: Executor | None = None
) -> Tensor:
    """The acts on an array of one axis a leaf, computed in `wide` and rounded once to `dtype`. Only orders and signs: the same
    bits, in whatever dtype they are.

    Differs from the acts one after another by rounding only, and for up to `SMALL` entries not at all."""
    x, last, wide = _begun(acts, array, wide, crew)
    if last is None:
        return x.to(dtype)
    return last.run(x, x.new_empty(last.sizes, dtype=dtype), wide, crew).view(array.shape)


def parts(
    acts: Sequence[Act], array: Tensor, wide: torch.dtype, dtype: torch.dtype, crew: Executor | None = None
) -> Iterator[Tensor]:
    """The entries that `carry_out` gives, in flat parts one after another, each as soon as it is computed."""
    x, last, wide = _begun(acts, array, wide, crew)
    if last is None:
        yield x.to(dtype).reshape(-1)
    elif last.consecutive:
        for made in last.slabs(x, lambda at, n: x.new_empty(last.shape(n), dtype=dtype), wide, crew):
            yield made.view(-1)
    else:
        yield last.run(x, x.new_empty(last.sizes, dtype=dtype), wide, crew).view(-1)


def _begun(
    acts: Sequence[Act], array: Tensor, wide: torch.dtype, crew: Executor | None
) -> tuple[Tensor, Stage | None, torch.dtype]:
    """What the last stage is carried out on, and in which dtype; no stage: all is done."""
    small = array.numel() <= SMALL or not array.ndim
    form = None if small else normal_form(acts, tuple(array.shape))
    if form is None:
        x = array.to(wide)
        for a in acts:
            x = a.on(x)
        return x, None, wide
    if array.dtype in (torch.float32, torch.float64) and form.exact:
        wide = array.dtype
    *before, last = form.stages()
    x = array.reshape(form.sizes)
    for stage in before:
        x = stage.run(x, x.new_empty(form.sizes, dtype=wide), wide, crew)
    return x, last, wide


@dataclass(frozen=True, eq=False)
class Form:
    """Acts in normal form, on an array whose leaves are joined where an order takes them together. orders: axis -> the place
    that each entry is read from, before all acts."""

    sizes: tuple[int, ...]
    orders: dict[int, Tensor]
    acts: tuple[Act, ...]

    @property
    def exact(self) -> bool:
        """Whether no number changes but in sign."""
        return all(isinstance(a, Times) and bool((a.factors[0].abs() == 1).all()) for a in self.acts)

    def stages(self) -> Iterator[Stage]:
        """Runs of acts that some axis stays free of."""
        run: list[Act] = []
        orders = self.orders
        free = set(range(len(self.sizes)))
        for a in self.acts:
            axis = a.leaf if isinstance(a, Multiply | Reorder) else -1
            if run and not any(self.sizes[g] > 1 for g in free - {axis}):
                yield Stage(self.sizes, orders, tuple(run), self._slabbed(run, free))
                run, orders, free = [], {}, set(range(len(self.sizes)))
            free.discard(axis)
            run.append(a)
        yield Stage(self.sizes, orders, tuple(run), self._slabbed(run, free))

    def _slabbed(self, acts: Sequence[Act], free: set[int]) -> int | None:
        """The axis to cut: the first that gives slabs of few enough entries, else the longest."""
        most = _entries(acts)
        open_ = [g for g in sorted(free) if self.sizes[g] > 1]
        fine = next((g for g in open_ if prod(self.sizes) // self.sizes[g] <= most), None)
        return fine if fine is not None else max(open_, key=lambda g: self.sizes[g], default=None)


@dataclass(frozen=True, eq=False)
class Stage:
    """Acts that are local over an axis; None: over none, and the array is one slab."""

    sizes: tuple[int, ...]
    orders: dict[int, Tensor]
    acts: tuple[Act, ...]
    axis: int | None

    @property
    def consecutive(self) -> bool:
        """Whether slabs lie one after another in memory."""
        return prod(self.sizes[: self.axis]) == 1

    def shape(self, n: int) -> tuple[int, ...]:
        """Of a slab that takes n entries of its axis."""
        return tuple(n if g == self.axis else size for g, size in enumerate(self.sizes))

    def run(self, source: Tensor, out: Tensor, wide: torch.dtype, crew: Executor | None) -> Tensor:
        """Fills `out` and gives it back."""
        for _ in self.slabs(
            source, lambda at, n: out if self.axis is None else out.narrow(self.axis, at, n), wide, crew
        ):
            pass
        return out

    def slabs(
        self, source: Tensor, place: Callable[[int, int], Tensor], wide: torch.dtype, crew: Executor | None
    ) -> Iterator[Tensor]:
        """The slabs in order, each in the place that is named for n entries from `at` on."""
        acts = [_ready(a, source, wide) for a in self.acts]
        orders = {g: o.to(source.device, torch.int32) for g, o in self.orders.items()}
        n = 1 if self.axis is None else self.sizes[self.axis]
        step = max(1, _entries(self.acts) * n // prod(self.sizes))
        if self.axis:
            step = max(step, RUN)

        def one(at: int) -> Tensor:
            k = min(step, n - at)
            out = place(at, k)
            self._slab(source, out, wide, acts, orders, at, k)
            return out

        return _in_order(one, range(0, n, step), crew)

    def _slab(
        self,
        source: Tensor,
        out: Tensor,
        wide: torch.dtype,
        acts: Sequence[Act],
        orders: dict[int, Tensor],
        at: int,
        n: int,
    ) -> None:
        x = source
        if self.axis is not None:
            order = orders.get(self.axis)
            x = x.narrow(self.axis, at, n) if order is None else x.index_select(self.axis, order[at : at + n])
        x = x.to(wide, copy=True)
        for g, order in orders.items():
            x = x if g == self.axis else x.index_select(g, order)
        for a in acts:
            match a if self.axis is None else _part(a, self.axis, at, n):
                case Times((f,)):
                    x.mul_(f)
                case Plus((term,)):
                    x.add_(term())
                case act:
                    x = act.on(x)
        out.copy_(x)


def _in_order(call: Callable[[int], Tensor], over: range, crew: Executor | None) -> Iterator[Tensor]:
    """The results in order; with a crew a few are computed before they are asked for."""
    if crew is None:
        yield from map(call, over)
        return
    ahead: deque[Future[Tensor]] = deque()
    for at in over:
        if len(ahead) == WINDOW:
            yield ahead.popleft().result()
        ahead.append(crew.submit(call, at))
    while ahead:
        yield ahead.popleft().result()


def _entries(acts: Sequence[Act]) -> int:
    return TURNED if any(isinstance(a, Multiply) for a in acts) else SLAB


def _ready(a: Act, source: Tensor, wide: torch.dtype) -> Act:
    """With its tensors where and in what they are needed, made once for all slabs."""
    match a:
        case Times((f,)):
            return Times((f.to(source.device, wide),))
        case Plus((term,)):
            value = term().to(source.device, wide)
            return Plus((lambda: value,))
        case Multiply(m) if isinstance(m, Tensor):
            return replace(a, matrices=m.to(source.device, wide))
    return a


def _part(a: Act, axis: int, at: int, n: int) -> Act:
    """The act on a slab."""

    def cut(t: Tensor, axis: int = axis) -> Tensor:
        return t.narrow(axis, at, n) if t.shape[axis] > 1 else t

    match a:
        case Times((f,)):
            return Times((cut(f),))
        case Plus((term,)):
            value = cut(term())
            return Plus((lambda: value,))
        case Multiply(m, leaf, places) if axis in places:
            return Multiply(_placed(m, lambda t: cut(t, places.index(axis))), leaf, places)
    return a


def normal_form(acts: Sequence[Act], sizes: tuple[int, ...]) -> Form | None:
    """None where a matrix turns part of what an order takes together, or that is too much to take together."""
    groups = _groups(acts, len(sizes))
    joined = _Joined(sizes, groups)
    turned = {a.leaf for a in acts if isinstance(a, Multiply)}
    if any(len(g) > 1 and (turned & set(g) or prod(sizes[k] for k in g) > JOINED) for g in groups):
        return None
    fixed = {joined.group[k] for k in turned}
    orders: dict[int, Tensor] = {}
    out: list[Act] = []
    for a in reversed(acts):
        match a:
            case Reorder():
                axis, order = joined.order(a)
                if axis in fixed:
                    out.append(Reorder(order, axis))
                else:
                    orders[axis] = order[orders[axis]] if axis in orders else order
            case Times(factors):
                for f in reversed(factors):
                    out.append(Times((_moved(joined.spread(f.double()), orders),)))
            case Plus(terms):
                for term in reversed(terms):
                    late = dict(orders)
                    out.append(Plus((lambda term=term, late=late: _moved(joined.spread(term()), late),)))  # type: ignore[misc]
            case Multiply():
                m, axis, places = joined.matrices(a)
                out.append(Multiply(_placed(m, lambda t, places=places: _moved(t, _at(orders, places))), axis, places))  # type: ignore[misc]
    return Form(joined.sizes, orders, _merged(out[::-1]))


def _groups(acts: Sequence[Act], ndim: int) -> list[range]:
    """Leaves in a row that some order takes together with the places it is local over."""
    end = list(range(ndim))  # of the group that begins here or before
    for a in acts:
        if isinstance(a, Reorder):
            first, last = min((a.leaf, *a.places)), max((a.leaf, *a.places))
            end[first] = max(end[first], last)
    groups: list[range] = []
    for k in range(ndim):
        if groups and groups[-1].stop > k:
            groups[-1] = range(groups[-1].start, max(groups[-1].stop, end[k] + 1))
        else:
            groups.append(range(k, end[k] + 1))
    return groups


class _Joined:
    """The acts on an array in which every group of leaves is one axis."""

    def __init__(self, leaves: tuple[int, ...], groups: Sequence[range]) -> None:
        self.leaves, self.groups = leaves, groups
        self.group = {k: i for i, g in enumerate(groups) for k in g}
        self.sizes = tuple(prod(leaves[k] for k in g) for g in groups)

    def spread(self, f: Tensor) -> Tensor:
        """A tensor that broadcasts to the leaves as one that broadcasts to the groups."""
        shape = list(f.shape)
        for g in self.groups:
            if any(f.shape[k] > 1 for k in g):
                shape[g.start : g.stop] = [self.leaves[k] for k in g]
        wide = f.expand(shape)
        return wide.reshape([prod(shape[k] for k in g) for g in self.groups])

    def order(self, a: Reorder) -> tuple[int, Tensor]:
        i = self.group[a.leaf]
        g = self.groups[i]
        grid = torch.arange(self.sizes[i]).reshape([self.leaves[k] for k in g])
        return i, reorder(grid, a.order, a.leaf - g.start, [p - g.start for p in a.places]).reshape(-1)

    def matrices(self, a: Multiply) -> tuple[Matrices, int, tuple[int, ...]]:
        places = tuple(dict.fromkeys(self.group[p] for p in sorted(a.places)))

        def spread(t: Tensor) -> Tensor:
            """(*places, rest) -> (*groups, rest)"""
            k = len(a.places)
            order = sorted(range(k), key=a.places.__getitem__)
            t = t.permute(*order, *range(k, t.ndim))
            rest = t.shape[k:]
            shape = [1] * len(self.leaves)
            for i, p in enumerate(sorted(a.places)):
                shape[p] = t.shape[i]
            t = t.reshape(*shape, *rest)
            wide = [self.leaves[j] if self.group[j] in places else 1 for j in range(len(self.leaves))]
            return t.expand(*wide, *rest).reshape(*(self.sizes[g] for g in places), *rest)

        return _placed(a.matrices, spread) if a.places else a.matrices, self.group[a.leaf], places


def _placed(m: Matrices, change: Callable[[Tensor], Tensor]) -> Matrices:
    """Matrices at other places: `change` is given what lies at the places, tensors (*places, ...)."""
    if not isinstance(m, Product):
        return change(m)

    def factor(f: Factor) -> Factor:
        match f:
            case Diagonal(values):
                return Diagonal(change(values))
            case Order(order):
                return Order(change(order))
        return f

    made = tuple(factor(f) for f in m.factors)
    places = tuple(change(torch.empty(*m.places, 1)).shape[:-1])
    return Product(places, m.n, made)


def _at(orders: dict[int, Tensor], places: Sequence[int]) -> dict[int, Tensor]:
    return {i: orders[p] for i, p in enumerate(places) if p in orders}


def _moved(t: Tensor, orders: dict[int, Tensor]) -> Tensor:
    """As it is met by entries that come to other places later."""
    for axis, order in orders.items():
        t = t.index_select(axis, order) if t.shape[axis] > 1 else t
    return t


def _merged(acts: Sequence[Act]) -> tuple[Act, ...]:
    """Two factors of which one varies over the axes of the other become one, unless something between them sees the
    difference."""
    out: list[Act] = []
    for a in acts:
        at = _partner(out, a) if isinstance(a, Times) else None
        if at is None:
            out.append(a)
        else:
            (f,), (g,) = out[at].factors, a.factors  # type: ignore[union-attr]
            out[at] = Times((f * g,))
    return tuple(out)


def _partner(acts: Sequence[Act], a: Times) -> int | None:
    varies = _varies(a)
    for i in reversed(range(len(acts))):
        match acts[i]:
            case Times() as other if _varies(other) <= varies or varies <= _varies(other):
                return i
            case Times():
                continue
            case Multiply(_, leaf) | Reorder(_, leaf) if leaf not in varies:
                continue
            case _:
                return None
    return None


def _varies(a: Times) -> set[int]:
    return {i for i, n in enumerate(a.factors[0].shape) if n > 1}


__all__ = ["Form", "carry_out", "normal_form", "parts"]
