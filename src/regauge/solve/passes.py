"""All passes in order: a core graph in, everything that elements need out."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from regauge.graph.ir import Einsum, Free, Graph, Param, Value
from regauge.solve.blind import span_dim, tolerances, unseen
from regauge.solve.blocks import blocks
from regauge.solve.charges import charges
from regauge.solve.facts import plain_relations
from regauge.solve.frames import frames
from regauge.solve.indices import indices
from regauge.solve.known import known_relations
from regauge.solve.plan import Plan, Source, frame_dim, plan
from regauge.solve.shifts import shifts


def solve(graph: Graph, aliases: dict[str, tuple[str, ...]]) -> Plan:
    cut = blocks(graph)
    relations = plain_relations(cut)
    index = indices(cut, relations)
    frame = frames(cut, relations, index)
    charge = charges(cut, relations, index, frame)
    tolerance = tolerances(cut, relations)
    known = known_relations(cut, relations)
    hidden = unseen(cut, tolerance)
    lost = {u.block.id for u in hidden if u.tolerance.everything}
    charge = replace(charge, scales=tuple(c for c in charge.scales if not {b for b, _, _ in c.on} <= lost))
    full, level, overlap = (
        shifts(cut, relations, tolerance, known, hidden, mode) for mode in ("full", "level", "overlap")
    )
    found = plan(graph, cut, index, frame, charge, aliases)
    found = replace(found, sources=_seen(found, lost))
    return replace(found, shifts=full, levels=level, overlap=overlap.dim, unseen=hidden)


def _seen(plan: Plan, lost: set[int]) -> dict[int, Source]:
    """Frames that move something beside blocks that no reader sees: all that moves there is counted with these."""
    cells = plan.frames.cells
    held: dict[int, set[int]] = {}
    for v in plan.parameters():
        for b in plan.blocks.of[v.id]:
            for k in range(len(b.leaves)):
                held.setdefault(plan.component(plan.frames.root[cells.cell(b, k)]), set()).add(b.id)
    return {root: s for root, s in plan.sources.items() if not held.get(plan.component(root), set()) <= lost}


def unread(plan: Plan) -> dict[str, int]:
    """Entries in table rows that inputs of the traced length never read, beyond what is counted as unseen elsewhere.

    Elements leave them as they are relative to the other rows: an input of another length may read them.
    """
    found: dict[str, int] = {}
    users = plan.graph.consumers()
    hidden = {u.block.value.id: u for u in plan.unseen}
    for v in plan.parameters():
        assert isinstance(v.op, Param)
        rows: set[int] | None = set()
        for user in users[v.id]:
            picked = _picked(user, v)
            rows = None if picked is None or rows is None else rows | picked
        if rows is None or not users[v.id] or len(plan.blocks.of[v.id]) != 1:
            continue
        rest = prod(v.shape[1:])
        inside = 0
        if v.id in hidden:
            u = hidden[v.id]
            sets = tuple(tuple(k - 1 for k in s) for s in u.sets if 0 not in s)
            inside = rest if u.tolerance.everything else span_dim(u.block.sizes[1:], sets) if sets else 0
        count = (v.shape[0] - len(rows)) * (rest - inside)
        if count:
            found[v.op.name] = count
    return found


def _picked(user: Value, table: Value) -> set[int] | None:
    """Rows that a contraction with constant one-hot rows selects; None if it depends on data."""
    if not isinstance(user.op, Einsum) or len(user.args) != 2 or user.args.count(table) != 1:
        return None
    (other,) = [a for a in user.args if a is not table]
    if not isinstance(other.op, Free) or other.op.data or other.op.total is None or other.op.total[1] != 1.0:
        return None
    mine = user.op.ins[user.args.index(table)]
    theirs = user.op.ins[user.args.index(other)]
    if mine[0] != theirs[other.op.total[0]] or mine[0] in user.op.out:
        return None
    try:
        hot = other.op.thunk()
    except KeyError:
        return None
    hit = hot.movedim(other.op.total[0], -1).reshape(-1, hot.shape[other.op.total[0]]).any(0)
    return set(hit.nonzero().flatten().tolist())


def doubled(plan: Plan) -> int:
    """Scales of the direction of ones, where a centring hides that direction: they are in what nobody sees already."""
    cells = plan.frames.cells
    count = 0
    for s in plan.sources.values():
        if s.kind != "GLvc":
            continue
        writers, hidden = [], {(u.block.id, k) for u in plan.unseen for along in u.sets for k in along}
        for v in plan.parameters():
            for b in plan.blocks.of[v.id]:
                at = [k for k in range(len(b.leaves)) if plan.frames.root[cells.cell(b, k)] == s.root]
                writers += [(b.id, k) for k in at if (b.id, k) in hidden]
        scales = [c for c in plan.charges.scales if {b for b, _ in writers} & {b for b, _, _ in c.on}]
        if writers:
            places = {
                plan.indices.root[cells.first[cells.owner[c][0]] + k] for p in _places(plan, s) for c, k in p.items()
            }
            count += min(s.copies, sum(c.dim for c in scales if set(c.classes) <= places))
    return count


def _places(plan: Plan, s: Source) -> list[dict[int, int]]:
    return list(plan.frame_places.get(plan.component(s.root), {}).values())


def absorbed(plan: Plan) -> int:
    return sum(prod(v.shape) for v in plan.absorbed)


def dimension(plan: Plan) -> int:
    """Dimension of the orbit of generic parameters."""
    from regauge.solve.ranks import shortfalls

    return (
        sum(s.dim for s in shortfalls(plan))
        + sum(frame_dim(s.kind, s.n) * s.copies for s in plan.sources.values())
        + sum(c.dim for c in plan.charges.scales)
        + sum(u.dim for u in plan.unseen)
        + plan.shifts.dim
        + plan.levels.dim
        - plan.overlap
        - doubled(plan)
        + sum(unread(plan).values())
        + absorbed(plan)
    )
