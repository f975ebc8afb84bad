"""Reading and writing by index. An index is a selection matrix: one-hot rows, contracted with what is read.

An index that depends on parameters stays such a matrix, so that what it selects may be permuted together with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from regauge.graph.build import Builder
from regauge.graph.ir import Free, Value
from regauge.rules.arithmetic import Operand, is_filled, where
from regauge.rules.registry import Draw, rule


@dataclass(frozen=True)
class Index:
    """Integers 0 .. n - 1 that depend on parameters. onehot: (*shape, n), a row of the identity for each."""

    onehot: Value

    @property
    def inner(self) -> Value:
        return self.onehot

    @property
    def shape(self) -> tuple[int, ...]:
        return self.onehot.shape[:-1]

    @property
    def ndim(self) -> int:
        return self.onehot.ndim - 1

    @property
    def learned(self) -> bool:
        return self.onehot.learned

    @property
    def data(self) -> bool:
        return self.onehot.data

    def numbers(self, b: Builder) -> Value:
        """The integers as values of the graph; their order then counts, and what they select can no longer be permuted."""
        n = self.onehot.shape[-1]
        ramp = b.free(f"arange:{n}", [n], lambda: torch.arange(n, dtype=torch.get_default_dtype()))
        return b.contract(self.onehot, ramp, [-1], [0])


def one_hot(b: Builder, index: Value | Index, n: int, counted: bool = False) -> Value:
    """(*shape, n) rows of the identity. Entry -1 of a given index stands for n - 1, unless it is `counted` from 0.

    An index chosen among fewer than n never reaches the rest; one that arithmetic made is compared with each place.
    """
    if isinstance(index, Index):
        among = index.onehot.shape[-1]
        if among == n:
            return index.onehot
        if among < n:
            return b.concat([index.onehot, b.zeros([*index.shape, n - among])], index.ndim)
        index = index.numbers(b)
    if index.learned:
        return _compared(b, index, n)
    thunk = index.op.thunk  # type: ignore[union-attr]

    def rows() -> torch.Tensor:
        given = thunk()
        if given.dtype == torch.bool:
            raise KeyError("a mask has no rows")
        return torch.nn.functional.one_hot(given.long() % n, n).to(torch.get_default_dtype())

    reach = index.op.reach if isinstance(index.op, Free) else None
    reach = reach if reach is not None and 0 <= reach[0] <= reach[1] < n else None
    marks = tuple((e, k) for e, k in index.op.marks if 0 <= k < n) if isinstance(index.op, Free) else ()
    misses = tuple(k for k in index.op.misses if 0 <= k < n) if isinstance(index.op, Free) and counted else ()
    key, shape = f"one_hot:{index.id}:{n}", [*index.shape, n]
    repeated = b.repeated(index)
    few = index.op.among if isinstance(index.op, Free) and reach is not None else ()
    return b.free(key, shape, rows, index.data, (index.ndim, 1.0), reach, repeated, marks, few, misses)


def _compared(b: Builder, index: Value, n: int) -> Value:
    """One-hot rows of integers that are values of the graph: their order counts."""
    places = b.free(f"arange:{n}", [n], lambda: torch.arange(n, dtype=torch.get_default_dtype()))

    def equal(x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        return (x.round().long() % n == place.long()).to(place.dtype)

    equal.__regauge_key__ = ("place", n)  # type: ignore[attr-defined]
    return b.pointwise("equal", equal, b.unsqueeze(index, index.ndim), places)


def is_mask(index: Value | Index) -> bool:
    """Whether a given index selects by True and False."""
    if isinstance(index, Index) or not isinstance(index.op, Free):
        return False
    try:
        return index.op.thunk().dtype in (torch.bool, torch.uint8)
    except KeyError:
        return False


# -- choosing -----------------------------------------------------------------------------------------------------


def ranked(b: Builder, x: Value, axis: int, k: int, name: str, order: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """One-hot rows of the first k places in an order along an axis: k takes the place of the axis, n comes last.

    Each rank is a function that commutes with permutations of the n entries and ignores a constant added to them.
    `order` maps (..., n) to the k chosen places.
    """
    last = x.ndim - 1
    moved = b.transpose(x, axis, last) if axis != last else x
    n = moved.shape[-1]
    if k > 256:
        raise NotImplementedError(f"an order of {k} entries that depends on parameters")

    def rank(r: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def fn(x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(order(x)[..., r], n).to(x.dtype)

        fn.__regauge_key__ = (name, n, r)  # type: ignore[attr-defined]
        return fn

    rows = [
        b.along(
            f"rank {r} of {name}",
            rank(r),
            moved,
            [last],
            degree=0,
            equivariant=True,
            blind=True,
            total=1.0,
            choice=True,
        )
        for r in range(k)
    ]
    hot = b.stack(rows, last)  # (..., k, n)
    if axis == last:
        return hot
    places = list(range(hot.ndim))
    places[axis], places[last] = last, axis
    return b.permute(hot, places)


def chosen(b: Builder, x: Value, axis: int, hot: Value) -> Value:
    """The entries of x at one-hot rows that stand along the same axis. Rows that were expanded are whole rows' choices."""
    labels = list(range(x.ndim))
    mine = [50 if a == axis else a for a in labels]
    same = b.repeated(hot) - {axis, hot.ndim - 1}
    for a in sorted(same, reverse=True):
        hot = b.unrepeated(hot, a)
    return b.einsum([mine, [*(a for a in labels if a not in same), 50]], labels, x, hot)


def _topk_samples(t: Draw) -> list[tuple[Any, ...]]:
    return [(t(3, 5), 2), (t(3, 5), 1, 1, False), (t(4, 3), 2, 0)]


@rule("aten.topk.default", samples=_topk_samples)
def topk(
    b: Builder, x: Value, k: int, axis: int = -1, largest: bool = True, ordered: bool = True
) -> tuple[Value, Index]:
    axis = axis % max(1, x.ndim)
    hot = ranked(b, x, axis, k, f"topk:{k}:{largest}:{ordered}", lambda x: x.topk(k, -1, largest, ordered).indices)
    return chosen(b, x, axis, hot), Index(hot)


@rule("aten.sort.default", samples=lambda t: [(t(3, 5),), (t(4, 3), 0, True)])
def sort(b: Builder, x: Value, axis: int = -1, descending: bool = False) -> tuple[Value, Index]:
    axis = axis % max(1, x.ndim)
    hot = ranked(b, x, axis, x.shape[axis], f"sort:{descending}", lambda x: x.sort(-1, descending).indices)
    return chosen(b, x, axis, hot), Index(hot)


@rule("aten.argsort.default", samples=lambda t: [(t(3, 5),), (t(4, 3), 0, True)])
def argsort(b: Builder, x: Value, axis: int = -1, descending: bool = False) -> Index:
    return sort(b, x, axis, descending)[1]


def _extreme(b: Builder, x: Value, axis: int | None, keepdim: bool, largest: bool) -> tuple[Value, Index]:
    if axis is None:
        ones = [1] * x.ndim if keepdim else []
        value, index = _extreme(b, b.reshape(x, [x.numel]), 0, False, largest)
        return b.reshape(value, ones), Index(b.reshape(index.onehot, [*ones, x.numel]))
    axis = axis % x.ndim
    name, sign = ("argmax", 1.0) if largest else ("argmin", -1.0)
    hot = ranked(b, x, axis, 1, name, lambda x: (sign * x).argmax(-1, keepdim=True))
    value = chosen(b, x, axis, hot)
    return (value, Index(hot)) if keepdim else (b.squeeze(value, [axis]), Index(b.squeeze(hot, [axis])))


@rule("aten.argmax.default", samples=lambda t: [(t(3, 5), 1), (t(3, 5), 0, True), (t(3, 5),)])
def argmax(b: Builder, x: Value, axis: int | None = None, keepdim: bool = False) -> Index:
    return _extreme(b, x, axis, keepdim, True)[1]


@rule("aten.argmin.default", samples=lambda t: [(t(3, 5), 1)])
def argmin(b: Builder, x: Value, axis: int | None = None, keepdim: bool = False) -> Index:
    return _extreme(b, x, axis, keepdim, False)[1]


@rule("aten.max.dim", samples=lambda t: [(t(3, 5), 1), (t(3, 5), 0, True)])
def max_dim(b: Builder, x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Index]:
    return _extreme(b, x, axis, keepdim, True)


@rule("aten.min.dim", samples=lambda t: [(t(3, 5), 1)])
def min_dim(b: Builder, x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Index]:
    return _extreme(b, x, axis, keepdim, False)


# -- reading ------------------------------------------------------------------------------------------------------


def _places(t: Draw, *shape: int, n: int) -> torch.Tensor:
    """Random integers 0 .. n - 1."""
    return (t(*shape).abs() * 1000).long() % n


@rule("aten.embedding.default", samples=lambda t: [(t(5, 3), _places(t, 2, 4, n=5))], indices=True)
def embedding(b: Builder, weight: Value, index: Value | Index, *_: Any, **__: Any) -> Value:
    return b.contract(one_hot(b, index, weight.shape[0], counted=True), weight, [-1], [0])


@rule(
    "aten.index_select.default",
    samples=lambda t: [(t(3, 5), 1, _places(t, 4, n=5)), (t(5, 3), 0, _places(t, 2, n=5))],
    indices=True,
)
def index_select(b: Builder, x: Value, axis: int, index: Value | Index) -> Value:
    axis = axis % x.ndim
    y = b.contract(one_hot(b, index, x.shape[axis]), x, [-1], [axis])
    return b.permute(y, [*range(1, axis + 1), 0, *range(axis + 1, x.ndim)])


def _index_samples(t: Draw) -> list[tuple[Any, ...]]:
    return [
        (t(5, 3), [_places(t, 4, n=5)]),
        (t(3, 5), [None, _places(t, 2, 2, n=5)]),
        (t(3, 5), [_places(t, 4, n=3), _places(t, 4, n=5)]),
        (t(3, 4, 2), [_places(t, 2, 1, n=3), None, _places(t, 3, n=2)]),
    ]


@rule("aten.index.Tensor", samples=_index_samples, indices=True)
def index(b: Builder, x: Value, indices: Sequence[Value | Index | None]) -> Value:
    """One contraction for each index; their common shape stands where they stood, or first if they were apart."""
    used = [(a, i) for a, i in enumerate(indices) if i is not None]
    if any(is_mask(i) for _, i in used):
        raise NotImplementedError("a mask as an index")
    shape = torch.broadcast_shapes(*(i.shape for _, i in used))
    common = [200 + k for k in range(len(shape))]
    have = list(range(x.ndim))
    y = x
    for axis, i in used:
        hot = one_hot(b, i, x.shape[axis])
        lead = len(shape) - i.ndim
        ones = [k for k, n in enumerate(i.shape) if n == 1 and shape[lead + k] != 1]
        hot = b.squeeze(hot, ones) if ones else hot
        mine = [common[lead + k] for k in range(i.ndim) if k not in ones]
        fresh = [l for l in mine if l not in have]
        keep = [*fresh, *(l for l in have if l != axis)]
        y = b.einsum([have, [*mine, axis]], keep, y, hot)
        have = keep
    axes = [a for a, _ in used]
    rest = [a for a in range(x.ndim) if a not in axes]
    first = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0
    out = [*[a for a in rest if a < first], *common, *[a for a in rest if a >= first]]
    y = b.permute(y, [have.index(l) for l in out if l in have])
    return b.expand(y, [shape[l - 200] if l >= 200 else x.shape[l] for l in out]) if len(have) == len(out) else y


@rule(
    "aten.gather.default",
    samples=lambda t: [(t(3, 5), 1, _places(t, 3, 2, n=5)), (t(4, 3), 0, _places(t, 2, 2, n=4))],
    indices=True,
)
def gather(b: Builder, x: Value, axis: int, index: Value | Index, *_: Any, **__: Any) -> Value:
    axis = axis % x.ndim
    for a, n in enumerate(index.shape):
        x = x if a == axis else b.slice(x, a, 0, n)
    return chosen(b, x, axis, one_hot(b, index, x.shape[axis]))


@rule(
    "aten.one_hot.default",
    samples=lambda t: [(_places(t, 3, 2, n=5), 5)],
    indices=True,
)
def one_hot_rows(b: Builder, index: Value | Index, count: int = -1) -> Value:
    if count < 0:
        raise NotImplementedError("a number of classes that depends on parameters")
    return one_hot(b, index, count)


# -- writing ------------------------------------------------------------------------------------------------------


def _scattered(b: Builder, shape: Sequence[int], axis: int, index: Value | Index, source: Value | None) -> Value:
    """sum_j source[.., j, ..] onehot[.., j, .., n], n in the place of j; a source of ones counts how often each is hit."""
    if any(index.shape[a] != n for a, n in enumerate(shape) if a != axis):
        raise NotImplementedError("an index smaller than what it writes to")
    hot = one_hot(b, index, shape[axis])
    labels = list(range(len(shape)))
    out = [50 if a == axis else a for a in labels]
    if source is None:
        return b.einsum([[*labels, 50]], out, hot)
    for a, n in enumerate(index.shape):
        source = b.slice(source, a, 0, n)
    return b.einsum([[*labels, 50], labels], out, hot, source)


def _is_zero(x: Operand) -> bool:
    return isinstance(x, Value) and not x.learned and is_filled(x) and not bool(x.op.thunk().any())  # type: ignore[union-attr]


@rule(
    "aten.scatter.value",
    samples=lambda t: [(t(3, 5), 1, _places(t, 3, 2, n=5), 0.0), (t(3, 5), 1, _places(t, 3, 1, n=5), -1e9)],
    indices=True,
)
def scatter_value(b: Builder, x: Value, axis: int, index: Value | Index, value: float, **_: Any) -> Value:
    axis = axis % x.ndim
    return where(b, _scattered(b, x.shape, axis, index, None), float(value), x)


@rule("aten.scatter.src", samples=lambda t: [(t(3, 5), 1, _places(t, 3, 1, n=5), t(3, 1))], indices=True)
def scatter_source(b: Builder, x: Value, axis: int, index: Value | Index, source: Value, **_: Any) -> Value:
    """Where two sources meet at one place PyTorch keeps either: places must differ."""
    axis = axis % x.ndim
    y = _scattered(b, x.shape, axis, index, source)
    return y if _is_zero(x) else where(b, _scattered(b, x.shape, axis, index, None), y, x)


@rule("aten.scatter_add.default", samples=lambda t: [(t(3, 5), 1, _places(t, 3, 4, n=5), t(3, 4))], indices=True)
def scatter_add(b: Builder, x: Value, axis: int, index: Value | Index, source: Value) -> Value:
    y = _scattered(b, x.shape, axis % x.ndim, index, source)
    return y if _is_zero(x) else b.add([x, y])


@rule(
    "aten.index_add.default",
    samples=lambda t: [(t(5, 3), 0, _places(t, 4, n=5), t(4, 3)), (t(3, 5), 1, _places(t, 2, n=5), t(3, 2))],
    indices=True,
)
def index_add(b: Builder, x: Value, axis: int, index: Value | Index, source: Value, alpha: float = 1.0) -> Value:
    axis = axis % x.ndim
    labels = list(range(x.ndim))
    mine = [50 if a == axis else a for a in labels]
    y = b.einsum([[50, axis], mine], labels, one_hot(b, index, x.shape[axis]), source)
    return b.scale(y, alpha) if _is_zero(x) else b.add([x, y], [1.0, float(alpha)])


def _reduce_samples(t: Draw) -> list[tuple[Any, ...]]:
    call = lambda how, own: ((t(3, 5), 1, _places(t, 3, 4, n=5), t(3, 4), how), dict(include_self=own))  # noqa: E731
    return [call("amax", False), call("amax", True), call("amin", False), call("sum", False), call("mean", True)]


@rule("aten.scatter_reduce.two", samples=_reduce_samples, indices=True)
def scatter_reduce(
    b: Builder, x: Value, axis: int, index: Value | Index, source: Value, how: str, *, include_self: bool = True
) -> Value:
    """Where nothing is written x stays; elsewhere it counts as one more source, or not at all."""
    axis = axis % x.ndim
    hits = _scattered(b, x.shape, axis, index, None)
    if how in ("sum", "mean"):
        total = _scattered(b, x.shape, axis, index, source)
        total = b.add([x, total]) if include_self else total
        if how == "mean":
            count = b.pointwise("sources", _one_more if include_self else _at_least_one, hits)
            total = b.mul(total, b.pointwise("reciprocal", torch.reciprocal, count, degree=-1, parity="odd"))
        return total if include_self else where(b, hits, total, x)
    if how not in ("amax", "amin"):
        raise NotImplementedError(f"a scatter that reduces by {how}")
    for a, n in enumerate(index.shape):
        source = b.slice(source, a, 0, n)
    hot = one_hot(b, index, x.shape[axis])  # (.., j, .., n)
    far = float("-inf") if how == "amax" else float("inf")
    reach = where(b, hot, b.unsqueeze(source, source.ndim), far)
    extreme = torch.amax if how == "amax" else torch.amin
    best = b.along(how, lambda y: extreme(y, axis), reach, [axis], out_axes=[], sizes=[], degree=1, equivariant=True)
    best = b.permute(best, [*range(axis), best.ndim - 1, *range(axis, best.ndim - 1)])
    own = where(b, hits, b.pointwise(how, torch.maximum if how == "amax" else torch.minimum, best, x, degree=1), x)
    return own if include_self else where(b, hits, best, x)


def _one_more(x: torch.Tensor) -> torch.Tensor:
    return x.double() + 1


def _at_least_one(x: torch.Tensor) -> torch.Tensor:
    return x.double().clamp_min(1)


def _scatter_samples(t: Draw) -> list[tuple[Any, ...]]:
    some = t(3, 4) > 0
    return [
        (t(3, 4), some, t(12)),
        (t(2, 3, 4), t(2, 3, 1).gt(0).expand(2, 3, 4), t(6, 4)),
        (t(3, 4), t(3, 1) > 0, t(2, 2, 4)),
    ]


@rule("aten.masked_scatter.default", samples=_scatter_samples)
def masked_scatter(b: Builder, x: Value, mask: Value, source: Value) -> Value:
    """The entries of a source, in their order, at the places of a mask; whole rows of it where the mask was expanded."""
    if mask.learned:
        raise NotImplementedError("a mask that depends on parameters")
    mask = b.expand(mask, x.shape)
    given, lead = b.repeated(mask), x.ndim
    while lead and (lead - 1 in given or x.shape[lead - 1] == 1):
        lead -= 1
    row = x.shape[lead:]
    if source.numel % prod(row):
        lead, row = x.ndim, ()
    for axis in range(lead, x.ndim):
        mask = b.slice(mask, axis, 0, 1)
    rows = b.reshape(source, [source.numel // prod(row), *row])
    thunk, shape, n = mask.op.thunk, x.shape[:lead], rows.shape[0]  # type: ignore[union-attr]

    def hot() -> torch.Tensor:
        taken = thunk().reshape(shape).bool()
        place = (taken.flatten().long().cumsum(0) - 1).clamp_min(0).reshape(shape)
        return torch.nn.functional.one_hot(place % n, n) * taken.unsqueeze(-1).to(torch.get_default_dtype())

    y = b.contract(b.free(f"next of {n}:{mask.id}", [*shape, n], hot, mask.data), rows, [-1], [0])
    return where(b, mask, y, x)
