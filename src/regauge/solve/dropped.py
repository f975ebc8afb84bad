"""Entries that are set to a very negative number, whatever stood there: only a softmax weighs them by nothing.

A mean, a norm or a logarithm sees that they stay where they are while the others move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from regauge.graph.ir import Add, Along, Concat, Einsum, Pointwise, Reshape, Slice
from regauge.solve.blocks import Blocks, Relation, Term

LEAST = 1e-2  # of a very negative number (-1e4 at most): what is left of it must be far below every score


def weighed(blocks: Blocks, readers: Mapping[int, Sequence[Relation]]) -> frozenset[int]:
    """Blocks in which an entry that is very negative has no weight in anything observed: a softmax is all that reads them."""
    observed = {b.id for v in blocks.graph.outputs for b in blocks.of[v.id]}
    left: dict[int, float] = {}  # block -> by what factor a softmax behind sees its entries, at least
    for v in reversed(blocks.graph.values):
        for b in blocks.of[v.id]:
            seen = [_factor(r, t, left) for r in readers.get(b.id, ()) for t in r.ins if t.block.id == b.id]
            left[b.id] = 0.0 if b.id in observed else min(seen, default=inf)
    return frozenset(b for b, factor in left.items() if factor >= LEAST)


def _factor(r: Relation, t: Term, left: Mapping[int, float]) -> float:
    behind = left[r.out.block.id]
    match r.op:
        case Along(name="softmax"):
            return 1.0 if t is r.ins[0] else 0.0
        case Add(coefs):
            return behind * next(abs(c) for c, x in zip(coefs, r.ins, strict=True) if x is t)
        case Reshape() | Slice() | Concat():
            return behind
        case Einsum((_,), _) if set(t.labels) <= set(r.out.labels):
            return behind
        case Pointwise(name="drop") if t is not r.ins[0]:
            return behind
    return 0.0
