"""Where translations start: additive parameters, and linear readers of values that satisfy a known relation."""

from __future__ import annotations

from regauge.graph.ir import Add, Concat, Einsum, Param, Reshape, Slice
from regauge.solve.blind import Tolerance
from regauge.solve.blocks import Block, Blocks, Relation, Term
from regauge.solve.frames import evaluable
from regauge.solve.known import Known
from regauge.solve.sources import Source

LEVELS = ("level", "overlap")  # modes in which only multiples of ones translate
Role = tuple[frozenset[int], Known]  # the leaves that a reader sums over, and what the other operand satisfies there


def origins(
    blocks: Blocks,
    readers: dict[int, list[Relation]],
    tolerance: dict[int, Tolerance],
    known: dict[int, Known],
    mode: str,
) -> list[Source]:
    """The sources of a mode of `shifts`, in the order of the graph."""
    found: list[Source] = []
    for v in blocks.graph.values:
        if not isinstance(v.op, Param) or not v.op.chart.signed or v.op.statistic and mode != "statistics":
            continue
        for b in blocks.of[v.id]:
            mine = readers.get(b.id, [])
            if not mine or tolerance.get(b.id, Tolerance()).everything:
                continue
            if all(_passes(r, b) for r in mine):
                along = frozenset(range(len(b.leaves))) if mode in LEVELS else frozenset()
                found.append(Source(len(found), b, along))
            elif mode not in LEVELS and (roles := _roles(b, mine, tolerance, known)):
                found.append(Source(len(found), b, frozenset(k for where, _ in roles for k in where), roles))
    return found


def _passes(r: Relation, b: Block) -> bool:
    """The relation hands a constant translation on."""
    if isinstance(r.op, Einsum):
        others = [t for t in r.ins if t.block.id != b.id]
        return sum(t.block.id == b.id for t in r.ins) == 1 and all(evaluable(t.block.value) for t in others)
    return isinstance(r.op, Add | Reshape | Slice | Concat)


def _roles(
    b: Block, readers: list[Relation], tolerance: dict[int, Tolerance], known: dict[int, Known]
) -> tuple[Role, ...]:
    """The relations that the operands of this linear reader satisfy, with the leaves that are summed over.

    One relation in every use if there is one that the other uses do not see or satisfy, else one for each use.
    """
    uses: list[tuple[Relation, Term, Term, Role | None]] = []
    for r in readers:
        if not isinstance(r.op, Einsum) or len(r.ins) != 2:
            return ()
        mine = [t for t in r.ins if t.block.id == b.id]
        if len(mine) != 1:
            return ()
        (other,) = [t for t in r.ins if t is not mine[0]]
        k = known.get(other.block.id)
        k = None if k is not None and k.partial else k  # of a part alone nothing is known
        summed = {l for l in mine[0].labels if l in other.labels and l not in r.out.labels}
        alone = {
            l for l in other.labels if l not in r.out.labels
        }  # summed over more, it would be as many times the sum
        fits = k is not None and summed and {other.labels[i] for i in k.along} == summed == alone
        where = frozenset(i for i, l in enumerate(mine[0].labels) if l in summed)
        uses.append((r, mine[0], other, (where, k) if k is not None and fits else None))
    found = [role for *_, role in uses if role is not None]
    for where, k in found:
        if all(
            role is not None
            and (role[0], role[1].gains) == (where, k.gains)
            or not k.gains
            and _invisible(r, mine, other, where, tolerance)
            for r, mine, other, role in uses
        ):
            return ((where, k),)
    if len(found) != len(uses) or len({k for where, _ in found for k in where}) != sum(len(w) for w, _ in found):
        return ()
    return tuple(found)


def _invisible(r: Relation, mine: Term, other: Term, along: frozenset[int], tolerance: dict[int, Tolerance]) -> bool:
    """1 u^T read in another role: its result is constant along the leaves of the ones, and that is tolerated."""
    ones = {mine.labels[i] for i in along}
    if not ones <= set(r.out.labels) or ones & set(other.labels):
        return False
    varies = frozenset(k for k, l in enumerate(r.out.labels) if l not in ones)
    return tolerance[r.out.block.id].covers(varies)
