"""W x + c B A x = (W + c B A) x: a matrix that takes in the product of others.

Where W is free to move, only the sum is seen: what the others do, W makes up for. The graph then reads one parameter, the
sum, as it reads a parameter in a chart; others that nothing else reads may be anything.
"""

from __future__ import annotations

from regauge.graph.ir import Add, Concat, Einsum, Free, Param, Pointwise, Reshape, Slice, Update, Value
from regauge.graph.rewrite import Rewriter

SMALL = 16  # entries of a constant that is written down with what is made of it


def replayable(v: Value) -> bool:
    """Made of parameters as they stand in the state dict, by operations that can be done again from a written graph."""
    if v.data:
        return False
    match v.op:
        case Param():
            return plain(v)
        case Free():
            return v.numel <= SMALL and _known(v)
        case Einsum() | Add() | Reshape() | Slice() | Concat():
            return all(map(replayable, v.args))
        case Pointwise():
            return v.op.call is not None and all(map(replayable, v.args))
    return False


def plain(v: Value) -> bool:
    """A parameter as it stands in the state dict."""
    return isinstance(v.op, Param) and not v.op.statistic and not v.op.chart.steps and not v.op.updates


def _known(v: Value) -> bool:
    try:
        return v.op.thunk() is not None  # type: ignore[union-attr]
    except (KeyError, RuntimeError):
        return False


class Absorb(Rewriter):
    def visit(self, v: Value) -> Value:
        if isinstance(v.op, Add) and v.learned and len(v.args) >= 2:
            return self._maps(v) if v.data else self._matrices(v) or self.copy(v)
        return self.copy(v)

    def _maps(self, v: Value) -> Value:
        """W x + c B (A x) + the rest."""
        assert isinstance(v.op, Add)
        if any(labels != v.op.out for labels, a in zip(v.op.ins, v.args, strict=True) if a.shape == v.shape):
            return self.copy(v)
        terms = self.terms(v)
        for c, y in terms:
            found = self._linear(y) if c else None
            if found is None:
                continue
            matrix, flipped, x = found
            taken: dict[int, Update] = {}
            for k, (e, other) in enumerate(terms):
                product = None if other is y or other.shape != y.shape else self._chain(other, x)
                if product is not None:
                    made = self.b.permute(product, [1, 0]) if flipped else product
                    taken[k] = Update(self.b.scale(made, e / c))
            if not taken:
                continue
            assert isinstance(y.op, Einsum)
            args = [self._raised(a, tuple(taken.values())) if a is matrix else self.new[a.id] for a in y.args]
            rest = [(e, self.new[t.id]) for k, (e, t) in enumerate(terms) if t is not y and k not in taken]
            made = self.b.op(y.op, args, y.shape)
            return self.b.add([made, *(t for _, t in rest)], [c, *(e for e, _ in rest)])
        return self.copy(v)

    def _matrices(self, v: Value) -> Value | None:
        """W + c B A, summed before it is read."""
        assert isinstance(v.op, Add)
        if len(v.args) != 2 or v.ndim != 2 or any(labels != v.op.out for labels in v.op.ins):
            return None
        for i in (0, 1):
            w, other = v.args[i], self.new[v.args[1 - i].id]
            if v.op.coefs[i] == 1 and self._open(w) and not isinstance(other.op, Param) and replayable(other):
                return self._raised(w, (Update(self.b.scale(other, v.op.coefs[1 - i])),))
        return None

    def _open(self, w: Value) -> bool:
        """A matrix that nothing else reads, as it stands in the state dict."""
        return plain(self.new[w.id]) and w.ndim == 2 and self.single(w)

    def _raised(self, w: Value, updates: tuple[Update, ...]) -> Value:
        assert isinstance(w.op, Param)
        return self.b._make(Param(w.op.name, updates=updates), (), w.shape, learned=True, data=False)

    def _linear(self, y: Value) -> tuple[Value, bool, Value] | None:
        """y = W x along the last axis: W, whether it is stored as (in, out), and x."""
        if not isinstance(y.op, Einsum) or len(y.args) != 2 or not self.single(y):
            return None
        for i in (0, 1):
            w, x = y.args[i], y.args[1 - i]
            mine, theirs = y.op.ins[i], y.op.ins[1 - i]
            if not self._open(w) or not x.data or theirs[:-1] != y.op.out[:-1] or len(theirs) != len(y.op.out):
                continue
            if mine == (y.op.out[-1], theirs[-1]) and mine[0] != mine[1]:
                return w, False, x
            if mine == (theirs[-1], y.op.out[-1]) and mine[0] != mine[1]:
                return w, True, x
        return None

    def _chain(self, y: Value, x: Value) -> Value | None:
        """The matrix of y, a product of matrices on x that nothing else reads."""
        scale, product = 1.0, None
        while y is not x:
            if isinstance(y.op, Add) and len(y.args) == 1 and y.op.ins[0] == y.op.out and self.single(y):
                scale, y = scale * y.op.coefs[0], y.args[0]
                continue
            found = self._linear(y)
            if found is None:
                return None
            w, flipped, y = found
            inner = self.b.permute(self.new[w.id], [1, 0]) if flipped else self.new[w.id]
            product = inner if product is None else self.b.einsum(((0, 1), (1, 2)), (0, 2), product, inner)
        return None if product is None else self.b.scale(product, scale)
