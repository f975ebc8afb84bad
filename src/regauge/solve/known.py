"""Linear relations that values are known to satisfy: phi . x = kappa for every input.

One-hot and softmax rows sum to 1, a centred value to 0; a gain turns phi into phi / gain, a shift moves kappa by
phi . shift. A linear reader of such a value can take up u phi^T: its result moves by the constant u kappa.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from regauge.graph.ir import Add, Along, Concat, Einsum, Free, Mix, Pointwise, Reshape, Slice, Value
from regauge.solve.blocks import Block, Blocks, Relation, Term
from regauge.solve.frames import evaluable


@dataclass(frozen=True)
class Known:
    """sum over the leaves `along` of phi x = kappa. phi: 1 divided by the gains; kappa: constant + sum of phi . shift.

    shifts: (coefficient, block, number of gains that came before). axis: the sum runs over all blocks into which this
    axis of the value is cut.
    """

    along: frozenset[int]
    constant: float
    gains: tuple[Block, ...] = ()
    shifts: tuple[tuple[float, Block, int], ...] = ()
    axis: int | None = None

    @property
    def partial(self) -> bool:
        return self.axis is not None

    @property
    def zero(self) -> bool:
        return self.constant == 0 and not self.shifts

    def at(self, along: frozenset[int], factor: float = 1.0) -> Known:
        shifts = tuple((c * factor, b, n) for c, b, n in self.shifts)
        return Known(along, self.constant * factor, self.gains, shifts)


def known_relations(blocks: Blocks, relations: list[Relation]) -> dict[int, Known]:
    """At most one relation a block: the one that lasts longest on the way."""
    writers: dict[int, list[Relation]] = {}
    for r in relations:
        writers.setdefault(r.out.block.id, []).append(r)
    found: dict[int, Known] = {}
    for v in blocks.graph.values:
        for b in blocks.of[v.id]:
            if isinstance(v.op, Free):
                if v.op.total is not None:
                    axis, total = v.op.total
                    along = frozenset(k for k, (a, _, _) in enumerate(b.leaves) if a == axis)
                    if prod(b.sizes[k] for k in along) == v.shape[axis]:
                        found[b.id] = Known(along, total)
                continue
            made = writers.get(b.id, [])
            if len(made) == 1 or isinstance(v.op, Along) and v.op.total is not None or _stacked(v, made):
                steps = [_step(r, found) for r in made]
                if steps[0] is not None and all(k == steps[0] for k in steps):
                    found[b.id] = steps[0]
    return found


def _stacked(v: Value, made: list[Relation]) -> bool:
    """Operands one after another along an axis that is not cut, all of them there: each must satisfy the relation."""
    whole = {a.id for a in v.args} == {t.block.value.id for r in made for t in r.ins}
    return bool(made) and isinstance(v.op, Concat) and whole


def _step(r: Relation, found: dict[int, Known]) -> Known | None:
    if isinstance(r.op, Along) and r.op.total is not None:
        return _total(r)
    for t in r.ins:
        k = found.get(t.block.id)
        if k is None:
            continue
        moved = _carry(r, t, k)
        if moved is not None:
            return moved
    return None


def _total(r: Relation) -> Known | None:
    assert isinstance(r.op, Along) and r.op.total is not None
    axes = {i for i, l in enumerate(r.op.out) if l in r.op.touched}
    shape = r.out.block.value.shape
    along = frozenset(k for k, (a, _, _) in enumerate(r.out.block.leaves) if a in axes)
    partial = prod(r.out.block.sizes[k] for k in along) != prod(shape[a] for a in axes)
    if not partial:
        return Known(along, r.op.total) if along else None
    return Known(along, r.op.total, axis=min(axes)) if len(axes) == 1 else None


def _carry(r: Relation, t: Term, k: Known) -> Known | None:
    labels = {t.labels[i] for i in k.along}
    if not labels <= set(r.out.labels):
        return None
    if k.axis is not None:
        return _carry_cut(r, t, k)
    along = frozenset(i for i, l in enumerate(r.out.labels) if l in labels)
    others = [o for o in r.ins if o is not t]
    held = {l for o in others for l in o.labels}
    match r.op:
        case Einsum():
            summed = [l for l in t.labels if l not in r.out.labels]
            if not others:
                count = prod(t.block.sizes[t.labels.index(l)] for l in summed)
                return k.at(along, float(count))
            if not (labels & held):
                return k.at(along) if k.zero else None
            if len(others) == 1 and not summed and set(others[0].labels) == labels and _gain(others[0].block.value):
                return Known(along, k.constant, (*k.gains, others[0].block), k.shifts)
            return None
        case Add(coefs):
            c = coefs[[i for i, o in enumerate(r.ins) if o is t][0]]
            shifts = []
            for o, co in zip(r.ins, coefs, strict=True):
                if o is t:
                    continue
                if not _gain(o.block.value) or set(o.labels) != labels:
                    return None
                shifts.append((co, o.block, len(k.gains)))
            moved = k.at(along, c)
            return Known(along, moved.constant, moved.gains, (*moved.shifts, *shifts))
        case Reshape() | Slice() | Concat() | Mix():
            if labels & (r.touched | r.planes | r.fixed) or not _entire_axes(r, t, labels):
                return None
            weight = _weight(r.op, t) if isinstance(r.op, Mix) and not k.zero else 1.0
            return None if weight is None else k.at(along, weight)
        case Pointwise() if r.op.linear and not (labels & held):
            return k.at(along) if k.zero else None
        case Along() if r.op.linear and not (labels & r.touched):
            return k.at(along) if k.zero or r.op.constants else None
    return None


def _carry_cut(r: Relation, t: Term, k: Known) -> Known | None:
    """A relation over several blocks goes on where the cut axis stays what it is, counted from the end."""
    old, new = t.block.value.shape, r.out.block.value.shape
    assert k.axis is not None
    end = k.axis - len(old)
    labels = {t.labels[i] for i in k.along}
    if not isinstance(r.op, Reshape) or old[end:] != new[end:] or labels & r.touched:
        return None
    along = frozenset(i for i, l in enumerate(r.out.labels) if l in labels)
    return Known(along, k.constant, axis=len(new) + end)


def _weight(op: Mix, t: Term) -> float | None:
    """How often a mixing adds up what all positions have alike, where that is the same everywhere."""
    sums = op.matrix.sum(-1)
    whole = prod(n for a, n, _ in t.block.leaves if a == op.axis) == t.block.value.shape[op.axis]
    even = whole and bool((sums - sums.flatten()[0]).abs().max() <= 1e-12 * op.matrix.abs().max())
    return float(sums.flatten()[0]) if even else None


def _gain(v: Value) -> bool:
    return evaluable(v)


def _entire_axes(r: Relation, t: Term, labels: set[int]) -> bool:
    """A slice may cut the relation: it must hold every index that the operand had."""
    return prod(t.block.sizes[i] for i, l in enumerate(t.labels) if l in labels) == prod(
        n for n, l in zip(r.out.block.sizes, r.out.labels, strict=True) if l in labels
    )
