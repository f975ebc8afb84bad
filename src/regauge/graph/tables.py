"""E[t] + f(t) = (E + f)[t]: a table that takes in what else is a function of the row that is read.

Where E is free to move, only the sum is seen, as where one matrix takes in the product of others (`absorb.py`). What f is made
of may be read elsewhere too; a part of it that is not may be anything.
"""

from __future__ import annotations

from regauge.graph.absorb import plain, replayable
from regauge.graph.ir import Add, Einsum, Free, Param, Reshape, Update, Value
from regauge.graph.rewrite import number
from regauge.graph.selections import LateSelections

LARGEST = 1 << 26  # entries of a table that is computed as a whole, in double precision, from what it takes in


class Tables(LateSelections):
    """`late`: the values that are functions of a given row, with what they are for each row."""

    def visit(self, v: Value) -> Value:
        found = self._begin(v) or self._carry(v)
        if found is not None and not found.inner.data:
            self.late[v.id] = found
        if isinstance(v.op, Add) and len(v.args) > 1 and v.learned and v.data and self._aligned(v):
            return self._absorbed(v) or self.copy(v)
        return self.copy(v)

    def _choice(self, v: Value) -> int | None:
        """Rows that the input chooses, instead of the network."""
        op = v.op
        one_hot = isinstance(op, Free) and op.data and op.key.startswith("one_hot:") and op.total is not None
        return op.total[0] if one_hot else None  # type: ignore[union-attr, index]

    def _aligned(self, v: Value) -> bool:
        """All terms stand as the sum does, those of inner sums too."""
        assert isinstance(v.op, Add)
        return all(
            a.shape != v.shape or labels == v.op.out and (a not in self._inner(v) or self._aligned(a))
            for labels, a in zip(v.op.ins, v.args, strict=True)
        )

    def _inner(self, v: Value) -> list[Value]:
        """The sums that `terms` writes out."""
        return [a for a in v.args if isinstance(a.op, Add) and self.single(a) and a.shape == v.shape and a.learned]

    def _absorbed(self, v: Value) -> Value | None:
        terms = self.terms(v)
        for i, (c, y) in enumerate(terms):
            table, own = self._table(y), self.late.get(y.id)
            if table is None or own is None or y.shape != v.shape or c == 0:
                continue
            w, scale = table
            lead = len(own.hot_axes)
            if own.hot_axes != tuple(range(lead)) or own.inner_axes != tuple(range(lead, v.ndim)):
                continue
            updates, rest = [], []
            for k, (e, z) in enumerate(terms):
                s = self.late.get(z.id)
                alike = s is not None and z.shape == v.shape and s.chosen_by(own) and s.inner_axes == own.inner_axes
                if k != i and s is not None and alike and replayable(s.inner):
                    updates.append(Update(self.b.scale(self.b.reshape(s.inner, w.shape), e / (c * scale))))
                elif k != i:
                    rest.append((e, self.new[z.id]))
            if updates:
                assert isinstance(w.op, Param)
                raised = self.b._make(Param(w.op.name, updates=tuple(updates)), (), w.shape, learned=True, data=False)
                made = self._again(y, w, raised)
                return self.b.add([made, *(t for _, t in rest)], [c, *(e for e, _ in rest)])
        return None

    def _table(self, y: Value) -> tuple[Value, float] | None:
        """The table of which y shows a row, through views, and by how much it is scaled on the way; nothing else reads it."""
        scale = 1.0
        while self.single(y):
            match y.op:
                case Reshape():
                    y = y.args[0]
                case Add((c,), (labels,), out) if labels == out:
                    scale, y = scale * c, y.args[0]
                case Einsum((_, _), out) if (numbers := [number(a) for a in y.args]) != [None, None]:
                    k = 0 if numbers[0] is None else 1
                    if y.op.ins[k] != out:
                        return None
                    scale, y = scale * (numbers[1 - k] or 0.0), y.args[k]
                case Einsum():
                    return self._read(y, scale)
                case _:
                    return None
        return None

    def _read(self, y: Value, scale: float) -> tuple[Value, float] | None:
        """(E, scale) where y = E[t], row by row."""
        assert isinstance(y.op, Einsum)
        if len(y.args) != 2 or scale == 0:
            return None
        for i in (0, 1):
            hot, w, chosen, labels = y.args[i], y.args[1 - i], y.op.ins[i], y.op.ins[1 - i]
            axis = self._choice(hot)
            if axis is None or not plain(self.new[w.id]) or not self.single(w) or w.ndim != 2 or w.numel > LARGEST:
                continue
            outer = tuple(l for l in chosen if l != chosen[axis])
            if labels[0] == chosen[axis] != labels[1] and y.op.out == (*outer, labels[1]):
                return w, scale
        return None

    def _again(self, y: Value, w: Value, raised: Value) -> Value:
        """y with another table."""
        if y is w:
            return raised
        return self.b.op(y.op, [self._again(a, w, raised) if _leads(a, w) else self.new[a.id] for a in y.args], y.shape)


def _leads(y: Value, w: Value) -> bool:
    return y is w or any(_leads(a, w) for a in y.args)
