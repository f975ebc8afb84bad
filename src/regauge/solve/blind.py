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
from regauge.solve.known import Known

Places = frozenset[int]


@dataclass(frozen=True)
class Tolerance:
    """`everything`, or disturbances that are constant along all leaves of one of `along`. joint: the same, if besides the
    disturbance is equal in all blocks into which the axis of the value is cut that comes first."""

    everything: bool = False
    along: frozenset[Places] = frozenset()
    joint: frozenset[tuple[int, Places]] = frozenset()

    def __and__(self, other: Tolerance) -> Tolerance:
        if self.everything:
            return other
        if other.everything:
            return self
        whole = {a | b for a, b in product(self.along, other.along)}
        pairs = {(x, a | b) for (x, a), b in product(self.joint, other.along)}
        pairs |= {(x, a | b) for (x, a), b in product(other.joint, self.along)}
        pairs |= {(x, a | b) for (x, a), (y, b) in product(self.joint, other.joint) if x == y}
        return Tolerance(along=_smallest(whole), joint=frozenset((x, u) for x, u in pairs if u not in whole))

    def covers(self, varies: Places) -> bool:
        """Does it tolerate a disturbance that varies only along these leaves?"""
        return self.everything or any(not (u & varies) for u in self.along)


def _smallest(sets: set[Places]) -> frozenset[Places]:
    return frozenset(s for s in sets if not any(t < s for t in sets))


ALL = Tolerance(everything=True)


def tolerances(blocks: Blocks, relations: list[Relation], known: dict[int, Known]) -> dict[int, Tolerance]:
    """Tolerance of every block by id; blocks that nothing reads are left out. known: relations that values satisfy."""
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
                    out = _of_result(r, found, blocks)
                    if out is None:
                        continue  # an updated statistic: not observed
                    result = result & _through(r, b, out, blocks, readers[b.id], known)
                    if not (result.everything or result.along or result.joint):
                        break
                found[b.id] = result
    return found


def _of_result(r: Relation, found: dict[int, Tolerance], blocks: Blocks) -> Tolerance | None:
    """What the result of a relation tolerates; None if nothing reads it. What acts along an axis that is cut carries a
    disturbance of one part into all others (the sum of a softmax), so that all of them must tolerate it."""
    own = r.out.block
    axes = {i for i, l in enumerate(r.op.out) if l in r.op.touched} if isinstance(r.op, Along) else set()
    parts = blocks.siblings(own, axes)
    if not any(b.id in found for b in parts):
        return None
    if len(parts) == 1:
        return found[own.id]
    index = {leaf: k for k, leaf in enumerate(own.leaves) if leaf[0] not in axes}
    result = ALL
    for b in parts:
        t = found.get(b.id, ALL)
        if not t.everything:
            here = {k: index[leaf] for k, leaf in enumerate(b.leaves) if leaf in index}
            along = {frozenset(map(here.__getitem__, u)) for u in t.along if u <= here.keys()}
            joint = {(a, frozenset(map(here.__getitem__, u))) for a, u in t.joint if a not in axes and u <= here.keys()}
            result = result & Tolerance(along=_smallest(along), joint=frozenset(joint))
    return result


def _through(
    r: Relation, b: Block, out: Tolerance, blocks: Blocks, readers: list[Relation], known: dict[int, Known]
) -> Tolerance:
    terms = [t for t in r.ins if t.block.id == b.id]
    if out.everything:
        return ALL
    if len(terms) > 1 and not isinstance(r.op, Add):
        return Tolerance()
    result = ALL
    for t in terms:
        one = _term(r, t, out, blocks, readers, known)
        result = result & one
    return result


def _term(
    r: Relation, t: Term, out: Tolerance, blocks: Blocks, readers: list[Relation], known: dict[int, Known]
) -> Tolerance:
    """What the operand may suffer, from what the result may."""
    whole = _back(r, t, out.along, known)
    joint = _joint(r, t, out.joint, blocks, readers, known)
    if whole.everything or joint.everything:
        return ALL
    return Tolerance(along=whole.along | joint.along, joint=whole.joint | joint.joint)


def _joint(
    r: Relation,
    t: Term,
    asked: frozenset[tuple[int, Places]],
    blocks: Blocks,
    readers: list[Relation],
    known: dict[int, Known],
) -> Tolerance:
    """As `_back`, for disturbances that are equal in all blocks along an axis of the result."""
    along: set[Places] = set()
    joint: set[tuple[int, Places]] = set()
    for axis, places in asked:
        labels = frozenset(r.out.labels[k] for k in places)
        found = _axis(r, t, axis, known)
        if found is None:
            continue
        back = _back(r, t, frozenset({places}), known)
        averaged = _averaged(r, t, known)
        choices = [frozenset(k for k, l in enumerate(t.labels) if l in s) for s in (labels, labels | averaged)]
        mine = next((c for c in choices if back.everything or c in back.along), None)
        if mine is None:
            continue
        if found >= 0:
            joint.add((found, mine))
            continue
        siblings = {b.id for b in blocks.siblings(r.out.block, {axis})}
        reached = {
            x.out.block.id: x for x in readers for y in x.ins if y.block.id == t.block.id and x.out.block.id in siblings
        }
        if siblings > reached.keys() or averaged and not all(_same_average(x, t, known) for x in reached.values()):
            continue
        if not mine:
            return ALL
        along.add(mine)
    return Tolerance(along=_smallest(along), joint=frozenset(joint))


def _averaged(r: Relation, t: Term, known: dict[int, Known]) -> frozenset[int]:
    """Labels over which the operand is averaged, by rows that are chosen or weights that sum to one: a constant along them
    is added to every average alike."""
    others = [o for o in r.ins if o is not t]
    if not isinstance(r.op, Einsum) or len(others) != 1:
        return frozenset()
    (o,) = others
    k = known.get(o.block.id)
    summed = frozenset(l for l in t.labels if l not in r.out.labels)
    if k is None or k.partial or k.gains or k.shifts or k.constant != 1:
        return frozenset()
    return summed if {o.labels[i] for i in k.along} == summed and len(set(o.labels)) == len(o.labels) else frozenset()


def _same_average(r: Relation, t: Term, known: dict[int, Known]) -> bool:
    return all(_averaged(r, y, known) for y in r.ins if y.block.id == t.block.id)


def _axis(r: Relation, t: Term, axis: int, known: dict[int, Known]) -> int | None:
    """The axis of the operand that an axis of the result is; -1: the operand is broadcast along it; None: neither."""
    old, new = t.block.value.shape, r.out.block.value.shape
    match r.op:
        case Einsum() | Add() | Pointwise():
            at = next(i for i, x in enumerate(r.ins) if x is t)
            label = r.op.out[axis]
            held = isinstance(r.op, Einsum) and any(label in ins for i, ins in enumerate(r.op.ins) if i != at)
            if held and not (_averaged(r, t, known) and label not in r.op.ins[at]):
                return None
            if label not in r.op.ins[at]:
                return -1
            return r.op.ins[at].index(label) if _own_axes(r, t, at) else None
        case Along() if r.op.out[axis] not in r.op.touched and t is r.ins[0]:
            return r.op.ins[0].index(r.op.out[axis])
        case Reshape():
            end = axis - len(new)
            if len(old) + end >= 0 and old[end:] == new[end:]:
                return len(old) + end
            return axis if old[: axis + 1] == new[: axis + 1] else None
        case Slice() | Mix() | Concat() if r.op.axis != axis:
            return axis
    return None


def _own_axes(r: Relation, t: Term, at: int) -> bool:
    """The operand's axes are those of the operation: a parameter may stand for a part of it, or for a view of it."""
    if not isinstance(t.block.value.op, Param):
        return True
    shape, ins, out = t.block.value.shape, r.op.ins[at], r.op.out  # type: ignore[union-attr]
    sizes = dict(zip(out, r.out.block.value.shape, strict=True))
    if len(shape) != len(ins) or any(sizes.get(l, n) != n for l, n in zip(ins, shape, strict=True)):
        return False
    written = {l: out[a] for l, (a, _, _) in zip(r.out.labels, r.out.block.leaves, strict=True)}
    return all(written.get(l, ins[a]) == ins[a] for l, (a, _, _) in zip(t.labels, t.block.leaves, strict=True))


def _back(r: Relation, t: Term, sets_out: frozenset[Places], known: dict[int, Known]) -> Tolerance:
    others = {l for o in r.ins if o is not t for l in o.labels}
    asked = [frozenset(r.out.labels[k] for k in u) for u in sets_out]  # as labels

    def back(sets: list[Places]) -> Tolerance:
        """Sets of labels of the result as leaves of the operand; none left: it is broadcast along the whole set."""
        mine = [frozenset(k for k, l in enumerate(t.labels) if l in u) for u in sets]
        return ALL if not all(mine) else Tolerance(along=_smallest(set(mine)))

    match r.op:
        case Einsum():
            plain = back([u for u in asked if not (u & others)])
            averaged = _averaged(r, t, known)
            if plain.everything or not averaged:
                return plain
            return Tolerance(along=_smallest({*plain.along, *back([u | averaged for u in asked]).along}))
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
            if r.op.blind and t is r.ins[0]:
                touched = frozenset(k for k, l in enumerate(t.labels) if l in r.touched)
                if result.everything or not touched and entire(r, t):
                    return ALL
                if entire(r, t):
                    return Tolerance(along=_smallest({*result.along, touched}))
                axes = [i for i, l in enumerate(r.op.ins[0]) if l in r.op.touched]
                return Tolerance(along=result.along, joint=frozenset({(axes[0], touched)} if len(axes) == 1 else ()))
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


@dataclass(frozen=True)
class Joint:
    """Directions that nobody sees where they are the same in several blocks of a parameter, into which one axis is cut, and
    constant along it. along: for each block the leaves that they do not depend on."""

    blocks: tuple[Block, ...]
    along: tuple[tuple[int, ...], ...]
    sets: tuple[tuple[int, ...], ...] = ()  # of the leaves that are left: what is constant along them is unseen anyway

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the directions, without the leaves that they do not depend on."""
        return tuple(n for k, n in enumerate(self.blocks[0].sizes) if k not in self.along[0])

    @property
    def size(self) -> int:
        """How many entries share one number."""
        return sum(prod(b.sizes[k] for k in along) for b, along in zip(self.blocks, self.along, strict=True))

    @property
    def dim(self) -> int:
        return prod(self.shape) - (span_dim(self.shape, self.sets) if self.sets else 0)

    def spread(self, i: int) -> tuple[int, ...]:
        """The shape in which a direction is added to the i-th block."""
        return tuple(1 if k in self.along[i] else n for k, n in enumerate(self.blocks[i].sizes))


def joint(blocks: Blocks, found: dict[int, Tolerance]) -> tuple[Joint, ...]:
    out = []
    for v in blocks.graph.values:
        if not isinstance(v.op, Param) or v.op.statistic or not v.op.chart.signed:
            continue
        done: set[tuple[int, ...]] = set()
        for b in blocks.of[v.id]:
            for axis, places in sorted(found.get(b.id, Tolerance()).joint, key=lambda x: (x[0], sorted(x[1]))):
                family = _family(blocks, found, b, axis, places)
                key = tuple(x.id for x in family.blocks) if family else ()
                if family is not None and key not in done:
                    done.add(key)
                    out.append(family)
    return tuple(out)


def _family(blocks: Blocks, found: dict[int, Tolerance], b: Block, axis: int, places: Places) -> Joint | None:
    """All blocks along the axis, if each tolerates the same as this one together with the others and none does alone."""
    extra = {b.leaves[k] for k in places if b.leaves[k][0] != axis}
    rest = [leaf for k, leaf in enumerate(b.leaves) if k not in places]
    members, along, sets = blocks.siblings(b, {axis}), [], None
    for x in members:
        mine = frozenset(k for k, leaf in enumerate(x.leaves) if leaf[0] == axis or leaf in extra)
        t = found.get(x.id, Tolerance())
        if (axis, mine) not in t.joint or t.everything or any(u <= mine for u in t.along):
            return None
        kept = [k for k in range(len(x.leaves)) if k not in mine]
        if [x.leaves[k] for k in kept] != rest:
            return None
        along.append(tuple(sorted(mine)))
        here = frozenset(tuple(sorted(kept.index(k) for k in u)) for u in t.along if not u & mine)
        sets = here if sets is None else sets & here
    return Joint(tuple(members), tuple(along), tuple(sorted(sets or ()))) if len(members) > 1 else None


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
