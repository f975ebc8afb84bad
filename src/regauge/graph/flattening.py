"""Axes that a model joins for a while stay apart: (batch, time, heads x 6) viewed as (batch * time * heads, 6) and back.

Joined axes can only be cut together, so that units would be cut like times. An operation that acts alike at every place
of a joined axis does so at every place of its factors, and the axes are joined only where something needs them joined.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from operator import mul

from regauge.graph.build import Builder
from regauge.graph.ir import Add, Einsum, Graph, Labels, Pointwise, Reshape, Slice, Value
from regauge.graph.rewrite import Rewriter

FACTOR = 40_000  # labels of factors start here


@dataclass(frozen=True)
class Factors:
    """The same entries with joined axes apart. sizes: for each axis the sizes of its factors, one or more."""

    inner: Value
    sizes: tuple[tuple[int, ...], ...]


class LateFlattening(Rewriter):
    def __init__(self, graph: Graph, builder: Builder) -> None:
        super().__init__(graph, builder)
        self.apart: dict[int, Factors] = {}

    def visit(self, v: Value) -> Value:
        if not v.learned:
            return self.copy(v)
        match v.op:
            case Reshape():
                return self._reshaped(v)
            case Slice():
                return self._sliced(v) or self.copy(v)
            case Einsum() | Add() | Pointwise():
                return self._alike(v, v.op) or self.copy(v)
        return self.copy(v)

    def _keep(self, v: Value, inner: Value, sizes: tuple[tuple[int, ...], ...]) -> Value:
        if any(len(s) > 1 for s in sizes):
            self.apart[v.id] = Factors(inner, sizes)
        return self.b.reshape(inner, v.shape)

    def _reshaped(self, v: Value) -> Value:
        (x,) = v.args
        known = self.apart.get(x.id)
        inner = known.inner if known else self.new[x.id]
        sizes = factors(inner.shape, v.shape)
        if sizes is None:
            return self.copy(v)
        return self._keep(v, self.b.reshape(inner, [n for s in sizes for n in s]), sizes)

    def _sliced(self, v: Value) -> Value | None:
        known = self.apart.get(v.args[0].id)
        assert isinstance(v.op, Slice)
        axis, start = v.op.axis, v.op.start
        if known is None or len(known.sizes[axis]) > 1:
            return None
        at = sum(len(s) for s in known.sizes[:axis])
        inner = self.b.slice(known.inner, at, start, start + v.shape[axis])
        return self._keep(v, inner, tuple(s if a != axis else (v.shape[a],) for a, s in enumerate(known.sizes)))

    def _alike(self, v: Value, op: Einsum | Add | Pointwise) -> Value | None:
        found: dict[int, tuple[int, ...]] = {}
        for a, labels in zip(v.args, op.ins, strict=True):
            for l, s in zip(labels, self.apart[a.id].sizes, strict=True) if a.id in self.apart else ():
                finer = refined(found.setdefault(l, s), s)
                if finer is None:
                    return None
                found[l] = finer
        found = {l: s for l, s in found.items() if len(s) > 1}
        if not found:
            return None
        names: dict[int, Labels] = {}
        for l, s in found.items():
            first = FACTOR + sum(len(n) for n in names.values())
            names[l] = tuple(range(first, first + len(s)))
        args: list[Value] = []
        for a, labels in zip(v.args, op.ins, strict=True):
            cut = any(l in found and n > 1 for l, n in zip(labels, a.shape, strict=True))
            known = self.apart.get(a.id)
            if known and all(len(s) > 1 or l not in found for l, s in zip(labels, known.sizes, strict=True)):
                shape = [n for l, s in zip(labels, known.sizes, strict=True) for n in found.get(l, s)]
                args.append(self.b.reshape(known.inner, shape))
            elif cut and a.learned:
                return None
            else:
                shape = [n for l, m in zip(labels, a.shape, strict=True) for n in (found[l] if l in found else (m,))]
                args.append(self.b.reshape(self.new[a.id], shape))
        ins = tuple(tuple(n for l in labels for n in names.get(l, (l,))) for labels in op.ins)
        out = tuple(n for l in op.out for n in names.get(l, (l,)))
        sizes = tuple(found.get(l, (m,)) for l, m in zip(op.out, v.shape, strict=True))
        inner = self.b.op(replace(op, ins=ins, out=out), args, [n for s in sizes for n in s])
        return self._keep(v, inner, sizes)


def refined(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The factors that the cuts of both leave of one axis; None where the cuts cross."""
    if a == b:
        return a
    found = factors((*a,), b)
    return None if found is None else tuple(n for s in found for n in s if n > 1)


def factors(old: tuple[int, ...], new: tuple[int, ...]) -> tuple[tuple[int, ...], ...] | None:
    """For each new axis the sizes that the cuts of both shapes leave in it; None where the cuts cross."""
    if prod(old) != prod(new) or prod(new) == 0:
        return None
    cuts = sorted({1, *accumulate(old, mul), *accumulate(new, mul)})
    if any(b % a for a, b in zip(cuts, cuts[1:], strict=False)):
        return None
    found, at = [], 1
    for n in new:
        inside = [c for c in cuts if at < c <= at * n]
        found.append(tuple(b // a for a, b in zip([at, *inside], inside, strict=False)) or (1,))
        at *= n
    return tuple(found)
