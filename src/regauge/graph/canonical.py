"""Brings a lowered graph to one form, whichever way the model was written.

sum(x * y) becomes a contraction, x - mean(x) a centring, an invertible function of one parameter a chart on it; what is
selected is selected late, axes that are joined for a while stay apart, and a detour that is linear with coefficients
free of parameters (rotary positions) becomes one `Mix`. The function does not change.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from regauge.graph.absorb import Absorb
from regauge.graph.build import Builder
from regauge.graph.flattening import LateFlattening
from regauge.graph.ir import (
    Add,
    Along,
    Chart,
    Concat,
    Einsum,
    Free,
    Graph,
    Param,
    Pointwise,
    Reshape,
    Slice,
    Value,
    evaluate,
)
from regauge.graph.rewrite import Rewriter, number, rewrite
from regauge.graph.rows import read_in_part, read_in_place, rows_of_table
from regauge.graph.selections import LateSelections
from regauge.graph.steps import LARGEST, Steps, is_zero, linear_args, through
from regauge.graph.tables import Tables

REACH = 48  # values that a detour may hold


def canonical(graph: Graph) -> Graph:
    graph = rewrite(graph, _Simplify)
    graph = rewrite(graph, LateSelections)
    graph = rewrite(graph, LateFlattening)
    graph = rewrite(graph, Absorb)
    graph = rewrite(graph, Tables)
    graph = rewrite(graph, Steps)
    return rewrite(graph, _Detours)


class _Simplify(Rewriter):
    def visit(self, v: Value) -> Value:
        match v.op:
            case Einsum() if any(not a.learned and is_zero(a) for a in (self.new[x.id] for x in v.args)):
                return self.b.zeros(v.shape)
            case Einsum((_,), _):
                return self._contraction(v) or self._unpermuted(v)
            case Einsum():
                found = self._without_ones(v) or read_in_place(self.b, v, self.new)
                return found or read_in_part(self.b, v, self.new, self.users) or self._unpermuted(v)
            case Slice() if isinstance(v.args[0].op, Param):
                return rows_of_table(self.b, v, self.new, self.users) or self.copy(v)
            case Add():
                return self._collected(v) or self._centring(v) or self._chart(v) or self.copy(v)
            case Pointwise(name="aten.exp.default"):
                return self._chart(v) or self.copy(v)
            case Pointwise(name="mask" | "drop" | "fill"):
                return self._safe_softmax(v) or self._masked_anyway(v) or self.copy(v)
        return self.copy(v)

    def _collected(self, v: Value) -> Value | None:
        """A value that is added several times: once, or not at all."""
        assert isinstance(v.op, Add)
        total: dict[tuple[int, tuple[int, ...]], float] = {}
        for c, labels, a in zip(v.op.coefs, v.op.ins, v.args, strict=True):
            total[a.id, labels] = total.get((a.id, labels), 0.0) + c
        if len(total) == len(v.args):
            return None
        left = {key: c for key, c in total.items() if c != 0}
        if not left:
            return self.b.zeros(v.shape)
        op = Add(tuple(left.values()), tuple(labels for _, labels in left), v.op.out)
        return self.b.op(op, [self.new[i] for i, _ in left], v.shape)

    def _safe_softmax(self, v: Value) -> Value | None:
        """0 in rows that are minus infinity throughout, else the softmax: the softmax, as attention means it."""
        condition, p = v.args
        steps: list[str] = []
        while len(condition.args) == 1 and (not steps or steps[-1] != "minus_infinite"):
            if not isinstance(condition.op, Reshape):
                steps.append(getattr(condition.op, "name", ""))
            if isinstance(condition.op, Along):
                rows = {i for i, l in enumerate(condition.op.ins[0]) if l in condition.op.touched}
            condition = condition.args[0]
        if steps != ["logical_not", "any", "logical_not", "minus_infinite"] or not isinstance(p.op, Along):
            return None
        same = {i for i, l in enumerate(p.op.ins[0]) if l in p.op.touched} == rows
        return self.new[p.id] if p.op.name == "softmax" and p.args[0] is condition and same else None

    def _without_ones(self, v: Value) -> Value | None:
        """A product without operands that are 1 throughout: one-hot rows of one entry, which choose from a table of one row."""
        assert isinstance(v.op, Einsum)
        given = [(labels, self.new[a.id]) for labels, a in zip(v.op.ins, v.args, strict=True)]
        left = [(labels, a) for labels, a in given if not _is_one(a)]
        kept = {*v.op.out, *(l for labels, _ in left for l in labels)}
        repeated = any(n > 1 and l not in kept for labels, a in given for l, n in zip(labels, a.shape, strict=True))
        if not left or len(left) == len(given) or repeated:
            return None
        return self._product(Einsum(tuple(l for l, _ in left), v.op.out), [a for _, a in left], v.shape)

    def _masked_anyway(self, v: Value) -> Value | None:
        """A mask on x that is masked again wherever the first one does anything: the second mask alone."""
        condition, x = v.args
        again = isinstance(x.op, Pointwise) and x.op.name in ("mask", "drop", "fill")
        if not again or condition.learned or condition.data or x.args[0].learned or x.args[0].data:
            return None
        assert isinstance(v.op, Pointwise) and isinstance(x.op, Pointwise)
        if x.op.ins[1] != x.op.out or v.op.ins[1] != v.op.out or x.numel > LARGEST:
            return None
        try:
            outer, inner = condition.op.thunk(), x.args[0].op.thunk()  # type: ignore[union-attr]
        except (KeyError, RuntimeError):
            return None
        given = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        twice = evaluate(v.op, [outer, evaluate(x.op, [inner, given], x.shape)], v.shape)
        same = torch.equal(twice, evaluate(v.op, [outer, given], v.shape))
        return self.b.op(v.op, [self.new[condition.id], self.new[x.args[1].id]], v.shape) if same else None

    def _unpermuted(self, v: Value) -> Value:
        assert isinstance(v.op, Einsum)
        return self._product(v.op, [self.new[a.id] for a in v.args], v.shape)

    def _product(self, op: Einsum, given: list[Value], shape: tuple[int, ...]) -> Value:
        """An einsum that reads a weight under its own labels where it was transposed or repeated on the way."""
        op, given = self._summed_first(op, given)
        ins, args = [], []
        for i, (labels, new) in enumerate(zip(op.ins, given, strict=True)):
            inner = new.op
            if isinstance(inner, Einsum) and len(new.args) == 1 and not new.data:
                held = {l for j, others in enumerate(op.ins) if j != i for l in others}
                repeated = {l for l, own in zip(labels, inner.out, strict=True) if own not in inner.ins[0]}
                if set(inner.ins[0]) <= set(inner.out) and repeated <= held:
                    labels = tuple(labels[inner.out.index(l)] for l in inner.ins[0])
                    new = new.args[0]
            ins.append(labels)
            args.append(new)
        return self.b.op(Einsum(tuple(ins), op.out), args, shape)

    def _summed_first(self, op: Einsum, given: list[Value]) -> tuple[Einsum, list[Value]]:
        """What only one factor has is summed there: of that sum a relation may be known, and how many terms it has."""
        if len(given) == 1:
            return op, given
        ins, args = [], []
        for i, (labels, x) in enumerate(zip(op.ins, given, strict=True)):
            held = {*op.out, *(l for j, others in enumerate(op.ins) if j != i for l in others)}
            kept = tuple(l for l in labels if l in held)
            if kept != labels:
                sizes = dict(zip(labels, x.shape, strict=True))
                x = self.b.op(Einsum((labels,), kept), [x], tuple(sizes[l] for l in kept))
            ins.append(kept)
            args.append(x)
        return Einsum(tuple(ins), op.out), args

    def _contraction(self, v: Value) -> Value | None:
        """sum over labels of a product that nothing else reads."""
        (x,) = v.args
        assert isinstance(v.op, Einsum)
        (labels,) = v.op.ins
        inner = x.op
        if not isinstance(inner, Einsum) or len(inner.ins) != 2 or not self.single(x) or set(labels) <= set(v.op.out):
            return None
        rename = dict(zip(inner.out, labels, strict=True))
        fresh = 10_000
        for l in {l for i in inner.ins for l in i} - set(rename):
            rename[l] = fresh = fresh + 1
        ins = tuple(tuple(rename[l] for l in i) for i in inner.ins)
        return self._product(Einsum(ins, v.op.out), [self.new[a.id] for a in x.args], v.shape)

    def _centring(self, v: Value) -> Value | None:
        """x - mean(x)."""
        assert isinstance(v.op, Add)
        if len(v.args) != 2 or v.op.ins[0] != v.op.out:
            return None
        x, m = v.args
        factor = v.op.coefs[1] / v.op.coefs[0] if v.op.coefs[0] else 0.0
        while True:
            match m.op:
                case Add((c,), (labels,), out) if labels == out:
                    factor, m = factor * c, m.args[0]
                case Reshape():
                    m = m.args[0]
                case _:
                    break
        if not isinstance(m.op, Einsum) or len(m.args) != 1 or m.args[0] is not x:
            return None
        axes = [i for i, l in enumerate(m.op.ins[0]) if l not in m.op.out]
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        if not axes or tuple(v.args[1].shape) != kept or abs(factor * prod(x.shape[a] for a in axes) + 1.0) > 1e-9:
            return None
        return self.b.scale(self.b.centre(self.new[x.id], axes), v.op.coefs[0])

    def _chart(self, v: Value) -> Value | None:
        """An invertible function of a parameter that nothing else reads."""
        leaves = [a for a in v.args if isinstance(a.op, Param)]
        if len(leaves) != 1 or v.shape != leaves[0].shape or not self.single(leaves[0]):
            return None
        leaf = self.new[leaves[0].id]
        assert isinstance(leaf.op, Param)
        if leaf.op.statistic or leaf.op.updates:
            return None
        match v.op:
            case Pointwise():
                steps: tuple[tuple[str, float], ...] = (("exp", 0.0),)
            case Add(coefs) if len(v.args) == 2:
                i = v.args.index(leaves[0])
                shift = number(v.args[1 - i])
                if shift is None or shift == 0 or coefs[i] == 0:
                    return None
                steps = (("mul", coefs[i]), ("add", shift * coefs[1 - i]))
            case _:
                return None
        chart = Chart((*leaf.op.chart.steps, *steps))
        op = Param(leaf.op.name, chart, leaf.op.statistic)
        return self.b._make(op, (), leaf.shape, learned=True, data=False)


class _Detours(Rewriter):
    """From a value and back to its shape, linearly and without parameters."""

    def __init__(self, graph: Graph, builder: Builder) -> None:
        super().__init__(graph, builder)
        self.cache: dict[object, tuple[int, Tensor, str] | None] = {}

    def visit(self, v: Value) -> Value:
        parts = v.args[0] if isinstance(v.op, Reshape) and isinstance(v.args[0].op, Concat) else v
        joins = isinstance(parts.op, Add | Concat) and sum(a.learned for a in parts.args) > 1
        if joins:
            new_v = Value(-1, v.op, tuple(self.new[a.id] for a in v.args), v.shape, True, v.data)
            found = self._detour(new_v)
            if found is not None:
                x, axis, matrix, key = found
                return self.b.mix(x, axis, matrix, key)
        return self.copy(v)

    def _detour(self, v: Value) -> tuple[Value, int, Tensor, str] | None:
        region: list[Value] = [v]
        frontier: dict[int, Value] = {}
        for a in linear_args(v) or ():
            frontier[a.id] = a
        while frontier and len(region) < REACH:
            last = max(frontier)
            if len(frontier) == 1 and _alike(frontier[last], v, region):
                root = frontier[last]
                if len(region) < 3 and not any(isinstance(r.op, Concat) for r in region):
                    return None  # x + x, x + c x: already one label to the passes
                return self._probe(v, root, region)
            node = frontier.pop(last)
            args = linear_args(node)
            if not args:
                return None
            region.append(node)
            for a in args:
                frontier[a.id] = a
        return None

    def _probe(self, v: Value, root: Value, region: list[Value]) -> tuple[Value, int, Tensor, str] | None:
        order = sorted(region, key=lambda r: r.id if r is not v else 1 << 60)
        index = {root.id: 0} | {r.id: i + 1 for i, r in enumerate(order)}
        key = (v.shape, tuple((r.op, tuple(index.get(a.id, ("free", a.id)) for a in r.args)) for r in order))
        if key not in self.cache:
            try:
                mixed = probe(root, order, v.shape)
                self.cache[key] = mixed and (*mixed, f"detour {len(self.cache)}")
            except (KeyError, RuntimeError):
                self.cache[key] = None
        found = self.cache[key]
        return None if found is None else (self.b.reshape(root, v.shape), *found)


def _alike(root: Value, v: Value, region: list[Value]) -> bool:
    """Of one shape, or differing by axes of size 1 that the detour reshapes away."""
    if root.shape == v.shape:
        return True
    if [n for n in root.shape if n != 1] != [n for n in v.shape if n != 1]:
        return False
    return all(isinstance(r.op, Reshape) for r in region if any(a is root for a in r.args))


def _is_one(v: Value) -> bool:
    """Rows of one entry that sum to 1, for every input."""
    return isinstance(v.op, Free) and v.op.total is not None and v.op.total[1] == 1 and v.shape[v.op.total[0]] == 1


def probe(root: Value, order: list[Value], shape: tuple[int, ...]) -> tuple[int, Tensor] | None:
    """The matrices of a linear detour that mixes one axis, found by running it on a basis; None if it is not of that kind."""
    generator = torch.Generator().manual_seed(0)

    def made(x: Tensor) -> Tensor:
        return through(order, {root.id: x})

    mixed: set[int] = set()
    for _ in range(6):
        where = [int(torch.randint(0, n, (), generator=generator)) for n in shape]
        x = torch.zeros(shape, dtype=torch.float64)
        x[tuple(where)] = 1.0
        hit = made(x).nonzero()
        mixed |= {a for a in range(len(shape)) if len(hit) and bool((hit[:, a] != where[a]).any())}
    if len(mixed) != 1:
        return None
    axis = mixed.pop()
    n = shape[axis]
    vector = torch.randn(n, generator=generator, dtype=torch.float64)
    same = torch.movedim(made(torch.movedim(vector.expand(*shape[:axis], *shape[axis + 1 :], n), -1, axis)), axis, -1)
    uniform = [a for a in range(same.ndim - 1) if bool((same == same.narrow(a, 0, 1)).all())]
    rest = [a for a in range(same.ndim - 1) if a not in uniform]
    room = prod(same.shape[a] for a in uniform)

    def columns(x: Tensor) -> Tensor:
        """The vectors along the axis as columns, side by side over the axes that the matrices do not depend on."""
        x = torch.movedim(x, axis, -1).permute(*rest, same.ndim - 1, *uniform)
        return x.reshape(*(same.shape[a] for a in rest), n, room)

    carried = []
    for first in range(0, n, room):  # as many basis vectors at once as there is room
        basis = torch.eye(n, dtype=torch.float64)[first : first + room]
        rows = torch.cat([basis, basis.new_zeros(room - len(basis), n)]).reshape(*(same.shape[a] for a in uniform), n)
        for a in rest:
            rows = rows.unsqueeze(a)
        image = columns(made(torch.movedim(rows.expand(same.shape), -1, axis)))
        carried.append(image[..., : len(basis)])
    matrix = torch.cat(carried, -1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    y = columns(made(x))
    if (matrix @ columns(x) - y).abs().max() > 1e-9 * (1.0 + y.abs().max()):
        return None  # not linear, or other along some place
    matrix = matrix.reshape(*(1 if a in uniform else m for a, m in enumerate(same.shape[:-1])), n, n)
    return axis, matrix
