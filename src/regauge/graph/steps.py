"""x + c W x as one map of x: the matrix 1 + c W, or a convolution whose middle tap is raised by one.

The same value in other words; both routes of an Euler step of a linear equation become a linear map, and a convolution with
a residual connection a convolution.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from regauge.graph.build import Builder
from regauge.graph.ir import (
    Add,
    Along,
    Chart,
    Concat,
    Einsum,
    Free,
    Graph,
    Mix,
    Param,
    Pointwise,
    Reshape,
    Slice,
    Value,
    evaluate,
)
from regauge.graph.rewrite import Rewriter

REACH = 16  # values between what is read and the result of a convolution
LARGEST = 1 << 22  # entries that a trial may hold
WIDEST = 16  # taps of a convolution


class Steps(Rewriter):
    """`_step`: x + c (W x + b) with a square W that nothing else reads is (1 + c W) x + c b. `_tap`: the same of a convolution."""

    def __init__(self, graph: Graph, builder: Builder) -> None:
        super().__init__(graph, builder)
        updates = [u for v in graph.values if isinstance(v.op, Param) for u in v.op.updates]
        self.added = {name for u in updates for name in u.reads}  # to others, as they stand in the state dict

    def single(self, v: Value) -> bool:
        return super().single(v) and not (isinstance(v.op, Param) and v.op.name in self.added)

    def visit(self, v: Value) -> Value:
        if isinstance(v.op, Add) and len(v.args) >= 2 and v.learned:
            return self._step(v) or self._tap(v) or self.copy(v)
        return self.copy(v)

    def _step(self, v: Value) -> Value | None:
        assert isinstance(v.op, Add)
        if any(labels != v.op.out for labels, a in zip(v.op.ins, v.args, strict=True) if a.shape == v.shape):
            return None
        terms = self.terms(v)
        for c, y in terms:
            if not isinstance(y.op, Einsum) or len(y.args) != 2 or c == 0 or not self.single(y):
                continue
            for i in (0, 1):
                w, x = y.args[i], y.args[1 - i]
                same = [k for k, t in terms if t is x]
                if len(same) != 1 or not self._square(y, i) or not self.single(w):
                    continue
                leaf = self.new[w.id]
                if not isinstance(leaf.op, Param) or leaf.op.statistic or leaf.op.updates or not leaf.op.chart.signed:
                    continue
                steps = (("mul", c), ("eye", same[0])) if c != 1 else (("eye", same[0]),)
                op = Param(leaf.op.name, Chart((*leaf.op.chart.steps, *steps)))
                matrix = self.b._make(op, (), leaf.shape, learned=True, data=False)
                args = [self.new[x.id]] * 2
                args[i] = matrix
                made = self.b.op(y.op, args, y.shape)
                rest = [(k, self.new[t.id]) for k, t in terms if t is not y and t is not x]
                return self.b.add([made, *(t for _, t in rest)], [1.0, *(k for k, _ in rest)])
        return None

    def _tap(self, v: Value) -> Value | None:
        """x + c f(w + s, x) + the rest, f linear in both, where f(e, x) = x with e = 1 at one place of an axis of w and 0 at all
        others: c f(w + e / c + s, x) + the rest."""
        assert isinstance(v.op, Add)
        if any(labels != v.op.out for labels, a in zip(v.op.ins, v.args, strict=True) if a.shape == v.shape):
            return None
        terms = self.terms(v)
        for c, y in terms:
            for k, x in terms:
                found = self._weighed(y, x) if c and x is not y and x.shape == y.shape == v.shape else None
                tap = found and _tap_of(*found, y, x)
                if not found or tap is None:
                    continue
                (w, way), leaf = found, self.new[found[0].id]
                assert isinstance(leaf.op, Param)
                steps = (*leaf.op.chart.steps, (f"tap {tap[0]} {tap[1]}", k / c))
                op = replace(leaf.op, chart=Chart(steps))
                made = {w.id: self.b._make(op, (), leaf.shape, learned=True, data=False)}
                for node in way:
                    if any(a.id in made for a in node.args):
                        args = [made.get(a.id, self.new[a.id]) for a in node.args]
                        made[node.id] = self.b.op(node.op, args, node.shape)
                rest = [(e, self.new[t.id]) for e, t in terms if t is not y and t is not x]
                return self.b.add([made[y.id], *(t for _, t in rest)], [c, *(e for e, _ in rest)])
        return None

    def _weighed(self, y: Value, x: Value) -> tuple[Value, list[Value]] | None:
        """y as a function of x and one parameter, linear in both: the parameter, which nothing else reads, and the values on
        the way, in order."""
        way, todo = {y.id: y}, [y]
        weights: dict[int, Value] = {}
        while todo:
            node = todo.pop()
            product = isinstance(node.op, Einsum) and len(node.args) == 2 and all(a.learned for a in node.args)
            args = list(node.args) if product else linear_args(node) or []
            if isinstance(node.op, Add) and len(args) > 1:  # what is added to the weight stays as it is
                args = [a for a in args if self._leads(a)]
            if len(args) != 1 + product or len(way) > REACH:
                return None
            for a in args:
                if isinstance(a.op, Param):
                    weights[a.id] = a
                elif a is not x and a.id not in way:
                    way[a.id] = a
                    todo.append(a)
        order = [way[i] for i in sorted(way)]
        leaf = self.new[next(iter(weights))] if len(weights) == 1 else None
        if leaf is None or not isinstance(leaf.op, Param) or leaf.op.statistic or leaf.op.updates:
            return None
        (w,) = weights.values()
        held = [w]
        for n in order:
            if any(a in held for a in n.args):
                held.append(n)
        if not leaf.op.chart.signed or w.ndim < 2 or w.shape[-1] < 2 or not all(map(self.single, held)):
            return None
        return w, order

    def _leads(self, v: Value) -> bool:
        """A parameter, or a view of one, that nothing else reads."""
        while isinstance(v.op, Reshape | Slice | Einsum) and len(v.args) == 1 and self.single(v):
            (v,) = v.args
        return isinstance(v.op, Param) and self.single(v)

    def _square(self, y: Value, i: int) -> bool:
        """y = W x along the last axis of x, back into its place."""
        assert isinstance(y.op, Einsum)
        w, x = y.op.ins[i], y.op.ins[1 - i]
        matrix = y.args[i]
        if not isinstance(matrix.op, Param) or len(w) != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
            return False
        return x[:-1] == y.op.out[:-1] and set(w) == {x[-1], y.op.out[-1]} and y.args[1 - i].shape == y.shape


def linear_args(v: Value) -> list[Value] | None:
    """The operands that v is linear in with coefficients free of parameters; None if it is not of that kind."""
    learned = [a for a in v.args if a.learned]
    match v.op:
        case Add() | Concat():
            return learned if len(learned) == len(v.args) or all(is_zero(a) for a in v.args if not a.learned) else None
        case Einsum():
            return learned if len(learned) == 1 else None
        case Reshape() | Slice() | Mix():
            return learned
        case Along(linear=True) | Pointwise(linear=True):
            return learned
    return None


def is_zero(v: Value) -> bool:
    try:
        return isinstance(v.op, Free) and not v.data and v.numel < 1 << 20 and not bool(v.op.thunk().any())
    except KeyError:
        return False


def _tap_of(w: Value, way: list[Value], y: Value, x: Value) -> tuple[int, int] | None:
    """The place, and the axis of w, where ones make x of x: tried on one x, generic, which tells for all since y is linear in
    it."""
    if max(n.numel for n in way) > LARGEST:
        return None
    given = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    on = {n.id for n in way} | {w.id, x.id}
    still = {
        a.id: torch.zeros(a.shape, dtype=torch.float64) for n in way for a in n.args if a.learned and a.id not in on
    }
    for axis in sorted(range(w.ndim), key=lambda a: (a != w.ndim - 1, a)):
        for place in range(w.shape[axis]) if 1 < w.shape[axis] <= WIDEST else ():
            ones = torch.zeros(w.shape, dtype=torch.float64)
            ones.select(axis, place).fill_(1.0)
            try:
                if torch.equal(through(way, {x.id: given, w.id: ones} | still), given):
                    return place, axis - w.ndim
            except (KeyError, RuntimeError):
                return None
    return None


def through(way: list[Value], values: dict[int, Tensor]) -> Tensor:
    """The last of these values, each made from those before it; values: what the first are made from, by id."""
    for n in way:
        args = [values[a.id] if a.id in values else a.op.thunk() for a in n.args]  # type: ignore[union-attr]
        values[n.id] = evaluate(n.op, [a.double() if a.is_floating_point() else a for a in args], n.shape)
    return values[way[-1].id]
