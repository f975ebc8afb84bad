"""Leaves of blocks as nodes of a union-find, with the places over which a transformation may differ.

A *cell* is one leaf of one block. Cells that must move together form a class. A class of cells is *local* over another
index set when every tensor in which it occurs carries that index set too: then each index may have its own element.
The places are tracked by position, not by name, because one tensor may carry an index set twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from regauge.solve.blocks import Block, Blocks, Term


class Disjoint:
    """Union-find with a sign: two members are related directly (0) or as dual to each other (1)."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))
        self.sign = [0] * n

    def find(self, x: int) -> tuple[int, int]:
        path = []
        while self.parent[x] != x:
            path.append(x)
            x = self.parent[x]
        sign = 0
        for y in reversed(path):
            sign ^= self.sign[y]
            self.parent[y], self.sign[y] = x, sign
        return x, (self.sign[path[0]] if path else 0)

    def union(self, a: int, b: int, sign: int = 0) -> bool:
        """Relate a and b. False if they were related with the other sign before."""
        (ra, sa), (rb, sb) = self.find(a), self.find(b)
        if ra == rb:
            return sa ^ sb == sign
        self.parent[rb], self.sign[rb] = ra, sa ^ sb ^ sign
        return True


class Cells:
    """Numbers the cells, and keeps their classes and slots. A slot of a class is a place that every member has."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = {b.id: b for b in blocks.all()}
        self.first: dict[int, int] = {}
        self.slot0: dict[int, int] = {}
        cells = slots = 0
        self.owner: list[tuple[int, int]] = []
        for b in self.blocks.values():
            self.first[b.id], self.slot0[b.id] = cells, slots
            n = len(b.leaves)
            cells, slots = cells + n, slots + n * n
            self.owner += [(b.id, i) for i in range(n)]
        self.classes = Disjoint(cells)
        self.slots = Disjoint(slots)
        self.dead: set[int] = set()
        self.own = Disjoint(slots)  # as `slots` and `dead`, without what only links tie
        self.spoilt: set[int] = set()

    def cell(self, block: Block, leaf: int) -> int:
        return self.first[block.id] + leaf

    def of(self, term: Term, label: int) -> int:
        return self.cell(term.block, term.labels.index(label))

    def slot(self, block: Block, leaf: int, other: int) -> int:
        return self.slot0[block.id] + leaf * len(block.leaves) + other

    def tie_slots(
        self, terms: Iterable[Term], label: int, mixed: frozenset[int] = frozenset(), linked: bool = False
    ) -> None:
        """The cells of `label` move together in these terms: what places do they share? Not those that are mixed. linked:
        they are of two classes, of which one follows the other."""
        terms = [t for t in terms if label in t.labels]
        for m in dict.fromkeys(l for t in terms for l in t.labels):
            if m == label:
                continue
            having = [t for t in terms if m in t.labels]
            ids = [self.slot(t.block, t.labels.index(label), t.labels.index(m)) for t in having]
            lost = len(having) < len(terms) or (m in mixed and label not in mixed)
            for slots, dead in ((self.slots, self.dead), (self.own, self.spoilt))[: 1 if linked else 2]:
                if lost:
                    dead.update(ids)
                for other in ids[1:]:
                    slots.union(ids[0], other)

    def members(self) -> dict[int, list[tuple[int, int]]]:
        """class -> (cell, sign)."""
        out: dict[int, list[tuple[int, int]]] = {}
        for c in range(len(self.owner)):
            root, sign = self.classes.find(c)
            out.setdefault(root, []).append((c, sign))
        return out

    def places(self, cells: list[int], own: bool = False) -> dict[int, dict[int, int]]:
        """The slots that all these cells share: slot -> (cell -> leaf of that cell's block). own: they are one class, and
        what it follows or is followed by does not count."""
        slots, lost = (self.own, self.spoilt) if own else (self.slots, self.dead)
        dead = {slots.find(s)[0] for s in lost}
        found: dict[int, dict[int, int]] = {}
        spoilt: set[int] = set()
        for c in cells:
            block_id, leaf = self.owner[c]
            block = self.blocks[block_id]
            for other in range(len(block.leaves)):
                if other == leaf:
                    continue
                root = slots.find(self.slot(block, leaf, other))[0]
                if root in dead:
                    continue
                where = found.setdefault(root, {})
                if c in where:
                    spoilt.add(root)
                where[c] = other
        return {root: where for root, where in found.items() if root not in spoilt and len(where) == len(cells)}
