"""What is selected from parameters is selected late: a choice among experts follows their work instead of leading it.

With one-hot rows h, f(sum_e h_e A_e, x) = sum_e h_e f(A_e, x). On the left the hidden values of a chosen expert have lost the axis
of experts, and with it what each expert may do on its own; on the right every expert has its own. The function is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from regauge.graph.build import Builder
from regauge.graph.ir import Add, Along, Concat, Einsum, Graph, Labels, Pointwise, Reshape, Slice, Value
from regauge.graph.rewrite import Rewriter

CHOSEN = 30_000  # the label of the axis that is chosen from


@dataclass(frozen=True)
class Selection:
    """A value as sum_e hot[.., e] inner[e, ..]. hot, inner: axes of the value that their other axes are, in its order."""

    hot: Value
    hot_axes: tuple[int, ...]  # e comes last
    inner: Value
    inner_axes: tuple[int, ...]  # e comes first

    def chosen_by(self, other: Selection) -> bool:
        return self.hot is other.hot and self.hot_axes == other.hot_axes


class LateSelections(Rewriter):
    def __init__(self, graph: Graph, builder: Builder) -> None:
        super().__init__(graph, builder)
        self.late: dict[int, Selection] = {}
        self.choices: dict[int, int | None] = {}

    def visit(self, v: Value) -> Value:
        found = self._begin(v) or self._carry(v)
        if found is None:
            return self._summed(v) or self.copy(v)
        self.late[v.id] = found
        return self._selected(found, range(v.ndim), range(v.ndim))

    def _selected(self, s: Selection, labels: Sequence[int], out: Sequence[int]) -> Value:
        """The value itself, labelled, summed over the labels that are not in `out`."""
        hot, inner = [*(labels[k] for k in s.hot_axes), CHOSEN], [CHOSEN, *(labels[k] for k in s.inner_axes)]
        return self.b.einsum([hot, inner], out, s.hot, s.inner)

    def _summed(self, v: Value) -> Value | None:
        """A contraction over the axes that choose: selected, then summed."""
        if not isinstance(v.op, Einsum):
            return None
        sizes = {l: n for a, labels in zip(v.args, v.op.ins, strict=True) for l, n in zip(labels, a.shape, strict=True)}
        late = [(self.late[a.id], labels) for a, labels in zip(v.args, v.op.ins, strict=True) if a.id in self.late]
        over = [labels[k] for s, labels in late for k in s.hot_axes if labels[k] not in v.op.out]
        if not over:
            return None
        out = (*v.op.out, *dict.fromkeys(over))
        whole = replace(v, op=replace(v.op, out=out), shape=tuple(sizes[l] for l in out))
        found = self._together(whole, whole.op) if set(out) <= set(sizes) else None  # type: ignore[arg-type]
        return None if found is None else self._selected(found, out, v.op.out)

    def _begin(self, v: Value) -> Selection | None:
        """A parameter, read at chosen rows."""
        if not isinstance(v.op, Einsum) or len(v.args) != 2:
            return None
        for i in (0, 1):
            hot, w, chosen, labels = v.args[i], v.args[1 - i], v.op.ins[i], v.op.ins[1 - i]
            axis = self._choice(hot)
            if axis is None or w.data or not w.learned or len(set(chosen)) != len(chosen):
                continue
            e = chosen[axis]
            rest = [l for l in labels if l != e]
            outer = [l for l in chosen if l != e]
            if e in v.op.out or labels.count(e) != 1 or not set(rest) | set(outer) <= set(v.op.out):
                continue
            if set(v.op.out) != set(rest) | set(outer) or set(rest) & set(outer) or len(set(rest)) != len(rest):
                continue
            place = v.op.out.index
            hot_order = sorted(outer, key=place)
            inner_order = sorted(rest, key=place)
            return Selection(
                self.b.permute(self.new[hot.id], [*(chosen.index(l) for l in hot_order), axis]),
                tuple(map(place, hot_order)),
                self.b.permute(self.new[w.id], [labels.index(e), *(labels.index(l) for l in inner_order)]),
                tuple(map(place, inner_order)),
            )
        return None

    def _carry(self, v: Value) -> Selection | None:
        """An operation on selected values, done before the selection."""
        late = [self.late[a.id] for a in v.args if a.id in self.late]
        if not late:
            return None
        match v.op:
            case Einsum():
                return self._together(v, v.op)
            case Add() | Pointwise():
                if any(a.learned and a.id not in self.late for a in v.args):
                    return None
                return self._together(v, v.op)
            case Slice(axis, start):
                return self._sliced(v, late[0], axis, start)
            case Reshape():
                return self._reshaped(v, late[0])
        return None

    def _together(self, v: Value, op: Einsum | Add | Pointwise) -> Selection | None:
        ins, out = op.ins, op.out
        first: tuple[Selection, Labels] | None = None
        kept: set[int] = set()
        for a, labels in zip(v.args, ins, strict=True):
            s = self.late.get(a.id)
            if s is None:
                continue
            outer = tuple(labels[k] for k in s.hot_axes)
            if len(set(labels)) != len(labels) or not set(outer) <= set(out):
                return None
            if first is not None and (s.hot is not first[0].hot or outer != first[1]):
                return None
            first = first or (s, outer)
        assert first is not None
        chosen, outer = first
        args, inner_ins = [], []
        for a, labels in zip(v.args, ins, strict=True):
            s = self.late.get(a.id)
            args.append(self.new[a.id] if s is None else s.inner)
            own = labels if s is None else (CHOSEN, *(labels[k] for k in s.inner_axes))
            inner_ins.append(own)
            kept |= set(own)
        missing = set(out) - kept - set(outer)
        if missing or list(outer) != sorted(outer, key=out.index):
            return None
        axes = tuple(i for i, l in enumerate(out) if l in kept)
        inner_out = (CHOSEN, *(out[i] for i in axes))
        e = chosen.inner.shape[0]
        inner = self.b.op(replace(op, ins=tuple(inner_ins), out=inner_out), args, [e, *(v.shape[i] for i in axes)])
        return Selection(chosen.hot, tuple(out.index(l) for l in outer), inner, axes)

    def _sliced(self, v: Value, s: Selection, axis: int, start: int) -> Selection | None:
        if axis in s.hot_axes:
            return None
        inner = self.b.slice(s.inner, 1 + s.inner_axes.index(axis), start, start + v.shape[axis])
        return replace(s, inner=inner)

    def _reshaped(self, v: Value, s: Selection) -> Selection | None:
        """Axes that choose stay whole; the others may be cut and joined among themselves."""
        (x,) = v.args
        groups = matched(x.shape, v.shape)
        if groups is None:
            return None
        hot_axes: dict[int, int] = {}
        shape, inner_axes = [s.inner.shape[0]], []
        for old, new in groups:
            if any(a in s.hot_axes for a in old):
                if len(old) != 1 or len(new) != 1:
                    return None
                hot_axes[old[0]] = new[0]
            inside = [a in s.inner_axes for a in old]
            if any(inside) and not all(inside):
                return None
            if all(inside):
                shape += [v.shape[a] for a in new]
                inner_axes += new
        return Selection(
            s.hot, tuple(hot_axes[a] for a in s.hot_axes), self.b.reshape(s.inner, shape), tuple(inner_axes)
        )

    def _choice(self, v: Value) -> int | None:
        """The axis along which a learned value is known to be one-hot."""
        if v.id not in self.choices:
            self.choices[v.id] = self._choice_of(v)
        return self.choices[v.id]

    def _choice_of(self, v: Value) -> int | None:
        match v.op:
            case Along(choice=True, out=out, touched=touched):
                return out.index(next(iter(touched)))
            case Concat(axis):
                axes = {self._choice(a) for a in v.args}
                return axes.pop() if len(axes) == 1 and axis not in axes else None
            case Slice(axis):
                found = self._choice(v.args[0])
                return found if found != axis else None
            case Einsum((labels,), out):
                found = self._choice(v.args[0])
                whole = set(labels) <= set(out) and len(set(labels)) == len(labels)
                return None if found is None or not whole else out.index(labels[found])
            case Reshape():
                found = self._choice(v.args[0])
                groups = matched(v.args[0].shape, v.shape) if found is not None else None
                return next((new[0] for old, new in groups or () if old == [found] and len(new) == 1), None)
        return None


def matched(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]] | None:
    """The finest groups of old and new axes that hold the same entries; axes of size 1 stand alone where they can."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new) and old[i] == new[j]:
            groups.append(([i], [j]))
            i, j = i + 1, j + 1
            continue
        if i < len(old) and old[i] == 1:
            groups.append(([i], []))
            i += 1
            continue
        if j < len(new) and new[j] == 1:
            groups.append(([], [j]))
            j += 1
            continue
        if i == len(old) or j == len(new):
            return None
        left, right, a, b = [i], [j], old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(old):
                a, i = a * old[i], i + 1
                left.append(i - 1)
            elif b < a and j < len(new):
                b, j = b * new[j], j + 1
                right.append(j - 1)
            else:
                return None
        groups.append((left, right))
    return groups
