"""Rows of tables that are only read together: what one is given the others give up.

Positions that are counted from the tokens stand still at padding, so that the row of the padding token and the row of its
position are summed wherever one of them is read. Of tables that nothing else reads, all rows but one are then free to move.
A table with other readers (an output tied to it) takes part as far as these do not see it: a row may move along the covector
of a relation that its other operand satisfies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from regauge.graph.ir import Add, Einsum, Free, Graph, Param, Value
from regauge.solve.blind import Unseen
from regauge.solve.blocks import Blocks
from regauge.solve.sources import Shifts
from regauge.solve.together import span_dim


@dataclass(frozen=True)
class Lookup:
    """Rows of a table, read into `result`. Where the event happens, and nowhere else, row `row` is."""

    event: str
    row: int
    table: Value
    result: Value


def paired_rows(
    graph: Graph, blocks: Blocks, seen: tuple[Unseen, ...], shifts: Callable[[frozenset[int]], Shifts]
) -> dict[str, int]:
    """Table -> in how many directions rows of it move against rows of others, beyond what is unseen in a row by itself.

    shifts: the translations of the graph, if readers that make these values (ids) are left out of it.
    """
    users = graph.consumers()
    together: dict[tuple[str, int], list[Lookup]] = {}
    for found in lookups(graph):
        end = _sum(found.result, graph, users)
        if end is not None:
            together.setdefault((found.event, end.id), []).append(found)
    rows: dict[tuple[int, int], int] = {}  # a row is counted once, though it may be read in several sums
    for group in together.values():
        if len({f.table.id for f in group}) != len(group) or any(len(blocks.of[f.table.id]) != 1 for f in group):
            continue
        own = [f for f in group if len(users[f.table.id]) == 1]
        for f in own[1:]:
            rows[f.table.id, f.row] = f.table.shape[1] - _unseen(f.table, seen)
        for f in group if own else ():
            if f not in own and _apart(f, users[f.table.id], shifts):
                rows[f.table.id, f.row] = 1
    out: dict[str, int] = {}
    for group in together.values():
        for f in group:
            name = f.table.op.name  # type: ignore[union-attr]
            if (n := rows.pop((f.table.id, f.row), 0)) > 0:
                out[name] = out.get(name, 0) + n
    return out


def lookups(graph: Graph) -> Iterable[Lookup]:
    """Tables of vectors that are read at one-hot rows which show an event."""
    for v in graph.values:
        if not isinstance(v.op, Einsum) or len(v.args) != 2:
            continue
        for i in (0, 1):
            hot, table = v.args[i], v.args[1 - i]
            theirs, mine = v.op.ins[i], v.op.ins[1 - i]
            if not isinstance(hot.op, Free) or hot.op.total is None or hot.op.total[1] != 1.0 or hot is table:
                continue
            if not isinstance(table.op, Param) or table.op.statistic or not table.op.chart.signed or table.ndim != 2:
                continue
            chosen = theirs[hot.op.total[0]]
            if mine[0] == chosen and v.op.out == (*(l for l in theirs if l != chosen), mine[1]):
                yield from (Lookup(event, row, table, v) for event, row in hot.op.marks)


def _sum(v: Value, graph: Graph, users: dict[int, list[Value]]) -> Value | None:
    """The sum in which a value ends that nothing else reads."""
    observed = {o.id for o in (*graph.outputs, *graph.followers)}
    end = None
    while v.id not in observed and len(users[v.id]) == 1:
        (user,) = users[v.id]
        if not isinstance(user.op, Add) or user.args.count(v) != 1 or user.shape != v.shape:
            break
        at = user.args.index(v)
        if user.op.ins[at] != user.op.out or user.op.coefs[at] == 0:
            break
        v = end = user
    return end


def _unseen(table: Value, seen: tuple[Unseen, ...]) -> int:
    """Directions of one row that nobody sees."""
    mine = next((u for u in seen if u.block.value is table), None)
    if mine is None:
        return 0
    if mine.tolerance.everything:
        return table.shape[1]
    sets = tuple(tuple(k - 1 for k in s) for s in mine.sets if 0 not in s)
    return span_dim(mine.block.sizes[1:], sets) if sets else 0


def _apart(f: Lookup, readers: list[Value], shifts: Callable[[frozenset[int]], Shifts]) -> bool:
    """Whether every row may move by itself, along a known relation, as far as the other readers see it."""
    without = shifts(frozenset(r.id for r in readers))
    moved = shifts(frozenset({f.result.id}))
    mine = [s for s in moved.sources if s.block.value is f.table]
    return len(mine) == 1 and mine[0].leaves == (0,) and moved.dim - without.dim >= f.table.shape[0]
