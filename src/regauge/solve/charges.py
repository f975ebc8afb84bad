"""Pass 3, charges: how log-scales and signs may depend on the places of a value.

A charge of a value is a function on a set S of its leaves, without the parts that depend on fewer of them. One linear
equation per operation and set: a product adds, a sum equates, x^p multiplies by p, softmax and constants are 0. The same
equations modulo 2, with parities for degrees, are the signs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import prod

from regauge.graph.ir import Add, Along, Concat, Einsum, Free, Frozen, Mix, Param, Pointwise, Reshape, Slice
from regauge.solve.blind import entire
from regauge.solve.blocks import Block, Blocks, Relation
from regauge.solve.cells import Cells
from regauge.solve.frames import Frames
from regauge.solve.indices import Indices

Variable = tuple[int, tuple[int, ...]]  # (block, leaves in the order of their index sets): a function on these
Row = dict[Variable, Fraction]


@dataclass(frozen=True)
class Charge:
    """One free function. classes, shape: its index sets, rising, and their sizes. on: (parameter block, leaves,
    coefficient): how it enters the charge of that block."""

    classes: tuple[int, ...]
    shape: tuple[int, ...]
    on: tuple[tuple[int, tuple[int, ...], Fraction], ...]

    @property
    def dim(self) -> int:
        return prod(n - 1 for n in self.shape)


@dataclass(frozen=True)
class Charges:
    scales: tuple[Charge, ...]
    signs: tuple[Charge, ...]
    zeros: dict[Variable, Relation]  # first relation that forbids a scale of a parameter block: for explanations


class _Space:
    """Which functions each block may carry."""

    def __init__(self, blocks: Blocks, indices: Indices, frames: Frames) -> None:
        self.blocks, self.indices, self.frames = blocks, indices, frames
        self.cells: Cells = indices.cells
        self.sets: dict[int, tuple[int, ...]] = {}

    def classes(self, block: Block) -> list[int | None]:
        """Index-set class of each leaf that may carry a charge; None where it may not."""
        out: list[int | None] = []
        for k in range(len(block.leaves)):
            c = self.cells.cell(block, k)
            r, f = self.indices.root[c], self.frames.root[c]
            free = self.frames.monomial(f) or f in self.frames.derived
            rigid = self.blocks.is_rigid(block, k)
            out.append(r if free and not rigid and r in self.indices.learned else None)
        return out

    def subsets(self, block: Block) -> list[tuple[int, ...]]:
        """Sets of leaves that a charge may depend on, each in the order of the index sets. A set that holds one index
        set twice is left out: no equation tells its two places apart."""
        held = sorted((c, k) for k, c in enumerate(self.classes(block)) if c is not None)
        sets = [s for k in range(len(held) + 1) for s in combinations(held, k)]
        return [tuple(k for _, k in s) for s in sets if len({c for c, _ in s}) == len(s)]


def charges(
    blocks: Blocks,
    relations: list[Relation],
    indices: Indices,
    frames: Frames,
    unseen: Set[int] = frozenset(),
    still: Set[int] = frozenset(),
) -> Charges:
    """unseen: parameter blocks that no reader sees; scales of such blocks alone are left out. still: blocks that have no
    scale."""
    space = _Space(blocks, indices, frames)
    size = {r: n for b in blocks.all() for k, n in enumerate(b.sizes) for r in [indices.root[indices.cells.cell(b, k)]]}
    parameter = {
        b.id for v in blocks.graph.values if isinstance(v.op, Param) and not v.op.statistic for b in blocks.of[v.id]
    }
    carried = {b.id for v in blocks.graph.values if isinstance(v.op, Param) for b in blocks.of[v.id]}
    found, zeros = [], {}
    for signs in (False, True):
        system = _System(signs, parameter, carried, frozenset() if signs else unseen)
        for equation, why in _equations(blocks, relations, space, signs):
            system.add(equation, why)
        if not signs:
            for b in still:
                for s in space.subsets(space.cells.blocks[b]):
                    system.add({(b, s): Fraction(1)}, None)
        found.append(tuple(system.solutions(_parameters(blocks, space), space, size)))
        if not signs:
            zeros = system.forbidden
    return Charges(found[0], found[1], zeros)


def _parameters(blocks: Blocks, space: _Space) -> Iterator[Variable]:
    for v in blocks.graph.values:
        if isinstance(v.op, Param):
            for b in blocks.of[v.id]:
                for s in space.subsets(b):
                    yield (b.id, s)


def _equations(
    blocks: Blocks, relations: list[Relation], space: _Space, signs: bool
) -> Iterator[tuple[Row, Relation | None]]:
    held: dict[int, list[int | None]] = {b.id: space.classes(b) for b in blocks.all()}
    for r in relations:
        for row in _relation(r, held, signs):
            yield row, r
    fixed = [v for v in blocks.graph.values if isinstance(v.op, Param) and signs and not v.op.chart.signed]
    for v in (*blocks.graph.outputs, *fixed):
        for b in blocks.of[v.id]:
            for s in space.subsets(b):
                yield {(b.id, s): Fraction(1)}, None


def _relation(r: Relation, held: dict[int, list[int | None]], signs: bool) -> Iterator[Row]:
    """The equations of one operation, one for each set of labels that some term may depend on."""
    one = Fraction(1)
    terms = r.terms
    leaf: list[dict[int, int]] = []  # term -> label -> leaf, for labels that may carry a charge
    label_class: dict[int, int] = {}
    for t in terms:
        mine: dict[int, int] = {}
        if not isinstance(t.block.value.op, Free):
            for k, l in enumerate(t.labels):
                c = held[t.block.id][k]
                if c is not None:
                    mine[l] = k
                    label_class[l] = c
        leaf.append(mine)
    sets: dict[tuple[int, ...], None] = {}
    for mine in leaf:
        labels = sorted(mine, key=lambda l: (label_class[l], mine[l]))
        for k in range(len(labels) + 1):
            for s in combinations(labels, k):
                if len({label_class[l] for l in s}) == len(s):
                    sets[tuple(sorted(s))] = None
    out = len(terms) - 1

    def var(i: int, s: tuple[int, ...]) -> Row:
        """The term's charge on s: nothing for constants, and where it lacks a place."""
        t = terms[i]
        if isinstance(t.block.value.op, Free) or any(l not in leaf[i] for l in s):
            return {}
        return {(t.block.id, tuple(leaf[i][l] for l in sorted(s, key=lambda l: label_class[l]))): one}

    for s in sets:
        touched = any(l in r.touched or l in r.planes for l in s)
        match r.op:
            case Einsum():
                row: Row = {}
                for i in range(out):
                    for key, factor in var(i, s).items():
                        row[key] = row.get(key, Fraction(0)) + factor
                for key in var(out, s):
                    row[key] = row.get(key, Fraction(0)) - 1
                yield row
            case Add() | Reshape() | Slice() | Concat() | Mix():
                for i in range(out):
                    yield _minus(var(out, s), var(i, s))
                if touched:
                    yield var(out, s)
            case Pointwise() | Along():
                yield from _function(r, s, var, out, signs, touched)
            case Frozen():
                for i in range(len(terms)):
                    yield var(i, s)


def _function(r: Relation, s: tuple[int, ...], var: object, out: int, signs: bool, touched: bool) -> Iterator[Row]:
    op = r.op
    assert isinstance(op, Pointwise | Along)
    fixed = op.fixed if isinstance(op, Pointwise) else tuple(range(1, out))
    moving = [i for i in range(out) if i not in fixed]
    law: Fraction | None
    if signs:
        law = Fraction(1) if op.parity == "odd" or op.linear else Fraction(0) if op.parity == "even" else None
    else:
        law = None if op.degree is None else Fraction(op.degree).limit_denominator(1000)
    for i in fixed:
        yield var(i, s)  # type: ignore[operator]
    if touched or law is None or law == 0 and _in_part(r):
        for i in (*moving, out):
            yield var(i, s)  # type: ignore[operator]
        return
    for i in moving:
        yield _minus(var(out, s), {k: c * law for k, c in var(i, s).items()})  # type: ignore[operator]


def _in_part(r: Relation) -> bool:
    """It acts on one of the parts into which its axis is cut: all would have to scale alike, which no equation here says."""
    return isinstance(r.op, Along) and not entire(r, r.ins[0])


def _minus(a: Row, b: Row) -> Row:
    row = dict(a)
    for k, c in b.items():
        row[k] = row.get(k, Fraction(0)) - c
    return row


class _System:
    """Sparse elimination over the rationals, or over the integers modulo 2. Parameters are eliminated last, before them
    those that nobody sees: what is free of these then moves nothing else."""

    def __init__(self, binary: bool, parameter: set[int], carried: set[int], unseen: Set[int]) -> None:
        self.binary = binary
        self.parameter = parameter - unseen
        self.carried = carried
        self.solved: dict[Variable, Row] = {}
        self.rows: list[tuple[Row, Relation | None]] = []
        self.forbidden: dict[Variable, Relation] = {}

    def add(self, row: Row, why: Relation | None) -> None:
        if row:
            self.rows.append((row, why))

    def _reduce(self, row: Row) -> Row:
        """Substitute what is solved."""
        out: Row = {}
        todo = list(row.items())
        while todo:
            k, c = todo.pop()
            known = self.solved.get(k)
            if known is None:
                out[k] = out.get(k, Fraction(0)) + c
            else:
                todo += [(j, c * d) for j, d in known.items()]
        if self.binary:
            return {k: Fraction(1) for k, c in out.items() if c % 2}
        return {k: c for k, c in out.items() if c}

    def _compress(self, k: Variable) -> Row:
        self.solved[k] = self._reduce(self.solved[k])
        return self.solved[k]

    def _eliminate(self) -> None:
        self.rows.sort(key=lambda entry: len(entry[0]))
        for row, why in self.rows:
            row = self._reduce(row)
            if not row:
                continue
            pivot = min(row, key=lambda k: (k[0] in self.parameter, k[0] in self.carried, -k[0]))
            scale = row.pop(pivot)
            self.solved[pivot] = {k: -c / scale for k, c in row.items()}
            if not row and why is not None:
                self.forbidden[pivot] = why

    def solutions(self, variables: Iterable[Variable], space: _Space, size: dict[int, int]) -> Iterator[Charge]:
        self._eliminate()
        on: dict[Variable, list[tuple[int, tuple[int, ...], Fraction]]] = {}
        for k in variables:
            for free, c in (self._reduce({k: Fraction(1)})).items():
                on.setdefault(free, []).append((k[0], k[1], c))
        for (block, leaves), held in on.items():
            if block in self.parameter:
                cells = space.cells
                classes = tuple(space.indices.root[cells.cell(cells.blocks[block], k)] for k in leaves)
                yield Charge(classes, tuple(size[c] for c in classes), tuple(held))
