"""Where a bond is wider than the maps around it: what its group really moves, and what no map can see.

Data that come through a map of rank s span only s of the n directions of a bond, and readers of rank r see only r of them.
Of a map W between two bonds only its r x s part is visible; GL(n) moves the visible parts by s r dimensions (not n^2), and
the invisible rest of every W is free. For a chain of linear maps the sum is the dimension of the determinantal variety's fibre.
"""

from __future__ import annotations

from collections.abc import Iterable
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


FIXES_ONES, FIXES_SUM = ("GLv", "GLvc", "O1"), ("GLc", "GLvc")


@dataclass
class _Width:
    kind: str
    n: int
    copies: int
    span: int
    seen: int


def shortfalls(plan: Plan) -> tuple[Shortfall, ...]:
    """Corrections to the dimension, one for each bond (negative) and each map (positive) that falls short."""
    cells = plan.frames.cells
    widths = {s.root: _Width(s.kind, s.n, s.copies, s.n, s.n) for s in plan.sources.values() if s.kind != "SO2"}
    if not widths:
        return ()
    role = sides(plan)
    users = plan.graph.consumers()
    maps: list[tuple[Block, tuple[int, ...], tuple[int, ...]]] = []
    unclear: set[int] = set()

    def rooted(b: Block, k: int) -> tuple[int, bool]:
        """The frame that moves a leaf, through gains, and whether it does so as its dual."""
        c = cells.cell(b, k)
        dual = plan.frames.sign[c]
        while plan.frames.root[c] in plan.frames.derived:
            d = plan.frames.derived[plan.frames.root[c]]
            c, dual = d.other, dual ^ plan.frames.sign[d.cell] ^ plan.frames.sign[d.other]
        return plan.frames.root[c], bool(dual)

    def root(b: Block, k: int) -> int:
        return rooted(b, k)[0]

    for v in plan.parameters():
        assert isinstance(v.op, Param)
        for b in plan.blocks.of[v.id]:
            framed = [k for k in range(len(b.leaves)) if root(b, k) in widths]
            if not framed:
                continue
            readers = users[v.id]
            if len(b.leaves) < 2 and all(isinstance(r.op, Add) for r in readers):
                continue  # a shift fills no direction
            if len(readers) != 1 or not isinstance(readers[0].op, Einsum) or len(readers[0].args) < 2:
                unclear.update(root(b, k) for k in framed)
                continue
            into = tuple(k for k in range(len(b.leaves)) if role.get((b.id, k)) == {"dual"})
            out = tuple(k for k in range(len(b.leaves)) if k not in into)
            maps.append((b, into, out))
    roles = {s.block.id: [where for where, _ in s.roles] for s in plan.shifts.sources}

    def relation(b: Block, into: Iterable[int]) -> int:
        """One direction less comes through a map whose operand satisfies a relation on the leaves that it sums over."""
        return int(any(where <= set(into) for where in roles.get(b.id, ())))

    def places(b: Block, k: int) -> set[int]:
        """Leaves over which the frame at leaf k has its copies."""
        c = cells.cell(b, k)
        found = plan.frame_places.get(plan.component(root(b, k)), {})
        return {where[c] for where in found.values() if c in where}

    def dual(b: Block, k: int) -> bool:
        return bool(plan.frames.sign[cells.cell(b, k)])

    def visible(b: Block, leaves: Iterable[int]) -> int:
        """Directions on one side of a map that something meets: of frames those of the other role, of other leaves all."""
        total = 1
        for k in leaves:
            w = widths.get(root(b, k))
            total *= b.sizes[k] if w is None else w.span if dual(b, k) else w.seen
        return total

    def amount(b: Block, into: tuple[int, ...], out: tuple[int, ...], k: int) -> int:
        """Directions of the frame at leaf k that the map reaches: one for each index of its other leaves, but for those
        over which the frame has its copies."""
        rest = [j for j in range(len(b.leaves)) if j != k and j not in places(b, k)]
        if k in out:
            less = relation(b, into) * visible(b, (j for j in rest if j in out))
            return max(0, visible(b, rest) - less)
        return visible(b, rest)

    for _ in range(len(widths) + 2):
        fresh = {r: [0, 0] for r in widths}
        for b, into, out in maps:
            for k in range(len(b.leaves)):
                r = root(b, k)
                if (
                    r in widths
                ):  # vectors fill a frame, duals read it; of two that meet in a contraction either may be called so
                    fresh[r][dual(b, k)] += amount(b, into, out, k)
        changed = False
        for r, (filled, read) in fresh.items():
            w = widths[r]
            if w.kind == "GL":
                span, seen = (min(w.n, filled) if filled else w.n), (min(w.n, read) if read else w.n)
            else:
                span, seen = min(w.n, filled + (w.kind in FIXES_ONES)), min(w.n, read + (w.kind in FIXES_SUM))
            if r not in unclear and (span, seen) != (w.span, w.seen):
                w.span, w.seen, changed = span, seen, True
        if not changed:
            break
    found = []
    for w in widths.values():
        still = _stabiliser(w)
        if still:
            found.append(Shortfall(f"{w.kind} frame {w.n} filled {w.span} seen {w.seen}", -w.copies * still))
    short = {r for r, w in widths.items() if w.kind == "GL" and (w.span < w.n or w.seen < w.n)}
    for r in short:
        w = widths[r]
        found.append(Shortfall(f"frame {w.n} filled {w.span} seen {w.seen}", w.copies * (w.span * w.seen - w.n * w.n)))
    for b, into, _ in maps:
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
        less = relation(b, inner)
        full_in, full_out = prod(b.sizes[k] for k in inner) - less, prod(b.sizes[k] for k in outer)
        free = full_in * full_out - (visible(b, inner) - less) * visible(b, outer)
        if free:
            found.append(Shortfall(f"map {b.value.op.name}", copies * free))  # type: ignore[union-attr]
    return tuple(found)


def _stabiliser(w: _Width) -> int:
    """Dimension of what leaves all that fills a frame and all that reads it where it is; GL is counted by its maps."""
    match w.kind:
        case "GL":
            return 0
        case "O" | "O1":
            free = max(0, w.n - w.span - w.seen)
            return free * (free - 1) // 2
    return (w.n - w.span) * (w.n - w.seen)
