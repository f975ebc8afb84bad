"""W x + c B A x = (W + c B A) x: a matrix that takes in the product of others.

Where W is free to move and nothing else reads B and A, only the sum is seen: B and A may be anything, and W makes up for
them. The graph then reads one parameter, the sum, as it reads a parameter in a chart.
"""

from __future__ import annotations

from regauge.graph.ir import Add, Einsum, Factor, Param, Update, Value
from regauge.graph.rewrite import Rewriter


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
                factors = None if other is y or other.shape != y.shape else self._chain(other, x)
                if factors is not None:
                    taken[k] = Update(e * factors[0] / c, factors[1], flipped)
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
            w, c, other = v.args[i], v.op.coefs[i], v.args[1 - i]
            if not self._open(w) or c != 1:
                continue
            scale, flipped = v.op.coefs[1 - i], False
            while len(other.args) == 1 and other.ndim == 2 and self.single(other):
                if isinstance(other.op, Add) and other.op.ins[0] == other.op.out:
                    scale *= other.op.coefs[0]
                elif isinstance(other.op, Einsum) and other.op.ins[0] == other.op.out[::-1]:
                    flipped = not flipped
                else:
                    break
                other = other.args[0]
            factors = self._product(other)
            if factors is not None:
                return self._raised(w, (Update(scale, factors, flipped),))
        return None

    def _open(self, w: Value) -> bool:
        """A matrix that nothing else reads, as it stands in the state dict."""
        op = w.op
        plain = isinstance(op, Param) and not op.statistic and not op.chart.steps and not op.updates
        return plain and w.ndim == 2 and self.single(w)

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

    def _chain(self, y: Value, x: Value) -> tuple[float, tuple[Factor, ...]] | None:
        """y as a product of matrices on x, last factor first, with a number."""
        scale, factors = 1.0, []
        while y is not x:
            if isinstance(y.op, Add) and len(y.args) == 1 and y.op.ins[0] == y.op.out and self.single(y):
                scale, y = scale * y.op.coefs[0], y.args[0]
                continue
            found = self._linear(y)
            if found is None:
                return None
            w, flipped, y = found
            factors.append(self._factor(w, flipped))
        return (scale, tuple(factors)) if factors else None

    def _product(self, y: Value) -> tuple[Factor, ...] | None:
        """A product of two matrices that nothing else reads."""
        if not isinstance(y.op, Einsum) or len(y.args) != 2 or not self.single(y) or not all(map(self._open, y.args)):
            return None
        (a, b), out = y.op.ins, y.op.out
        shared = set(a) & set(b)
        if len(shared) != 1 or len(out) != 2 or shared & set(out) or y.args[0] is y.args[1]:
            return None
        left, right = (0, 1) if out[0] in a else (1, 0)
        (inner,) = shared
        return (
            self._factor(y.args[left], y.op.ins[left] == (inner, out[0])),
            self._factor(y.args[right], y.op.ins[right] == (out[1], inner)),
        )

    def _factor(self, w: Value, flipped: bool) -> Factor:
        assert isinstance(w.op, Param)
        return Factor(w.op.name, (w.shape[0], w.shape[1]), flipped)
