"""Pass 4, first half: what a value's readers do not see.

`tolerance[block]` tells which disturbances of a block leave every observed output unchanged: all of them, or those that do
not depend on one of some sets of leaves (a score row before softmax tolerates what is equal for all keys; a stream that
only centring norms read tolerates what is equal in all coordinates; a key bias therefore everything). Read backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from regauge.graph.ir import Add, Along, Concat, Einsum, Mix, Param, Pointwise, Reshape, Slice
from regauge.solve.blocks import Block, Blocks, Relation, Term

Places = frozenset[int]


@dataclass(frozen=True)
class Tolerance:
    """`everything`, or disturbances that are constant along all leaves of one of `along`. joint: the same, if besides the
    disturbance is equal in all blocks into which those axes are cut."""

    everything: bool = False
    along: frozenset[Places] = frozenset()
    joint: frozenset[Places] = frozenset()

    def __and__(self, other: Tolerance) -> Tolerance:
        if self.everything:
            return other
        if other.everything:
            return self
        pairs = {a | b for a, b in product(self.along | self.joint, other.along | other.joint)}
        whole = {a | b for a, b in product(self.along, other.along)}
        return Tolerance(along=_smallest(whole), joint=_smallest(pairs - whole))

    def covers(self, varies: Places) -> bool:
        """Does it tolerate a disturbance that varies only along these leaves?"""
        return self.everything or any(not (u & varies) for u in self.along)


def _smallest(sets: set[Places]) -> frozenset[Places]:
    return frozenset(s for s in sets if not any(t < s for t in sets))


ALL = Tolerance(everything=True)


def tolerances(blocks: Blocks, relations: list[Relation]) -> dict[int, Tolerance]:
    """Tolerance of every block by id; blocks that nothing reads are left out."""
    readers: dict[int, list[Relation]] = {}
    for r in relations:
        for i in dict.fromkeys(t.block.id for t in r.ins):
            readers.setdefault(i, []).append(r)
    observed = {b.id for v in blocks.graph.outputs for b in blocks.of[v.id]}
    found: dict[int, Tolerance] = {}
    for v in reversed(blocks.graph.values):
        for b in blocks.of[v.id]:
            if b.id in observed:
                found[b.id] = Tolerance()
            elif b.id in readers:
                result = ALL
                for r in readers[b.id]:
                    if r.out.block.id not in found:
                        continue  # an updated statistic: not observed
                    result = result & _through(r, b, found[r.out.block.id], blocks, readers[b.id])
                    if not (result.everything or result.along or result.joint):
                        break
                found[b.id] = result
    return found


def _through(r: Relation, b: Block, out: Tolerance, blocks: Blocks, readers: list[Relation]) -> Tolerance:
    terms = [t for t in r.ins if t.block.id == b.id]
    if out.everything:
        return ALL
    if len(terms) > 1 and not isinstance(r.op, Add):
        return Tolerance()
    result = ALL
    for t in terms:
        one = _term(r, t, out, blocks, readers)
        result = result & one
    return result


def _term(r: Relation, t: Term, out: Tolerance, blocks: Blocks, readers: list[Relation]) -> Tolerance:
    """What the operand may suffer, from what the result may."""
    whole = _back(r, t, out.along, blocks, None)
    joint = _back(r, t, out.joint, blocks, readers) if out.joint else Tolerance()
    if whole.everything or joint.everything:
        return ALL
    return Tolerance(along=whole.along, joint=joint.along | whole.joint | joint.joint)


def _complete(r: Relation, t: Term, labels: Places, blocks: Blocks, readers: list[Relation] | None) -> bool:
    """The operand enters every block into which the axes of these labels are cut."""
    if readers is None:
        return True
    axes = {a for l, (a, _, _) in zip(r.out.labels, r.out.block.leaves, strict=True) if l in labels}
    reached = {x.out.block.id for x in readers if any(y.block.id == t.block.id for y in x.ins)}
    return all(b.id in reached for b in blocks.siblings(r.out.block, axes))


def _back(
    r: Relation, t: Term, sets_out: frozenset[Places], blocks: Blocks, readers: list[Relation] | None
) -> Tolerance:
    others = {l for o in r.ins if o is not t for l in o.labels}
    asked = [frozenset(r.out.labels[k] for k in u) for u in sets_out]  # as labels

    def back(sets: list[Places]) -> Tolerance:
        """Sets of labels of the result as leaves of the operand; none left: it is broadcast along the whole set."""
        mine = [frozenset(k for k, l in enumerate(t.labels) if l in u) for u in sets]
        if any(not m and _complete(r, t, u, blocks, readers) for m, u in zip(mine, sets, strict=True)):
            return ALL
        return Tolerance(along=_smallest({m for m in mine if m}))

    match r.op:
        case Einsum():
            return back([u for u in asked if not (u & others)])
        case Add():
            return back(asked)
        case Reshape() | Slice():
            return back([u for u in asked if not (u & r.touched) and u <= set(t.labels)])
        case Concat():
            cut = {l for l, (a, _, _) in zip(r.out.labels, r.out.block.leaves, strict=True) if a == r.op.axis}
            whole = t.block.value.shape[r.op.axis] == 1 and r.out.block.value.shape[r.op.axis] > 1
            return back(
                [
                    u
                    for u in asked
                    if not (u & r.touched) and u <= set(t.labels) and not (u & cut) and not (whole and not u)
                ]
            )
        case Mix():
            return back([u for u in asked if not (u & (r.planes | r.fixed))])
        case Pointwise() if t is not r.ins[0] and r.op.name == "drop":
            return back(asked)
        case Pointwise() if r.op.linear and not any(r.ins[i] is t for i in r.op.fixed):
            return back([u for u in asked if not (u & others)])
        case Along():
            result = Tolerance()
            if r.op.linear:
                result = back([u for u in asked if not (u & r.touched)])
            if r.op.blind and t is r.ins[0] and readers is None:
                touched = frozenset(k for k, l in enumerate(t.labels) if l in r.touched)
                if result.everything or not touched and entire(r, t):
                    return ALL
                if entire(r, t):
                    return Tolerance(along=_smallest({*result.along, touched}))
                # a block with one entry along the axis has no leaf there by which "equal in all blocks" could be followed
                return Tolerance(along=result.along, joint=frozenset({touched} if touched else ()))
            return result
    return Tolerance()


def entire(r: Relation, t: Term) -> bool:
    """The block holds the touched axes whole."""
    assert isinstance(r.op, Along)
    axes = {i for i, l in enumerate(r.op.ins[0]) if l in r.op.touched}
    shape = t.block.value.shape
    return prod(n for a, n, _ in t.block.leaves if a in axes) == prod(shape[a] for a in axes)


@dataclass(frozen=True)
class Unseen:
    """Directions of a parameter block that nobody sees: everything, or what is constant along one of the sets."""

    block: Block
    tolerance: Tolerance

    @property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        if self.tolerance.everything:
            return ((),)
        return tuple(sorted(tuple(sorted(u)) for u in self.tolerance.along))

    @property
    def dim(self) -> int:
        """Dimension of the sum of the spaces: inclusion and exclusion over unions of the sets."""
        if self.tolerance.everything:
            return prod(self.block.sizes)
        return span_dim(self.block.sizes, self.sets)


def span_dim(sizes: tuple[int, ...], sets: tuple[tuple[int, ...], ...]) -> int:
    total = 0
    for pick in range(1, 1 << len(sets)):
        chosen = [s for i, s in enumerate(sets) if pick >> i & 1]
        union = set().union(*chosen)
        total += (-1) ** (len(chosen) + 1) * prod(n for k, n in enumerate(sizes) if k not in union)
    return total


def unseen(blocks: Blocks, found: dict[int, Tolerance]) -> tuple[Unseen, ...]:
    out = []
    for v in blocks.graph.values:
        if isinstance(v.op, Param) and not v.op.statistic and v.op.chart.signed:
            for b in blocks.of[v.id]:
                t = found.get(b.id, Tolerance())
                if t.everything or t.along:
                    out.append(Unseen(b, t))
    return tuple(out)
