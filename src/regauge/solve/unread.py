"""Rows of tables that inputs of the traced length never read, and parts of parameters that nothing does."""

from __future__ import annotations

from math import prod

from regauge.graph.ir import Einsum, Free, Param, Value
from regauge.solve.plan import Plan
from regauge.solve.together import span_dim


def unread(plan: Plan) -> dict[str, int]:
    """Entries in table rows that inputs of the traced length never read, beyond what is counted as unseen elsewhere, and
    in parts that nothing reads at all.

    Elements leave them as they are relative to the other rows: an input of another length may read them.
    """
    found: dict[str, int] = {}
    hidden = {u.block.value.id: u for u in plan.unseen}
    rows = unread_rows(plan)
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        silent = sum(prod(b.sizes) for b in plan.blocks.of[v.id] if b.id in plan.silent)
        if silent:
            found[v.op.name] = silent
        if v.id not in rows:
            continue
        rest = prod(v.shape[1:])
        inside = 0
        if v.id in hidden:
            u = hidden[v.id]
            sets = tuple(tuple(k - 1 for k in s) for s in u.sets if 0 not in s)
            inside = rest if u.tolerance.everything else span_dim(u.block.sizes[1:], sets) if sets else 0
        count = rows[v.id] * (rest - inside)
        if count:
            found[v.op.name] = count
    return found


def unread_rows(plan: Plan) -> dict[int, int]:
    """Value id of a table that is not cut -> how many of its rows no contraction selects."""
    found: dict[int, int] = {}
    users = plan.graph.consumers()
    for v in plan.parameters():
        rows: set[int] | None = set()
        for user in users[v.id]:
            picked = _picked(user, v)
            rows = None if picked is None or rows is None else rows | picked
        if rows is None or not users[v.id] or len(plan.blocks.of[v.id]) != 1:
            continue
        if len(rows) < v.shape[0]:
            found[v.id] = v.shape[0] - len(rows)
    return found


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
        reach = other.op.reach
        if other.op.among:
            return set(other.op.among)
        return None if reach is None else set(range(reach[0], reach[1] + 1))
    try:
        hot = other.op.thunk()
    except KeyError:
        return None
    hit = hot.movedim(other.op.total[0], -1).reshape(-1, hot.shape[other.op.total[0]]).any(0)
    return set(hit.nonzero().flatten().tolist())
