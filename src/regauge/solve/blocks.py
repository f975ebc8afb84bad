"""Pass 1: cut every value into blocks, so that on a block each axis is a product of whole index sets.

After it there are no views, slices or concatenations left to think about: a relation links leaves of blocks by labels.
An axis that no parameter can share, or whose cuts have no common refinement, is *rigid*: one place, never transformed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from regauge.graph.ir import Along, Frozen, Graph, Mix, Op, Value
from regauge.solve.lattice import Clash, Lattice, meet, overlap, whole
from regauge.solve.pairings import INTO, Axis, Group, Pairing, components, named, pairings
from regauge.solve.segments import Segments, segment

Box = tuple[Lattice | None, ...]  # one lattice an axis; None: rigid


@dataclass(frozen=True)
class Block:
    """A box of a value. leaves: (axis, size, stride) of every index set in it, in row-major order."""

    id: int
    value: Value
    box: Box
    leaves: tuple[tuple[int, int, int], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(n for _, n, _ in self.leaves)


@dataclass(frozen=True)
class Term:
    """A block in a relation, with the label of each of its leaves."""

    block: Block
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Relation:
    """One operation between blocks. touched: labels along which it acts as a whole (Along); plane: label of a rotated pair."""

    op: Op
    out: Term
    ins: tuple[Term, ...]
    touched: frozenset[int] = frozenset()
    planes: frozenset[int] = frozenset()
    fixed: frozenset[int] = frozenset()

    @property
    def mixed(self) -> frozenset[int]:
        """Labels whose places are not treated one by one."""
        return self.touched | self.planes

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*self.ins, self.out)


@dataclass(frozen=True)
class Blocks:
    graph: Graph
    of: dict[int, tuple[Block, ...]]
    relations: tuple[Relation, ...]
    rigid: frozenset[Axis]

    def siblings(self, block: Block, axes: set[int]) -> list[Block]:
        """Blocks of the same value that differ from this one along these axes at most, itself included."""
        return [
            b
            for b in self.of[block.value.id]
            if all(l == m for a, (l, m) in enumerate(zip(b.box, block.box, strict=True)) if a not in axes)
        ]

    def is_rigid(self, block: Block, leaf: int) -> bool:
        return (block.value.id, block.leaves[leaf][0]) in self.rigid

    def all(self) -> Iterator[Block]:
        for blocks in self.of.values():
            yield from blocks


def blocks(graph: Graph) -> Blocks:
    segments = {v.id: segment(v.op.matrix) for v in graph.values if isinstance(v.op, Mix)}
    pairs = [p for v in graph.values for p in pairings(v)]
    component = components(graph, pairs)
    frozen = {component[a] for a in _frozen(graph, segments) if a in component}
    while True:
        try:
            return _Cutter(graph, pairs, segments, component, frozen).run()
        except _Rigid as clash:
            frozen |= {component[a] for a in clash.axes}


class _Rigid(Exception):
    def __init__(self, axes: list[Axis]) -> None:
        self.axes = axes


def _frozen(graph: Graph, segments: dict[int, Segments | None]) -> Iterator[Axis]:
    for v in graph.values:
        match v.op:
            case Mix(axis) if segments[v.id] is None:
                yield (v.id, axis)


@dataclass
class _Cutter:
    graph: Graph
    pairings: list[Pairing]
    segments: dict[int, Segments | None]
    component: dict[Axis, int]
    frozen: set[int]
    boxes: dict[int, list[Box]] = field(default_factory=dict)

    def run(self) -> Blocks:
        self.shape = {v.id: v.shape for v in self.graph.values}
        for v in self.graph.values:
            self.boxes[v.id] = [tuple(whole(n) if self._live(v.id, i) else None for i, n in enumerate(v.shape))]
        touching: dict[int, list[int]] = {v.id: [] for v in self.graph.values}
        for k, p in enumerate(self.pairings):
            touching[p.u].append(k)
            touching[p.v].append(k)
        for v in self.graph.values:
            if isinstance(v.op, Mix) and self._live(v.id, v.op.axis):
                found = self.segments[v.id]
                assert found is not None
                self._impose(v.id, v.op.axis, found.lattices)
        queue = list(range(len(self.pairings)))
        waiting = set(queue)
        while queue:
            nxt: list[int] = []
            for k in queue:
                waiting.discard(k)
                p = self.pairings[k]
                for changed in self._agree(p):
                    for other in touching[changed]:
                        if other not in waiting:
                            waiting.add(other)
                            nxt.append(other)
            queue = nxt
        return self._finish()

    def _live(self, value: int, axis: int) -> bool:
        return self.shape[value][axis] == 1 or self.component.get((value, axis), -1) not in ({-1} | self.frozen)

    def _impose(self, value: int, axis: int, lattices: tuple[Lattice, ...]) -> None:
        old = self.boxes[value]
        self.boxes[value] = [(*b[:axis], l, *b[axis + 1 :]) for b in old for l in lattices]

    def flat(self, value: int, box: Box, axes: tuple[int, ...]) -> Lattice | None:
        """The indices of a box over some axes, in row-major order."""
        if len(axes) == 1:
            return box[axes[0]]
        offset, inner = 0, 1
        leaves: list[tuple[int, int]] = []
        for a in reversed(axes):
            lattice = box[a]
            if lattice is None:
                return None
            offset += lattice[0] * inner
            leaves = [(n, s * inner) for n, s in lattice[1]] + leaves
            inner *= self.shape[value][a]
        return offset, tuple(leaves)

    def _agree(self, p: Pairing) -> set[int]:
        """Refine until blocks of u and v that overlap are equal on the shared axes."""
        changed: set[int] = set()
        again = True
        while again:
            again = False
            for i, bu in enumerate(self.boxes[p.u]):
                for j, bv in enumerate(self.boxes[p.v]):
                    pairs = self._compare(p, bu, bv)
                    if pairs is None:
                        continue
                    group, a, b = pairs
                    try:
                        parts_a, parts_b = meet(a, b)
                        new_u = self._replace(p.u, bu, group.axes_u, parts_a, -group.shift)
                        new_v = self._replace(p.v, bv, group.axes_v, parts_b, 0)
                    except Clash:
                        raise _Rigid([*((p.u, x) for x in group.axes_u), *((p.v, x) for x in group.axes_v)]) from None
                    if new_u != [bu]:
                        self.boxes[p.u][i : i + 1] = new_u
                        changed.add(p.u)
                    if p.u == p.v and new_u != [bu]:
                        again = True
                        break
                    if new_v != [bv]:
                        self.boxes[p.v][j : j + 1] = new_v
                        changed.add(p.v)
                    again = True
                    break
                if again:
                    break
        return changed

    def _compare(self, p: Pairing, bu: Box, bv: Box) -> tuple[Group, Lattice, Lattice] | None:
        """The first shared group on which two overlapping boxes differ; None if they agree or do not overlap."""
        differ = None
        for g in p.groups:
            a, b = self.flat(p.u, bu, g.axes_u), self.flat(p.v, bv, g.axes_v)
            if a is None or b is None:
                whole = {self.shape[p.u][x] for x in g.axes_u}, {self.shape[p.v][x] for x in g.axes_v}
                if (a is None) != (b is None) and {1} not in whole:
                    raise _Rigid([*((p.u, x) for x in g.axes_u), *((p.v, x) for x in g.axes_v)])
                continue
            if g.shift:
                a = (a[0] + g.shift, a[1])
            if a == b:
                continue
            if not overlap(a, b):
                return None
            if differ is None:
                differ = (g, a, b)
        return differ

    def _replace(
        self, value: int, box: Box, axes: tuple[int, ...], parts: tuple[Lattice, ...], shift: int
    ) -> list[Box]:
        out = []
        for offset, leaves in parts:
            new = list(box)
            inner = prod(self.shape[value][a] for a in axes)
            rest = offset + shift
            remaining = list(leaves)
            for a in axes:
                n = self.shape[value][a]
                inner //= n
                digit, rest = divmod(rest, inner)
                mine = []
                while remaining and remaining[0][1] >= inner:
                    m, s = remaining.pop(0)
                    if s % inner:
                        raise Clash
                    mine.append((m, s // inner))
                if digit + sum((m - 1) * s for m, s in mine) >= n:
                    raise Clash
                new[a] = (digit, tuple(mine))
            if remaining:
                raise Clash
            out.append(tuple(new))
        return out

    def _whole_planes(self) -> None:
        """A plane that is rotated stays in one block; where other cuts go through it, nothing along that axis moves."""
        for v in self.graph.values:
            segments = self.segments.get(v.id)
            if segments is None or not isinstance(v.op, Mix) or not self._live(v.id, v.op.axis):
                continue
            for value in (v.id, v.args[0].id):
                for box in self.boxes[value]:
                    lattice = box[v.op.axis]
                    for plane, stride in segments.planes.items():
                        if lattice is not None and overlap(lattice, plane) and (2, stride) not in lattice[1]:
                            raise _Rigid([(v.id, v.op.axis)])

    def _finish(self) -> Blocks:
        self._whole_planes()
        of: dict[int, tuple[Block, ...]] = {}
        count = 0
        for v in self.graph.values:
            made = []
            for box in self.boxes[v.id]:
                leaves = tuple(leaf for a, l in enumerate(box) for leaf in self._leaves(v, a, l))
                made.append(Block(count, v, box, leaves))
                count += 1
            of[v.id] = tuple(made)
        rigid = frozenset((v.id, i) for v in self.graph.values for i in range(v.ndim) if not self._live(v.id, i))
        relations = [r for v in self.graph.values for r in self._relations(v, of)]
        return Blocks(self.graph, of, tuple(relations), rigid)

    def _leaves(self, v: Value, axis: int, lattice: Lattice | None) -> list[tuple[int, int, int]]:
        if lattice is None:
            return [(axis, v.shape[axis], 1)] if v.shape[axis] > 1 else []
        return [(axis, n, s) for n, s in lattice[1]]

    def _relations(self, v: Value, of: dict[int, tuple[Block, ...]]) -> Iterator[Relation]:
        labels = named(v.op)
        if labels is not None:
            ins, out = labels
            touched = v.op.touched | {l + INTO for l in v.op.touched} if isinstance(v.op, Along) else frozenset()
            for out_block in of[v.id]:
                for ins_blocks, _ in self._join(v, ins, out, out_block, of):
                    number: dict[tuple[int, int], int] = {}

                    def term(
                        block: Block, labels: tuple[int, ...], number: dict[tuple[int, int], int] = number
                    ) -> Term:
                        seen: dict[int, int] = {}
                        leaf = []
                        for axis, _, _ in block.leaves:
                            key = (labels[axis], seen.get(axis, 0))
                            seen[axis] = key[1] + 1
                            leaf.append(number.setdefault(key, len(number)))
                        return Term(block, tuple(leaf))

                    result = term(out_block, out)
                    operands = tuple(term(b, l) for b, l in zip(ins_blocks, ins, strict=True))
                    yield Relation(v.op, result, operands, frozenset(n for (l, _), n in number.items() if l in touched))
                if isinstance(v.op, Along) and v.op.equivariant:
                    yield from self._across(v, v.op, out_block, of)
            return
        for x in dict.fromkeys(v.args):
            for p in [p for p in pairings(v) if p.u == x.id]:
                for bu in of[x.id]:
                    for bv in of[v.id]:
                        if self._same(p, bu.box, bv.box):
                            yield self._structural(v, p, bu, bv)
        if isinstance(v.op, Frozen):
            for out_block in of[v.id]:
                ins_terms = tuple(
                    Term(b, tuple(range(100 * i, 100 * i + len(b.leaves))))
                    for i, x in enumerate(v.args)
                    for b in of[x.id]
                )
                yield Relation(v.op, Term(out_block, tuple(range(10_000, 10_000 + len(out_block.leaves)))), ins_terms)

    def _across(self, v: Value, op: Along, out: Block, of: dict[int, tuple[Block, ...]]) -> Iterator[Relation]:
        """A centring or a softmax over an axis that is cut: each block of the result depends on every block along it."""
        axes = {i for i, l in enumerate(op.out) if l in op.touched}
        for b in of[v.args[0].id]:
            apart = [a for a in range(v.ndim) if b.box[a] != out.box[a]]
            if not apart or not set(apart) <= axes:
                continue
            labels = tuple(range(len(out.leaves)))
            kept = iter([k for k, (a, _, _) in enumerate(out.leaves) if a not in axes])
            mine = tuple(1000 + k if a in axes else next(kept) for k, (a, _, _) in enumerate(b.leaves))
            touched = {k for k, (a, _, _) in enumerate(out.leaves) if a in axes} | {l for l in mine if l >= 1000}
            yield Relation(op, Term(out, labels), (Term(b, mine),), frozenset(touched))

    def _same(self, p: Pairing, bu: Box, bv: Box) -> bool:
        for g in p.groups:
            a, b = self.flat(p.u, bu, g.axes_u), self.flat(p.v, bv, g.axes_v)
            if a is not None and b is not None and (a[0] + g.shift, a[1]) != b:
                return False
        return True

    def _structural(self, v: Value, p: Pairing, bu: Block, bv: Block) -> Relation:
        labels_v = tuple(range(len(bv.leaves)))
        at_v: dict[int, list[int]] = {}
        for k, (a, _, _) in enumerate(bv.leaves):
            at_v.setdefault(a, []).append(k)
        labels_u: dict[int, list[int]] = {}
        moved: set[int] = set()
        for g in p.groups:
            numbers = [k for a in g.axes_v for k in at_v.get(a, [])]
            rigid = any(bv.box[a] is None for a in g.axes_v) or any(bu.box[a] is None for a in g.axes_u)
            if rigid and (g.shift or len(g.axes_u) + len(g.axes_v) > 2 or self._resized(p, g)):
                moved.update(numbers)
                numbers = [1000 + i for i in range(sum(1 for x, _, _ in bu.leaves if x in g.axes_u))]
                moved.update(numbers)
            per_axis = {a: sum(1 for x, _, _ in bu.leaves if x == a) for a in g.axes_u}
            for a in g.axes_u:
                labels_u[a] = [numbers.pop(0) for _ in range(per_axis[a])]
        flat_u = tuple(l for a in range(len(bu.box)) for l in labels_u.get(a, []))
        planes, fixed = frozenset[int](), frozenset[int]()
        if isinstance(v.op, Mix):
            planes, fixed = self._mixed(v, bv)
        return Relation(v.op, Term(bv, labels_v), (Term(bu, flat_u),), frozenset(moved), planes, fixed)

    def _resized(self, p: Pairing, g: Group) -> bool:
        return self.shape[p.u][g.axes_u[0]] != self.shape[p.v][g.axes_v[0]]

    def _mixed(self, v: Value, block: Block) -> tuple[frozenset[int], frozenset[int]]:
        """Labels of a rotated pair, and labels that a Mix tells apart."""
        assert isinstance(v.op, Mix)
        found = self.segments[v.id]
        lattice = block.box[v.op.axis]
        mine = [k for k, (a, _, _) in enumerate(block.leaves) if a == v.op.axis]
        varying = v.op.matrix.shape
        rest = [a for a in range(v.ndim) if a != v.op.axis]
        fixed = [k for k, (a, _, _) in enumerate(block.leaves) if a != v.op.axis and varying[rest.index(a)] > 1]
        if found is None or lattice is None:
            return frozenset(), frozenset(fixed + mine)
        home = next(l for l in found.lattices if overlap(l, lattice))
        if home in found.plain:
            return frozenset(), frozenset()
        stride = found.planes.get(home, 0)
        planes = [k for k in mine if block.leaves[k][2] == stride and block.leaves[k][1] == 2]
        return frozenset(planes), frozenset(fixed + [k for k in mine if k not in planes])

    def _join(
        self,
        v: Value,
        ins: tuple[tuple[int, ...], ...],
        out: tuple[int, ...],
        out_block: Block,
        of: dict[int, tuple[Block, ...]],
    ) -> Iterator[tuple[list[Block], dict[int, Lattice]]]:
        """Every choice of operand blocks that agree with each other and with the result on all labels."""
        start: dict[int, Lattice] = {l: out_block.box[i] or (0, ()) for i, l in enumerate(out)}

        def extend(
            k: int, chosen: list[Block], bound: dict[int, Lattice]
        ) -> Iterator[tuple[list[Block], dict[int, Lattice]]]:
            if k == len(ins):
                yield chosen, bound
                return
            for block in of[v.args[k].id]:
                new = dict(bound)
                if all(
                    new.setdefault(l, block.box[i] or (0, ())) == (block.box[i] or (0, ()))
                    for i, l in enumerate(ins[k])
                ):
                    yield from extend(k + 1, [*chosen, block], new)

        yield from extend(0, [], start)
