"""All passes in order: a core graph in, everything that elements need out."""

from __future__ import annotations

from dataclasses import replace

from regauge.graph.ir import Graph, Param
from regauge.solve.blind import joint, silent, tolerances, unseen
from regauge.solve.blocks import blocks
from regauge.solve.charges import charges
from regauge.solve.facts import plain_relations
from regauge.solve.frames import frames
from regauge.solve.indices import indices
from regauge.solve.known import known_relations
from regauge.solve.pairs import paired_rows
from regauge.solve.plan import Plan, Source, plan
from regauge.solve.shifts import shifts


def solve(graph: Graph, aliases: dict[str, tuple[str, ...]]) -> Plan:
    cut = blocks(graph)
    relations = plain_relations(cut)
    index = indices(cut, relations)
    frame = frames(cut, relations, index)
    known = known_relations(cut, relations)
    tolerance = tolerances(cut, relations, known)
    hidden = unseen(cut, tolerance)
    shared = joint(cut, tolerance)
    unread = silent(cut, relations)
    lost = {u.block.id for u in hidden if u.tolerance.everything} | unread
    still = {b.id for v in graph.values if isinstance(v.op, Param) and v.op.statistic for b in cut.of[v.id]}
    if still:  # a running mean follows a scale only where a bias could take what it does not
        followed = shifts(cut, relations, tolerance, known, hidden, shared, "statistics")
        still -= {s.block.id for s in followed.sources if s.id in followed.moving}
    charge = charges(cut, relations, index, frame, lost, still)
    full, level, overlap = (
        shifts(cut, relations, tolerance, known, hidden, shared, mode) for mode in ("full", "level", "overlap")
    )
    found = plan(graph, cut, index, frame, charge, aliases)
    found = replace(found, sources=_seen(found, lost))
    rows = paired_rows(
        graph, cut, hidden, lambda apart: shifts(cut, relations, tolerance, known, hidden, shared, "full", apart)
    )
    found = replace(found, shifts=full, levels=level, overlap=overlap.dim, unseen=hidden)
    return replace(found, joint=shared, silent=unread, paired=rows)


def _seen(plan: Plan, lost: set[int]) -> dict[int, Source]:
    """Frames that move something beside blocks that no reader sees: all that moves there is counted with these."""
    cells = plan.frames.cells
    held: dict[int, set[int]] = {}
    for v in plan.parameters():
        for b in plan.blocks.of[v.id]:
            for k in range(len(b.leaves)):
                held.setdefault(plan.component(plan.frames.root[cells.cell(b, k)]), set()).add(b.id)
    return {root: s for root, s in plan.sources.items() if not held.get(plan.component(root), set()) <= lost}
