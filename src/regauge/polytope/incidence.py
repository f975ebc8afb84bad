"""Which vertex lies on which facet: the face lattice that follows, and products, sums and pyramids told from it.

A product P x Q has the vertices v x w and the facets of P times Q and of Q times P: a facet of one kind and one of the
other meet in exactly the share of vertices that independence gives. The direct sum is the polar of a product.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from regauge.polytope.arrangement import components
from regauge.polytope.net import Array

Lattice = tuple[tuple[int, ...], tuple[Array, ...]]


def table(faces: tuple[Array, ...]) -> Array:
    """(vertices, facets) boolean incidence from the pairs (face, subface) of all dimensions."""
    over: csr_array | None = None
    for pairs in faces:
        face, sub = pairs[:, 0], pairs[:, 1]
        step = csr_array((np.ones(len(pairs), np.int32), (sub, face)), (int(sub.max()) + 1, int(face.max()) + 1))
        over = step if over is None else (over @ step).astype(bool).astype(np.int32)
    assert over is not None
    return np.asarray(over.toarray() > 0)


def lattice(on: Array, dim: int) -> Lattice:
    """The f-vector and the faces (as pairs (face, subface), vertices in order) of a polytope with this incidence."""
    facets = [_mask(column) for column in on.T]
    through = [np.flatnonzero(row).tolist() for row in on]
    levels, pairs = [facets], []
    for _ in range(dim - 1):
        number: dict[int, int] = {}
        rows = []
        for i, face in enumerate(levels[-1]):
            near = {f for v in _members(face) for f in through[v]}
            shared = sorted({face & facets[f] for f in near} - {face}, key=int.bit_count, reverse=True)
            biggest: list[int] = []
            for s in shared:
                if all(s & t != s for t in biggest):
                    biggest.append(s)
                    rows.append((i, number.setdefault(s, len(number))))
        levels.append(list(number))
        pairs.append(np.array(rows))
    own = np.array([_members(face)[0] for face in levels[-1]])
    pairs[-1][:, 1] = own[pairs[-1][:, 1]]
    return tuple(len(level) for level in reversed(levels)), tuple(reversed(pairs))


def _mask(column: Array) -> int:
    return sum(1 << int(i) for i in np.flatnonzero(column))


def _members(mask: int) -> list[int]:
    return [i for i, bit in enumerate(reversed(f"{mask:b}")) if bit == "1"]


def product_parts(on: Array) -> list[tuple[Array, Array, Array]] | None:
    """The factors of a product, or None: for each its facets (columns of `on`), its own incidence, and for every
    vertex of the product the number of its vertex there."""
    n = len(on)
    size = on.sum(axis=0).astype(np.int64)
    met = np.rint(on.astype(np.float32).T @ on.astype(np.float32)).astype(np.int64)  # exact below 2^24
    bound = np.nonzero(met * n != np.outer(size, size))
    kinds, label = components(on.shape[1], *bound)
    if kinds < 2:
        return None
    parts, total = [], 1
    for kind in range(kinds):
        mine = np.flatnonzero(label == kind)
        own, number = np.unique(on[:, mine], axis=0, return_inverse=True)
        parts.append((mine, own, number.reshape(-1)))
        total *= len(own)
    if total != n or len({tuple(t) for t in np.stack([number for *_, number in parts], axis=1).tolist()}) != n:
        return None
    return parts


def apex(on: Array) -> tuple[int, int] | None:
    """(vertex, facet) of a pyramid: the vertex lies on every facet but this one, which has all the other vertices."""
    vertices, facets = on.shape
    for facet in np.flatnonzero(on.sum(axis=0) == vertices - 1):
        vertex = int(np.flatnonzero(~on[:, facet])[0])
        if on[vertex].sum() == facets - 1:
            return vertex, int(facet)
    return None
