"""The dimension of the group as a sum of parts that share no direction.

What nobody sees is counted first, block by block; every other part counts what it moves beyond that. Translations leave
out unseen directions of their own block, scales those that act on unseen blocks alone, maps beyond a rank what is unseen,
unread or translated already.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from regauge.solve.inverted import inverted
from regauge.solve.plan import Plan, Source, frame_dim
from regauge.solve.ranks import shortfalls
from regauge.solve.unread import unread

UNREAD = "table rows that inputs of this length never read (elements keep them as they are)"
PAIRED = "table rows that are only read together with rows of other tables (elements keep them as they are)"
KINDS = {
    "GL": "SL({n})",
    "O": "O({n})",
    "O1": "O({m})",
    "SO2": "SO(2)",
    "GLv": "Aff({m})",
    "GLc": "Aff({m})",
    "GLvc": "GL({m})",
}


@dataclass(frozen=True)
class Part:
    """A part of the dimension: `count` times `each`."""

    label: str
    count: int
    each: int

    @property
    def dim(self) -> int:
        return self.count * self.each

    def __str__(self) -> str:
        return f"{self.label}: {self.count} x {self.each} = {self.dim}"


def dimension(plan: Plan) -> int:
    """Dimension of the orbit of generic parameters."""
    return sum(p.dim for p in parts(plan))


def parts(plan: Plan) -> tuple[Part, ...]:
    """What the dimension is made of."""
    counts: dict[tuple[str, int], int] = {}
    for s in plan.sources.values():
        key = (KINDS[s.kind].format(n=s.n, m=s.n - 1), frame_dim(s.kind, s.n))
        counts[key] = counts.get(key, 0) + s.copies
    frames = [Part(f"{label} on a bond", n, each) for (label, each), n in counts.items() if each]
    sources = plan.shifts.sources
    rest = (
        ("scales of units, heads, gains", sum(c.dim for c in plan.charges.scales) - _doubled(plan)),
        ("parameters that no reader sees", sum(u.dim for u in plan.unseen if u.tolerance.everything)),
        ("parameters that another one makes up for", sum(prod(v.shape) for v in plan.absorbed)),
        (
            "directions that every reader removes (a mean, a softmax)",
            sum(u.dim for u in plan.unseen if not u.tolerance.everything) + sum(j.dim for j in plan.joint),
        ),
        (
            "translations that other biases absorb",
            sum(d for s, d in plan.shifts.dims.items() if sources[s].known is None),
        ),
        (
            "readers of values with a known linear relation",
            sum(d for s, d in plan.shifts.dims.items() if sources[s].known is not None),
        ),
        (
            "beyond the rank of neighbouring maps (counted, not sampled)",
            sum(s.dim for s in shortfalls(plan)) + plan.shifts.beyond,
        ),
        (
            "gains and shifts behind a norm that a table makes up for (counted, not sampled)",
            sum(inverted(plan).values()),
        ),
        (UNREAD, sum(unread(plan).values())),
        (PAIRED, sum(plan.paired.values())),
        ("levels that centring readers remove", plan.levels.dim - plan.overlap),
    )
    return tuple(frames + [Part(label, 1, dim) for label, dim in rest if dim])


def _doubled(plan: Plan) -> int:
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
