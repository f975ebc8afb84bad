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
from regauge.solve.dropped import weighed
from regauge.solve.known import Known
from regauge.solve.together import Index, Joint, Parts, Places, agreed, both, family, pieces, route, span_dim, widened


@dataclass(frozen=True)
class Tolerance:
    """`everything`, or disturbances that are constant along all leaves of one of `along`. joint: those that several blocks
    must have in common."""

    everything: bool = False
    along: frozenset[Places] = frozenset()
    joint: frozenset[Parts] = frozenset()

    def meet(self, other: Tolerance, at: int, index: Index) -> Tolerance:
        """What two readers of the block `at` tolerate."""
        if self.everything:
            return other
        if other.everything:
            return self
        whole = {a | b for a, b in product(self.along, other.along)}
        pairs = {widened(index, j, at, b) for j, b in product(self.joint, other.along)}
        pairs |= {widened(index, j, at, a) for j, a in product(other.joint, self.along)}
        pairs |= {j for x, y in product(self.joint, other.joint) for j in [both(index, x, y, at)] if j is not None}
        return Tolerance(along=_smallest(whole), joint=frozenset(j for j in pairs if dict(j)[at] not in whole))

    def covers(self, varies: Places) -> bool:
        """Does it tolerate a disturbance that varies only along these leaves?"""
        return self.everything or any(not (u & varies) for u in self.along)


def _smallest(sets: set[Places]) -> frozenset[Places]:
    return frozenset(s for s in sets if not any(t < s for t in sets))


ALL = Tolerance(everything=True)


@dataclass(frozen=True)
class _Around:
    """What a relation is surrounded by. makers: of a block. weighed: blocks that only a softmax reads."""

    blocks: Blocks
    index: Index
    makers: dict[int, list[Relation]]
    known: dict[int, Known]
    weighed: frozenset[int]


def tolerances(blocks: Blocks, relations: list[Relation], known: dict[int, Known]) -> dict[int, Tolerance]:
    """Tolerance of every block by id; blocks that nothing reads are left out. known: relations that values satisfy."""
    readers: dict[int, list[Relation]] = {}
    makers: dict[int, list[Relation]] = {}
    for r in relations:
        makers.setdefault(r.out.block.id, []).append(r)
        for i in dict.fromkeys(t.block.id for t in r.ins):
            readers.setdefault(i, []).append(r)
    around = _Around(blocks, {b.id: b for b in blocks.all()}, makers, known, weighed(blocks, readers))
    observed = {b.id for v in blocks.graph.outputs for b in blocks.of[v.id]}
    found: dict[int, Tolerance] = {}
    for v in reversed(blocks.graph.values):
        for b in blocks.of[v.id]:
            if b.id in observed:
                found[b.id] = Tolerance()
            elif b.id in readers:
                result = ALL
                for r in readers[b.id]:
                    out = _of_result(r, found, around)
                    if out is None:
                        continue  # an updated statistic: not observed
                    result = result.meet(_through(r, b, out, around), b.id, around.index)
                    if not (result.everything or result.along or result.joint):
                        break
                found[b.id] = result
    return found


def _of_result(r: Relation, found: dict[int, Tolerance], around: _Around) -> Tolerance | None:
    """What the result of a relation tolerates; None if nothing reads it. What acts along an axis that is cut carries a
    disturbance of one part into all others (the sum of a softmax), so that all of them must tolerate it."""
    own = r.out.block
    axes = {i for i, l in enumerate(r.op.out) if l in r.op.touched} if isinstance(r.op, Along) else set()
    parts = around.blocks.siblings(own, axes)
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
            result = result.meet(Tolerance(along=_smallest(along)), own.id, around.index)
    return result


def _through(r: Relation, b: Block, out: Tolerance, around: _Around) -> Tolerance:
    terms = [t for t in r.ins if t.block.id == b.id]
    if out.everything:
        return ALL
    if len(terms) > 1 and not isinstance(r.op, Add):
        return Tolerance()
    result = ALL
    for t in terms:
        result = result.meet(_term(r, t, out, around), b.id, around.index)
    return result


def _term(r: Relation, t: Term, out: Tolerance, around: _Around) -> Tolerance:
    """What the operand may suffer, from what the result may."""
    result = _back(r, t, out.along, around)
    for parts in out.joint:
        one = _together(r, t, parts, around)
        if one.everything or result.everything:
            return ALL
        result = Tolerance(along=_smallest({*result.along, *one.along}), joint=result.joint | one.joint)
    return result


def _together(r: Relation, t: Term, parts: Parts, around: _Around) -> Tolerance:
    """As `_back`, for disturbances that are equal in several blocks of the result: parts of the operand that they come from
    one by one, or the operand itself, of which each is made."""
    made = family(around.makers, r, t, parts)
    if made is None:
        return Tolerance()
    i = next(k for k, x in enumerate(r.ins) if x is t)
    for averages in (False, True):
        mine = {m: _places(made[m], made[m].ins[i], p, averages, around) for m, p in parts}
        routes = [
            route(around.index, made[m], made[m].ins[i], p, q) for m, p in parts for q in [mine[m]] if q is not None
        ]
        if len(routes) < len(parts) or any(x != routes[0] for x in routes):
            continue
        found = frozenset((made[m].ins[i].block.id, q) for m, q in mine.items() if q is not None)
        if len(found) == len({b for b, _ in found}) == len(parts):
            return Tolerance(joint=frozenset({found}))
        if len(found) == 1:
            ((_, places),) = found
            return Tolerance(along=frozenset({places})) if places else ALL
    return Tolerance()


def _places(r: Relation, t: Term, out: Places, averages: bool, around: _Around) -> Places | None:
    """Leaves of the operand along which the disturbance is constant; None if it is not handed on so."""
    labels = {r.out.labels[k] for k in out}
    if averages:
        averaged = _averaged(r, t, around.known)
        if not averaged or not _same_average(r, t, around.known):
            return None
        labels |= averaged
    mine = frozenset(k for k, l in enumerate(t.labels) if l in labels)
    back = _back(r, t, frozenset({out}), around)
    return mine if back.everything or mine in back.along else None


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


def _back(r: Relation, t: Term, sets_out: frozenset[Places], around: _Around) -> Tolerance:
    others = {l for o in r.ins if o is not t for l in o.labels}
    asked = [frozenset(r.out.labels[k] for k in u) for u in sets_out]  # as labels

    def back(sets: list[Places]) -> Tolerance:
        """Sets of labels of the result as leaves of the operand; none left: it is broadcast along the whole set."""
        mine = [frozenset(k for k, l in enumerate(t.labels) if l in u) for u in sets]
        return ALL if not all(mine) else Tolerance(along=_smallest(set(mine)))

    match r.op:
        case Einsum():
            plain = back([u for u in asked if not (u & others)])
            averaged = _averaged(r, t, around.known)
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
        case Pointwise(name="drop") if t is not r.ins[0]:
            return back(asked) if r.out.block.id in around.weighed else Tolerance()
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
                axes = {i for i, l in enumerate(r.op.ins[0]) if l in r.op.touched}
                return Tolerance(along=result.along, joint=frozenset({pieces(around.blocks, t.block, axes)}))
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


def silent(blocks: Blocks, relations: list[Relation]) -> frozenset[int]:
    """Blocks of parameters that nothing reads: of what is cut, the parts that are left over."""
    read = {t.block.id for r in relations for t in r.ins} | {
        b.id for v in blocks.graph.outputs for b in blocks.of[v.id]
    }
    return frozenset(
        b.id for v in blocks.graph.values if isinstance(v.op, Param) for b in blocks.of[v.id] if b.id not in read
    )


def unseen(blocks: Blocks, found: dict[int, Tolerance]) -> tuple[Unseen, ...]:
    out = []
    for v in blocks.graph.values:
        if isinstance(v.op, Param) and not v.op.statistic and v.op.chart.signed:
            for b in blocks.of[v.id]:
                t = found.get(b.id, Tolerance())
                if t.everything or t.along:
                    out.append(Unseen(b, t))
    return tuple(out)


def joint(blocks: Blocks, found: dict[int, Tolerance]) -> tuple[Joint, ...]:
    """Directions that nobody sees where they are the same in several parameter blocks."""
    mine = {
        b.id: b
        for v in blocks.graph.values
        if isinstance(v.op, Param) and not v.op.statistic and v.op.chart.signed
        for b in blocks.of[v.id]
        if b.id in found
    }
    return agreed(mine, {b: found[b].joint for b in mine}, {b: found[b].along for b in mine})
