"""All passes in order: a core graph in, everything that elements need out."""

from __future__ import annotations

from dataclasses import replace

from regauge.graph.ir import Graph
from regauge.solve.blind import tolerances, unseen
from regauge.solve.blocks import blocks
from regauge.solve.charges import charges
from regauge.solve.facts import plain_relations
from regauge.solve.frames import frames
from regauge.solve.indices import indices
from regauge.solve.known import known_relations
from regauge.solve.plan import Plan, frame_dim, plan
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
    full, level, overlap = (shifts(cut, relations, tolerance, known, hidden, mode) for mode in ("full", "level", "overlap"))
    found = plan(graph, cut, index, frame, charge, aliases)
    return replace(found, shifts=full, levels=level, overlap=overlap.dim, unseen=hidden)


def dimension(plan: Plan) -> int:
    """Dimension of the orbit of generic parameters."""
    return (
        sum(frame_dim(s.kind, s.n) * s.copies for s in plan.sources.values())
        + sum(c.dim for c in plan.charges.scales)
        + sum(u.dim for u in plan.unseen)
        + plan.shifts.dim
        + plan.levels.dim
        - plan.overlap
    )
