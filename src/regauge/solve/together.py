"""What is tolerated only together: disturbances that are equal in several blocks of one value.

An axis that is cut behind a centring (a norm over heads of which rotary positions turn one part) is centred as a whole: a
constant is removed if it is the same in every part. `Parts` names them, each with the leaves along which the
disturbance is constant; the leaves that are left correspond in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from regauge.graph.ir import Add, Mix, Pointwise
from regauge.solve.blocks import Block, Blocks, Relation, Term

Places = frozenset[int]
Parts = frozenset[tuple[int, Places]]  # block id, leaves along which the disturbance is constant
Index = Mapping[int, Block]


def left(block: Block, places: Places) -> tuple[int, ...]:
    """Leaves along which the disturbance may vary."""
    return tuple(k for k in range(len(block.leaves)) if k not in places)


def pieces(blocks: Blocks, b: Block, axes: set[int]) -> Parts:
    """All blocks that make up these axes of a value, beside this one: constant along them."""
    return frozenset(
        (s.id, frozenset(k for k, (a, _, _) in enumerate(s.leaves) if a in axes)) for s in blocks.siblings(b, axes)
    )


def widened(index: Index, parts: Parts, at: int, more: Places) -> Parts:
    """Constant along more leaves of the block `at`, and along those of the others that correspond to them."""
    kept = left(index[at], dict(parts)[at])
    turns = [i for i, k in enumerate(kept) if k in more]
    return frozenset((m, p | {left(index[m], p)[i] for i in turns}) for m, p in parts)


def both(index: Index, one: Parts, other: Parts, at: int) -> Parts | None:
    """What two readers of the same parts tolerate, if both mean the same by equal."""
    p, q = dict(one), dict(other)
    if p.keys() != q.keys():
        return None
    found = widened(index, one, at, q[at] - p[at])
    return found if found == widened(index, other, at, p[at] - q[at]) else None


def family(makers: Mapping[int, list[Relation]], r: Relation, t: Term, parts: Parts) -> dict[int, Relation] | None:
    """For each part of the result the relation that makes it as r makes its own, with the same other operands."""
    if isinstance(r.op, Mix) and any(n > 1 for n in r.op.matrix.shape[:-2]):
        return None  # every position turns by an angle of its own: what is equal in all parts does not stay so
    i = next(k for k, x in enumerate(r.ins) if x is t)
    loose = isinstance(r.op, Add) or isinstance(r.op, Pointwise) and r.op.name == "drop"
    found = {}
    for m, _ in parts:
        fit = [
            x
            for x in makers.get(m, ())
            if x.op == r.op
            and len(x.ins) == len(r.ins)
            and x.ins[i].block.value is t.block.value
            and (loose or all(x.ins[k].block.id == y.block.id for k, y in enumerate(r.ins) if k != i))
        ]
        if len(fit) != 1:
            return None
        found[m] = fit[0]
    return found


def route(index: Index, r: Relation, t: Term, out: Places, mine: Places) -> list[tuple[int | None, int]]:
    """Where the leaves left of the operand are among those left of the result, and their sizes."""
    order = [r.out.labels[k] for k in left(r.out.block, out)]
    where = {l: i for i, l in enumerate(order)}
    return [(where.get(t.labels[k]), t.block.sizes[k]) for k in left(t.block, mine)]


def span_dim(sizes: tuple[int, ...], sets: tuple[tuple[int, ...], ...]) -> int:
    """Dimension of the sum of the spaces of what is constant along each of these sets of axes."""
    total = 0
    for pick in range(1, 1 << len(sets)):
        chosen = [s for i, s in enumerate(sets) if pick >> i & 1]
        union = set().union(*chosen)
        total += (-1) ** (len(chosen) + 1) * prod(n for k, n in enumerate(sizes) if k not in union)
    return total


@dataclass(frozen=True)
class Joint:
    """Directions that nobody sees where they are the same in several blocks of a parameter, into which an axis is cut, and
    constant along some leaves of each. along: for each block the leaves that they do not depend on."""

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


def agreed(
    index: Index, tolerated: Mapping[int, frozenset[Parts]], alone: Mapping[int, frozenset[Places]]
) -> tuple[Joint, ...]:
    """What all parts agree on, the widest for each set of blocks. alone: sets of leaves along which what is constant is seen
    by nobody in a block alone."""
    best: dict[frozenset[int], Joint] = {}
    for parts in dict.fromkeys(p for many in tolerated.values() for p in sorted(many, key=sorted)):
        members = [(index[m], p) for m, p in sorted(parts)]
        if len(members) < 2 or not all(parts in tolerated.get(b.id, ()) for b, _ in members):
            continue
        if len({tuple(b.sizes[k] for k in left(b, p)) for b, p in members}) != 1:
            continue
        sets = {tuple(i for i, k in enumerate(left(b, p)) if k in s) for b, p in members for s in alone.get(b.id, ())}
        blocks, along = tuple(b for b, _ in members), tuple(tuple(sorted(p)) for _, p in members)
        found, key = Joint(blocks, along, tuple(sorted(sets))), frozenset(b.id for b in blocks)
        if found.dim > 0 and (key not in best or found.dim > best[key].dim):
            best[key] = found
    return tuple(best.values())
