"""Where a bond is wider than the maps around it: what its group really moves, and what no map can see.

Data that come through a map of rank s span only s of the n directions of a bond, and readers of rank r see only r of them.
Of a map W between two bonds only its r x s part is visible; GL(n) moves the visible parts by s r dimensions (not n^2), and
the invisible rest of every W is free. For a chain of linear maps the sum is the dimension of the determinantal variety's fibre.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from regauge.graph.ir import Add, Einsum, Param
from regauge.solve.blocks import Block
from regauge.solve.bonds import sides
from regauge.solve.plan import Plan


@dataclass(frozen=True)
class Shortfall:
    """A frame of n directions of which `span` are filled and `seen` are read, in `copies`; or the free part of a map."""

    name: str
    dim: int


@dataclass
class _Width:
    n: int
    copies: int
    span: int
    seen: int


def shortfalls(plan: Plan) -> tuple[Shortfall, ...]:
    """Corrections to the dimension, one for each bond (negative) and each map (positive) that falls short."""
    cells = plan.frames.cells
    widths = {s.root: _Width(s.n, s.copies, s.n, s.n) for s in plan.sources.values() if s.kind == "GL"}
    if not widths:
        return ()
    role = sides(plan)
    users = plan.graph.consumers()
    maps: list[tuple[Block, int, tuple[int, ...], tuple[int, ...], set[str]]] = []
    unclear: set[int] = set()

    def root(b: Block, k: int) -> int:
        return plan.frames.root[cells.cell(b, k)]

    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for b in plan.blocks.of[v.id]:
            framed = [k for k in range(len(b.leaves)) if plan.frames.root[cells.cell(b, k)] in widths]
            if not framed:
                continue
            readers = users[v.id]
            if len(b.leaves) < 2 and all(isinstance(r.op, Add) for r in readers):
                continue  # a shift fills no direction
            if (
                len(b.leaves) < 2
                or len(readers) != 1
                or not isinstance(readers[0].op, Einsum)
                or len(readers[0].args) < 2
            ):
                unclear.update(root(b, k) for k in framed)
                continue
            into = tuple(k for k in range(len(b.leaves)) if role.get((b.id, k)) == {"dual"})
            out = tuple(k for k in range(len(b.leaves)) if k not in into)
            maps.append((b, 0, into, out, set()))
    relation = {s.block.id: 1 for s in plan.shifts.sources if s.known is not None}

    def places(b: Block, k: int) -> set[int]:
        """Leaves over which the frame at leaf k has its copies."""
        c = cells.cell(b, k)
        found = plan.frame_places.get(plan.component(root(b, k)), {})
        return {where[c] for where in found.values() if c in where}

    def extent(b: Block, leaves: tuple[int, ...], which: str, skip: set[int]) -> int:
        """Directions on one side of a map: of frames as filled or seen, of other leaves all."""
        total = 1
        for k in leaves:
            if k in skip:
                continue
            w = widths.get(root(b, k))
            total *= b.sizes[k] if w is None else getattr(w, which)
        return total

    def sides_of(b: Block, into: tuple[int, ...], out: tuple[int, ...], k: int) -> tuple[bool, int]:
        """Does the map fill the frame at leaf k (else it reads it), and with how many directions?"""
        skip = places(b, k)
        if k in out:
            return True, max(0, extent(b, into, "span", skip) - (relation.get(b.id, 0) if into else 0))
        return False, extent(b, out, "seen", skip)

    for _ in range(len(widths) + 2):
        fresh = {r: [0, 0] for r in widths}
        for b, _, into, out, _ in maps:
            for k in range(len(b.leaves)):
                r = root(b, k)
                if r not in widths:
                    continue
                fills, amount = sides_of(b, into, out, k)
                dual = bool(plan.frames.sign[cells.cell(b, k)])
                # q and k meet in a contraction: each fills its own side, and reads the other
                fresh[r][1 if (not fills) or (fills and dual) else 0] += amount
        changed = False
        for r, (filled, read) in fresh.items():
            w = widths[r]
            span, seen = (min(w.n, filled) if filled else w.n), (min(w.n, read) if read else w.n)
            if r not in unclear and (span, seen) != (w.span, w.seen):
                w.span, w.seen, changed = span, seen, True
        if not changed:
            break
    short = {r for r, w in widths.items() if w.span < w.n or w.seen < w.n}
    found = []
    for r in short:
        w = widths[r]
        found.append(Shortfall(f"frame {w.n} filled {w.span} seen {w.seen}", w.copies * (w.span * w.seen - w.n * w.n)))
    for b, _, into, _, _ in maps:
        touched = [k for k in range(len(b.leaves)) if root(b, k) in short]
        if not touched:
            continue
        copies = prod(b.sizes[p] for p in places(b, touched[0]))
        inner: list[int] = []
        outer: list[int] = []
        for k in range(len(b.leaves)):
            if k in places(b, touched[0]):
                continue
            (inner if k in into else outer).append(k)
        less = relation.get(b.id, 0) if inner else 0
        full_in, full_out = prod(b.sizes[k] for k in inner) - less, prod(b.sizes[k] for k in outer)

        def visible(leaves: list[int], reading: bool, b: Block = b) -> int:
            total = 1
            for k in leaves:
                w = widths.get(root(b, k))
                if w is None:
                    total *= b.sizes[k]
                    continue
                dual = bool(plan.frames.sign[cells.cell(b, k)])
                if reading:
                    total *= w.span
                else:
                    total *= w.span if dual else w.seen
            return total

        free = full_in * full_out - (visible(inner, True) - less) * visible(outer, False)
        if free:
            found.append(Shortfall(f"map {b.value.op.name}", copies * free))  # type: ignore[union-attr]
    return tuple(found)
