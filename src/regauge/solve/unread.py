"""Rows of tables that inputs of the traced length never read, and parts of parameters that nothing does."""

from __future__ import annotations

from math import prod

from regauge.graph.ir import Einsum, Free, Param, Value
from regauge.solve.blind import Unseen
from regauge.solve.blocks import Block
from regauge.solve.plan import Plan
from regauge.solve.together import span_dim


def unread(plan: Plan) -> dict[str, int]:
    """Entries in table rows that inputs of the traced length never read, beyond what is counted as unseen elsewhere, and
    in parts that nothing reads at all.

    Elements leave them as they are relative to the other rows: an input of another length may read them.
    """
    found: dict[str, int] = {}
    hidden = {u.block.id: u for u in plan.unseen}
    rows = unread_rows(plan)
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        silent = {b.id for b in plan.blocks.of[v.id]} & plan.silent
        count = sum(
            prod(b.sizes) if b.id in silent else rows.get(v.id, 0) * _seen(b, hidden.get(b.id))
            for b in plan.blocks.of[v.id]
        )
        if count:
            found[v.op.name] = count
    return found


def _seen(b: Block, u: Unseen | None) -> int:
    """Entries of a row, less the directions in it that nobody sees anyway."""
    sets = tuple(tuple(k - 1 for k in s) for s in u.sets if 0 not in s) if u is not None else ()
    hidden = span_dim(b.sizes[1:], sets) if sets else 0
    return 0 if u is not None and u.tolerance.everything else prod(b.sizes[1:]) - hidden


def unread_rows(plan: Plan) -> dict[int, int]:
    """Value id of a table -> how many of its rows no contraction selects. A table may be cut, but through no row apart."""
    found: dict[int, int] = {}
    users = plan.graph.consumers()
    for v in plan.parameters():
        rows: set[int] | None = set()
        for user in users[v.id]:
            picked = _picked(user, v)
            rows = None if picked is None or rows is None else rows | picked
        if rows is None or not users[v.id] or not _by_columns(v, plan):
            continue
        if len(rows) < v.shape[0]:
            found[v.id] = v.shape[0] - len(rows)
    return found


def _by_columns(table: Value, plan: Plan) -> bool:
    """Not cut, or into parts that hold all rows each, in which nothing is unseen only together."""
    blocks = plan.blocks.of[table.id]
    shared = {b.id for j in plan.joint for b in j.blocks}
    rows = ((0, table.shape[0], 1),) if table.shape[0] > 1 else ()
    return len(blocks) == 1 or all(b.leaves[:1] == rows and b.id not in shared for b in blocks)


def _picked(user: Value, table: Value) -> set[int] | None:
    """Rows that a contraction with one-hot rows may select; None if it may be any."""
    if not isinstance(user.op, Einsum) or len(user.args) != 2 or user.args.count(table) != 1:
        return None
    (other,) = [a for a in user.args if a is not table]
    if not isinstance(other.op, Free) or other.op.total is None or other.op.total[1] != 1.0:
        return None
    mine = user.op.ins[user.args.index(table)]
    theirs = user.op.ins[user.args.index(other)]
    if mine[0] != theirs[other.op.total[0]] or mine[0] in user.op.out:
        return None
    if other.op.data:
        reach, among, misses = other.op.reach, other.op.among, other.op.misses
        if reach is None and not misses:
            return None
        first, last = reach or (0, table.shape[0] - 1)
        return set(among or range(first, last + 1)) - set(misses)
    try:
        hot = other.op.thunk()
    except KeyError:
        return None
    hit = hot.movedim(other.op.total[0], -1).reshape(-1, hot.shape[other.op.total[0]]).any(0)
    return set(hit.nonzero().flatten().tolist())
