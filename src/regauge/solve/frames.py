"""Pass 2, frames: the scale-free matrix group on every leaf.

A contraction makes two cells dual to each other; a cell dual to itself is orthogonal (x . x). A sum fixes the covector of
ones, a broadcast the vector of ones; a product of two data tensors, or a nonlinear function, leaves permutations and
charges (monomial). A product with a tensor made of parameters alone (a gain) is a *link*, X_out = D X_in D^-1: the side
that nothing else restricts follows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from regauge.graph.ir import Add, Along, Concat, Einsum, Free, Frozen, Mix, Param, Pointwise, Reshape, Slice, Value
from regauge.solve.blocks import Blocks, Relation, Term
from regauge.solve.cells import Cells
from regauge.solve.indices import Indices

MONOMIAL, ORTHOGONAL, VECTOR, COVECTOR, PLANE = "monomial", "orthogonal", "ones", "sum", "plane"


@dataclass(frozen=True)
class Link:
    """cell_out = D cell_in D^-1, D the diagonal of `gain` (labels of gain: `label`, and places that both cells share)."""

    cell_in: int
    cell_out: int
    gain: Term
    out: Term
    label: int
    relation: Relation


@dataclass(frozen=True)
class Derived:
    """A class that follows another: at `cell` its matrix is D^power M D^-power, M the matrix at `other`. along: label of the
    gain beside that of the link -> the leaf of it at every cell that sees this gain."""

    cell: int
    other: int
    link: Link
    power: int
    along: Mapping[int, Mapping[int, int]] = field(default_factory=dict)


@dataclass
class Frames:
    cells: Cells
    root: list[int]
    sign: list[int]
    flags: dict[int, frozenset[str]]
    derived: dict[int, Derived] = field(default_factory=dict)
    causes: dict[int, dict[str, Relation | None]] = field(default_factory=dict)
    component: dict[int, int] = field(default_factory=dict)
    marks: tuple[tuple[int, str, Relation | None], ...] = ()  # every restriction of a cell, with its cause
    links: tuple[Link, ...] = ()

    def monomial(self, root: int) -> bool:
        return MONOMIAL in self.flags.get(root, ())


def frames(blocks: Blocks, relations: list[Relation], indices: Indices) -> Frames:
    build = _Build(blocks, relations, indices)
    return build.run()


def evaluable(v: Value) -> bool:
    """Made of parameters alone, by operations that can be computed again from the state dict."""
    if v.data or not v.learned:
        return False
    match v.op:
        case Param():
            return True
        case Einsum() | Add() | Reshape() | Slice() | Concat():
            return all(evaluable(a) or _small(a) for a in v.args)
        case Pointwise(call=(_, ())):
            return all(evaluable(a) for a in v.args)
    return False


def _small(v: Value) -> bool:
    return isinstance(v.op, Free) and not v.data and v.numel <= 16


class _Build:
    def __init__(self, blocks: Blocks, relations: list[Relation], indices: Indices) -> None:
        self.blocks = blocks
        self.relations = relations
        self.indices = indices
        self.cells = Cells(blocks)
        self.marks: list[tuple[int, str, Relation | None]] = []
        self.links: list[Link] = []

    def mark(self, cell: int, flag: str, why: Relation | None) -> None:
        self.marks.append((cell, flag, why))

    def run(self) -> Frames:
        for r in self.relations:
            for label in dict.fromkeys(l for t in r.terms for l in t.labels):
                self.relate(r, label)
            for t in r.terms:
                if isinstance(t.block.value.op, Free):
                    for k in t.labels:
                        self.mark(self.cells.of(t, k), MONOMIAL, r)
                if len(set(t.labels)) < len(t.labels):
                    for k in range(len(t.labels)):
                        self.mark(self.cells.cell(t.block, k), MONOMIAL, r)
        for b in self.blocks.all():
            for k in range(len(b.leaves)):
                if self.blocks.is_rigid(b, k):
                    self.mark(self.cells.cell(b, k), MONOMIAL, None)
        for v in self.blocks.graph.outputs:
            for b in self.blocks.of[v.id]:
                for k in range(len(b.leaves)):
                    self.mark(self.cells.cell(b, k), MONOMIAL, None)
        for v in self.blocks.graph.values:
            if isinstance(v.op, Param) and (not v.op.chart.signed or v.op.statistic):
                for b in self.blocks.of[v.id]:
                    for k in range(len(b.leaves)):
                        self.mark(self.cells.cell(b, k), MONOMIAL, None)
        return self.orient()

    def relate(self, r: Relation, label: int) -> None:
        ins = [t for t in r.ins if label in t.labels]
        out = r.out if label in r.out.labels else None
        match r.op:
            case Einsum():
                self.product(r, label, ins, out)
            case Add():
                self.same(r, label)
                if len(ins) < len(r.ins) and out is not None:
                    self.mark(self.cells.of(out, label), VECTOR, r)
            case Pointwise() if r.op.linear and not any(label in r.ins[i].labels for i in r.op.fixed):
                self.same(r, label)
                if len(ins) < len(r.ins) - len(r.op.fixed) and out is not None:
                    self.mark(self.cells.of(out, label), VECTOR, r)
            case Along() if label in r.touched and r.op.linear and r.op.equivariant:
                self.same(r, label)
                for flag in (VECTOR, COVECTOR):
                    self.mark(self.cells.of(r.out if out is not None else r.ins[0], label), flag, r)
            case Along() if label not in r.touched and r.op.linear:
                self.same(r, label)
            case Reshape() | Slice() | Concat():
                self.same(r, label)
            case Mix():
                self.same(r, label)
                if label in r.planes:
                    self.mark(self.cells.of(r.out, label), PLANE, r)
                if label in r.fixed:
                    self.mark(self.cells.of(r.out, label), MONOMIAL, r)
            case Pointwise() | Along() | Frozen():
                for t in r.terms:
                    if label in t.labels:
                        self.mark(self.cells.of(t, label), MONOMIAL, r)

    def same(self, r: Relation, label: int) -> None:
        held = [self.cells.of(t, label) for t in r.terms if label in t.labels]
        for other in held[1:]:
            self.union(held[0], other, 0, r)
        self.cells.tie_slots(r.terms, label, r.mixed)

    def union(self, a: int, b: int, sign: int, r: Relation) -> None:
        if not self.cells.classes.union(a, b, sign):
            self.mark(a, ORTHOGONAL, r)

    def product(self, r: Relation, label: int, ins: list[Term], out: Term | None) -> None:
        held = [self.cells.of(t, label) for t in ins]
        if out is None and len(ins) == 2:
            self.union(held[0], held[1], 1, r)
            self.cells.tie_slots(ins, label)
        elif out is None and len(ins) == 1:
            self.mark(held[0], COVECTOR, r)
        elif out is not None and len(ins) == 1:
            self.same(r, label)
        elif out is not None and len(ins) == 0:
            self.mark(self.cells.of(out, label), VECTOR, r)
        else:
            gain = self.gain(r, label, ins) if out is not None and len(ins) == 2 else None
            if gain is None:
                for c in [*held, *([self.cells.of(out, label)] if out is not None else [])]:
                    self.mark(c, MONOMIAL, r)
                return
            assert out is not None
            (other,) = [t for t in ins if t is not gain]
            for l in gain.labels:
                if l == label or l in other.labels:  # on other axes that both have it acts place by place
                    self.mark(self.cells.of(gain, l), MONOMIAL, r)
            self.links.append(Link(self.cells.of(other, label), self.cells.of(out, label), gain, out, label, r))
            self.cells.tie_slots([other, out], label, linked=True)

    def gain(self, r: Relation, label: int, ins: list[Term]) -> Term | None:
        """The operand that acts as a diagonal matrix on this label alone."""
        for t in ins:
            v = t.block.value
            constant = isinstance(v.op, Free) and not v.data and v.numel <= 1 << 16
            if not (evaluable(v) or constant) or label != t.labels[-1]:
                continue
            rigid = [a for a in range(v.ndim) if v.shape[a] > 1 and (v.id, a) in self.blocks.rigid]
            if not rigid and any(o is not t for o in ins):
                return t
        return None

    def orient(self) -> Frames:
        cells = self.cells
        count = len(cells.owner)
        found = [cells.classes.find(c) for c in range(count)]
        root, sign = [f[0] for f in found], [f[1] for f in found]
        flags: dict[int, set[str]] = {}
        causes: dict[int, dict[str, Relation | None]] = {}
        for cell, flag, why in self.marks:
            if flag in (VECTOR, COVECTOR) and sign[cell]:
                flag = COVECTOR if flag == VECTOR else VECTOR
            flags.setdefault(root[cell], set()).add(flag)
            causes.setdefault(root[cell], {}).setdefault(flag, why)
        derived, component = self.follow(root, sign, flags, causes)
        frozen = {r: frozenset(f) for r, f in flags.items()}
        return Frames(cells, root, sign, frozen, derived, causes, component, tuple(self.marks), tuple(self.links))

    def follow(
        self,
        root: list[int],
        sign: list[int],
        flags: dict[int, set[str]],
        causes: dict[int, dict[str, Relation | None]],
    ) -> tuple[dict[int, Derived], dict[int, int]]:
        """Orient every link, or make both of its ends monomial."""
        edges: dict[int, list[Link]] = {}
        for link in self.links:
            a, b = root[link.cell_in], root[link.cell_out]
            edges.setdefault(a, []).append(link)
            edges.setdefault(b, []).append(link)
        seen: set[int] = set()
        derived: dict[int, Derived] = {}
        component: dict[int, int] = {}
        for start in list(edges):
            if start in seen:
                continue
            nodes, links = self._connected(start, edges, root)
            seen |= nodes
            for n in nodes:
                component[n] = start
            restricted = [n for n in nodes if flags.get(n)]
            edges_here = {self._edge(k, root) for k in links}
            gains = {self._through(k, root, sign, flags) for k in links}  # one gain read by two blocks is one edge
            tree = len(edges_here) == len(nodes) - 1 == len(gains) and all(a != b for a, b in edges_here)
            grown: dict[int, Derived] | None = None
            if tree and len(restricted) <= 1 and not any(MONOMIAL in flags.get(n, ()) for n in nodes):
                grown = self._grow(restricted[0] if restricted else self._widest(nodes, root), links, root)
            if grown is None:
                cause = next((causes[n][f] for n in restricted for f in causes[n] if f == MONOMIAL), links[0].relation)
                for n in nodes:
                    flags.setdefault(n, set()).add(MONOMIAL)
                    causes.setdefault(n, {}).setdefault(MONOMIAL, cause)
                continue
            derived |= grown
        return derived, component

    def _edge(self, k: Link, root: list[int]) -> tuple[int, int]:
        a, b = root[k.cell_in], root[k.cell_out]
        return (a, b) if a < b else (b, a)

    def _through(
        self, k: Link, root: list[int], sign: list[int], flags: dict[int, set[str]]
    ) -> tuple[tuple[int, int], tuple[int, int], int]:
        """What a link says of its ends: with a gain G the frame A of vectors becomes G A / G, that of covectors the other way
        round, so links of other signs say other things. An orthogonal frame is its own dual."""
        ends = [(root[c], 0 if ORTHOGONAL in flags.get(root[c], ()) else sign[c]) for c in (k.cell_in, k.cell_out)]
        return ends[0], ends[1], k.gain.block.id

    def _widest(self, nodes: set[int], root: list[int]) -> int:
        inputs = {root[k.cell_in] for k in self.links} & nodes
        return min(inputs or nodes)

    def _connected(self, start: int, edges: dict[int, list[Link]], root: list[int]) -> tuple[set[int], list[Link]]:
        nodes, links, todo = {start}, [], [start]
        taken: set[int] = set()
        while todo:
            n = todo.pop()
            for k in edges.get(n, ()):
                if id(k) not in taken:
                    taken.add(id(k))
                    links.append(k)
                for other in (root[k.cell_in], root[k.cell_out]):
                    if other not in nodes:
                        nodes.add(other)
                        todo.append(other)
        return nodes, links

    def _grow(self, top: int, links: list[Link], root: list[int]) -> dict[int, Derived] | None:
        """Every class of a tree of links from its top on; None where a gain changes over places that a class has not."""
        derived: dict[int, Derived] = {}
        done, rest = {top}, list(links)
        while rest:
            later = []
            for k in rest:
                a, b = root[k.cell_in], root[k.cell_out]
                if a in done and b not in done:
                    derived[b] = Derived(k.cell_out, k.cell_in, k, +1)
                elif b in done and a not in done:
                    derived[a] = Derived(k.cell_in, k.cell_out, k, -1)
                else:
                    later.append(k)
                done |= derived.keys()
            if len(later) == len(rest):
                break
            rest = later
        for mine, d in derived.items():
            along = self._along(mine, d, derived, root) if len(d.link.gain.labels) > 1 else {}
            if along is None:
                return None
            derived[mine] = replace(d, along=along)
        return derived

    def _along(
        self, mine: int, d: Derived, derived: dict[int, Derived], root: list[int]
    ) -> dict[int, Mapping[int, int]] | None:
        """The places over which the gain changes, at every cell that sees it: those of this class and of all behind it. All
        of the tree must have them, unless nothing is behind."""
        followed = {root[x.other] for x in derived.values()}
        nodes = {*derived, *followed} if mine in followed else {mine}
        places = self.cells.places([c for c, r in enumerate(root) if r in nodes], own=len(nodes) == 1)
        (other,) = [t for t in d.link.relation.ins if t is not d.link.gain]
        term = d.link.out if d.power > 0 else other
        found: dict[int, Mapping[int, int]] = {}
        for l in d.link.gain.labels:
            if l == d.link.label:
                continue
            if l not in other.labels or l not in d.link.out.labels:
                return None  # an axis of the gain alone: it may turn
            at = term.labels.index(l)
            where = next((w for w in places.values() if w.get(d.cell) == at), None)
            if where is None:
                return None
            found[l] = where
        return found
