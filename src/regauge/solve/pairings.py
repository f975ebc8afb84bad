"""Which axes of two values hold the same indices: what an operation says about cuts, before any value is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from regauge.graph.ir import Along, Concat, Graph, Mix, Op, Param, Reshape, Slice, Value, labels_of

Axis = tuple[int, int]  # (value id, axis)
INTO = 1 << 20  # added to the label of an axis on its way into an operation that mixes it


@dataclass(frozen=True)
class Group:
    """Axes of two values that hold the same indices in row-major order, up to a shift: index(u) + shift = index(v)."""

    axes_u: tuple[int, ...]
    axes_v: tuple[int, ...]
    shift: int = 0


@dataclass(frozen=True)
class Pairing:
    u: int
    v: int
    groups: tuple[Group, ...]


def pairings(v: Value) -> Iterator[Pairing]:
    labelled = named(v.op)
    if labelled is not None:
        ins, out = labelled
        terms = [*zip(v.args, ins, strict=True), (v, out)]
        for i, (x, lx) in enumerate(terms):
            for y, ly in terms[i + 1 :]:
                shared = [l for l in lx if l in ly and x.shape[lx.index(l)] > 1]
                if shared:
                    yield Pairing(x.id, y.id, tuple(Group((lx.index(l),), (ly.index(l),)) for l in shared))
        return
    match v.op:
        case Reshape():
            yield Pairing(v.args[0].id, v.id, tuple(reshape_groups(v.args[0].shape, v.shape)))
        case Slice(axis, start):
            yield _along(v.args[0], v, axis, -start)
        case Concat(axis):
            at = 0
            for x in v.args:
                yield _along(x, v, axis, at)
                at += x.shape[axis]
        case Mix():
            yield _along(v.args[0], v, -1, 0)


def named(op: Op) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]] | None:
    """Labels of an operation; what goes into a mixing axis is not what comes out of it, so these are told apart."""
    found = labels_of(op)
    if found is None or not isinstance(op, Along) or op.equivariant:
        return found
    ins, out = found
    return tuple(tuple(l + INTO if l in op.touched else l for l in labels) for labels in ins), out


def _along(x: Value, v: Value, axis: int, shift: int) -> Pairing:
    groups = [Group((i,), (i,), shift if i == axis else 0) for i in range(v.ndim) if v.shape[i] > 1 or i == axis]
    return Pairing(x.id, v.id, tuple(groups))


def reshape_groups(a: tuple[int, ...], b: tuple[int, ...]) -> Iterator[Group]:
    """The smallest runs of axes with equal products."""
    i = j = 0
    while i < len(a) or j < len(b):
        gi: list[int] = []
        gj: list[int] = []
        na = nb = 1
        while True:
            if na == nb and (gi or gj) and na > 1:
                break
            if na <= nb and i < len(a):
                na *= a[i]
                gi.append(i)
                i += 1
            elif j < len(b):
                nb *= b[j]
                gj.append(j)
                j += 1
            elif i < len(a):
                na *= a[i]
                gi.append(i)
                i += 1
            else:
                break
        gi, gj = [k for k in gi if a[k] > 1], [k for k in gj if b[k] > 1]
        if gi and gj:
            yield Group(tuple(gi), tuple(gj))


def components(graph: Graph, pairs: list[Pairing]) -> dict[Axis, int]:
    """Axes that share cuts, directly or through others, one number each; only those that reach a parameter."""
    index = {(v.id, i): k for k, (v, i) in enumerate((v, i) for v in graph.values for i in range(v.ndim))}
    rows, cols = [], []
    for p in pairs:
        for g in p.groups:
            first = index[(p.u, g.axes_u[0])]
            for other in [*((p.u, a) for a in g.axes_u[1:]), *((p.v, a) for a in g.axes_v)]:
                rows.append(first)
                cols.append(index[other])
    n = len(index)
    _, label = connected_components(coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(n, n)), directed=False)
    live = {label[index[(v.id, i)]] for v in graph.values if isinstance(v.op, Param) for i in range(v.ndim)}
    return {axis: int(label[k]) for axis, k in index.items() if label[k] in live}
