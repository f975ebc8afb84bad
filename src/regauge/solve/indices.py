"""Permutations: which index sets may be reordered, and over which others each index may have its own order."""

from __future__ import annotations

from dataclasses import dataclass

from regauge.graph.ir import Along, Free, Frozen, Param
from regauge.solve.blocks import Blocks, Relation
from regauge.solve.cells import Cells


@dataclass(frozen=True)
class Indices:
    """label classes of all cells. fixed: classes that may not be permuted. learned: classes that a parameter carries."""

    cells: Cells
    root: list[int]
    fixed: frozenset[int]
    learned: frozenset[int]
    causes: dict[int, Relation]


def indices(blocks: Blocks, relations: list[Relation]) -> Indices:
    cells = Cells(blocks)
    fixed: set[int] = set()
    causes: dict[int, Relation] = {}
    for r in relations:
        for label in dict.fromkeys(l for t in r.terms for l in t.labels):
            held = [cells.of(t, label) for t in r.terms if label in t.labels]
            for other in held[1:]:
                cells.classes.union(held[0], other)
            cells.tie_slots(r.terms, label, r.mixed)
            free = any(isinstance(t.block.value.op, Free) and label in t.labels for t in r.terms)
            mixed = label in r.touched and not (isinstance(r.op, Along) and r.op.equivariant)
            if free or mixed or label in r.fixed or label in r.planes or isinstance(r.op, Frozen):
                fixed.add(held[0])
                causes.setdefault(held[0], r)
        for t in r.terms:  # one label twice in a term: a diagonal
            if len(set(t.labels)) < len(t.labels):
                fixed.update(cells.cell(t.block, k) for k in range(len(t.labels)))
    for v in blocks.graph.outputs:
        for b in blocks.of[v.id]:
            fixed.update(cells.cell(b, k) for k in range(len(b.leaves)))
    fixed.update(cells.cell(b, k) for b in blocks.all() for k in range(len(b.leaves)) if blocks.is_rigid(b, k))
    root = [cells.classes.find(c)[0] for c in range(len(cells.owner))]
    learned = {
        root[cells.cell(b, k)]
        for v in blocks.graph.values
        if isinstance(v.op, Param)
        for b in blocks.of[v.id]
        for k in range(len(b.leaves))
    }
    why = {root[c]: r for c, r in reversed(causes.items())}
    return Indices(cells, root, frozenset(root[c] for c in fixed), frozenset(learned), why)
