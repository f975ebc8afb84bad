"""Translations that come through maps and vanish together.

Where a map leads from more directions than are seen behind it (values of attention heads into a stream of the same width
that only centring norms read), some translations are taken to nothing. N directions under m equations leave at least N - m;
at generic parameters that is their number unless the maps lose rank elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from regauge.solve.blind import Tolerance
from regauge.solve.blocks import Block
from regauge.solve.together import span_dim


def equations(b: Block, leaves: Sequence[int], tolerance: Tolerance) -> int:
    """How many equations say that a translation over these leaves of a block is not seen."""
    sizes = tuple(b.sizes[k] for k in leaves)
    along = tuple(tuple(leaves.index(k) for k in u if k in leaves) for u in tolerance.along)
    return prod(sizes) - (span_dim(sizes, along) if along else 0)


def kernels(bound: Sequence[tuple[frozenset[int], int]], dims: Mapping[int, int]) -> tuple[int, frozenset[int]]:
    """How many directions sources have beyond the equations that they satisfy together, and the sources that have any.

    bound: groups of sources, and how many equations each satisfies; dims: directions of every source that still moves.
    """
    total, moving, left = 0, frozenset[int](), list(bound)
    while left:
        (group, count), *rest = left
        met = [t for t in rest if t[0] & group]
        if met:
            joined = (group.union(*(g for g, _ in met)), count + sum(n for _, n in met))
            left = [joined, *(t for t in rest if not t[0] & group)]
            continue
        left, group = rest, group & dims.keys()
        more = sum(dims[s] for s in group) - count
        if more > 0:
            total, moving = total + more, moving | group
    return total, moving
