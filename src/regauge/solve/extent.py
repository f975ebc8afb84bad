"""How much a translation adds beyond the directions that nobody sees."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from regauge.solve.blind import Unseen
from regauge.solve.sources import Source
from regauge.solve.together import Joint, span_dim


def extent(s: Source, unseen: Unseen | None, joint: Joint | None, free: Sequence[Source]) -> int:
    """Dimension of a source without the unseen directions of its block, and those that several blocks share. free: sources
    that may be chosen."""
    if unseen is None:
        return s.size - _shared(s, joint, free)
    inside = []
    for places in unseen.sets:
        along = [k for k in places if k in s.along]
        if along and (not s.roles or any(k.gains for _, k in s.roles) or set(along) != set(s.along)):
            continue
        inside.append(tuple(s.leaves.index(k) for k in places if k not in s.along))
    return s.size - (span_dim(s.shape, tuple(inside)) if inside else 0) - _shared(s, joint, free)


def _shared(s: Source, j: Joint | None, free: Sequence[Source]) -> int:
    """Directions that nobody sees if several blocks share them, counted at the first of these that is free."""
    if j is None or not s.roles:
        return 0
    held = [b.id for b in j.blocks]
    first = next(o for o in free if o.block.id in held)
    places = j.along[held.index(s.block.id)]
    along = s.along & set(places)
    if s is not first or along and (any(k.gains for _, k in s.roles) or along != s.along):
        return 0
    return prod(s.block.sizes[k] for k in s.leaves if k not in places)
