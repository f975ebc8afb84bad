"""A complete fan of convex cones in R^d, kept as its face incidences, and the one verb that refines it: `split`.

Level k holds the cones of dimension k + 1, so rays are level 0 and the full cones level d - 1. Cutting by a function
that is linear on every cone only needs its sign on the rays: every face that has rays on both sides splits in two and
leaves a new face, one level lower, on the cut. All cones are cut at once; nothing here knows coordinates.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from regauge.errors import CheckError
from regauge.polytope.net import Array

MEETING = (
    "the rounded signs of a unit belong to no linear function: units meet within the tolerance without meeting "
    "exactly; polish the weights, change `tolerance`, or extract with exact=True."
)


@dataclass(frozen=True, eq=False)
class Fan:
    """`counts[k]`: faces of level k. `edges`: (counts[1], 2) rays. `rows[k - 2]`: pairs (face, subface) of level k."""

    counts: tuple[int, ...]
    edges: Array
    rows: tuple[tuple[Array, Array], ...]

    @property
    def top(self) -> int:
        return len(self.counts) - 1

    def pairs(self, level: int) -> tuple[Array, Array]:
        """(face, subface) of faces of `level` >= 1 with faces one level lower."""
        if level > 1:
            return self.rows[level - 2]
        return np.repeat(np.arange(len(self.edges)), 2), self.edges.reshape(-1)

    def rays_of(self, level: int) -> csr_array:
        """(counts[level], rays) matrix, nonzero where the face has the ray."""
        product = self._matrix(level)
        for k in range(level - 1, 0, -1):
            product = product @ self._matrix(k)
        product.data[:] = 1
        return product

    def _matrix(self, level: int) -> csr_array:
        face, sub = self.pairs(level)
        shape = (self.counts[level], self.counts[level - 1])
        return csr_array((np.ones(len(face), dtype=np.int32), (face, sub)), shape=shape)


def orthants(dim: int) -> tuple[Fan, Array]:
    """The fan of the 2^dim orthants, and for each ray its signed axis (axis, sign)."""
    faces = [[s for s in itertools.product((0, 1, -1), repeat=dim) if sum(map(abs, s)) == k + 1] for k in range(dim)]
    number = [{s: i for i, s in enumerate(level)} for level in faces]
    pairs = []
    for k in range(1, dim):
        face, sub = [], []
        for i, signs in enumerate(faces[k]):
            for axis in range(dim):
                if signs[axis]:
                    face.append(i)
                    sub.append(number[k - 1][signs[:axis] + (0,) + signs[axis + 1 :]])
        pairs.append((np.array(face), np.array(sub)))
    rays = np.array([next((axis, s) for axis, s in enumerate(signs) if s) for signs in faces[0]])
    edges = pairs[0][1].reshape(-1, 2)
    return Fan(tuple(len(level) for level in faces), edges, tuple(pairs[1:])), rays


def split(fan: Fan, sign: Array) -> tuple[Fan, Array]:
    """Cut every cone where a function, linear on each, changes sign.

    `sign`: (rays,) in {-1, 0, 1}. Returns the finer fan and, for every new ray (appended after the old ones), its
    parents (negative ray, positive ray). Raises CheckError when the signs belong to no linear function.
    """
    tail, head = sign[fan.edges[:, 0]], sign[fan.edges[:, 1]]
    up, down = (tail > 0) | (head > 0), (tail < 0) | (head < 0)
    crossing = np.flatnonzero(up & down)
    crossed = fan.edges[crossing]
    parents = np.where(tail[crossing, None] < 0, crossed, crossed[:, ::-1])
    rays = fan.counts[0] + np.arange(len(crossing))
    edges = fan.edges.copy()
    edges[crossing] = np.stack([parents[:, 0], rays], axis=1)
    edges = np.concatenate([edges, np.stack([rays, parents[:, 1]], axis=1)])

    halves, cuts = _table(len(up), crossing, len(up)), _table(len(up), crossing, len(sign))
    below = _Level(up, down, halves, cuts)
    flat = (sign == 0) if (sign == 0).any() else None  # faces two levels lower that lie in the cut
    counts = [fan.counts[0] + len(crossing), fan.counts[1] + len(crossing)]
    rows: list[tuple[Array, Array]] = []
    for level in range(2, fan.top + 1):
        face, sub = fan.rows[level - 2]
        total = fan.counts[level]
        positive, negative = np.zeros(total, bool), np.zeros(total, bool)
        positive[face[below.positive[sub]]] = True
        negative[face[below.negative[sub]]] = True
        split_ids = np.flatnonzero(positive & negative)
        cuts = counts[level - 1] + np.arange(len(split_ids))
        here = _Level(positive, negative, _table(total, split_ids, total), _table(total, split_ids, counts[level - 1]))

        touched = np.flatnonzero(here.upper[face] >= 0)
        f, s = face[touched], sub[touched]
        both = below.upper[s] >= 0
        border = [np.stack([here.cut[f[both]], below.cut[s[both]]], axis=1)]
        if flat is not None:
            border.append(_flat_border(fan, level, flat, here, f[~both], s[~both]))
        ring = np.concatenate(border)
        upward = below.positive[s] & ~both
        face = face.copy()
        face[touched[upward]] = here.upper[f[upward]]
        rows.append(
            (
                np.concatenate([face, here.upper[f[both]], split_ids, here.upper[split_ids]]),
                np.concatenate([sub, below.upper[s[both]], cuts, cuts]),
            )
        )
        if level == 2:
            edges = np.concatenate([edges, _new_edges(ring, cuts)])
        else:
            old_face, old_sub = rows[-2]
            rows[-2] = (np.concatenate([old_face, ring[:, 0]]), np.concatenate([old_sub, ring[:, 1]]))
        counts[level - 1] += len(cuts)
        counts.append(total + len(split_ids))
        flat = ~(below.positive | below.negative) if flat is not None else None
        below = here
    return Fan(tuple(counts), edges, tuple(rows)), parents


@dataclass(frozen=True, eq=False)
class _Level:
    """Of each face: has it positive, negative rays; the number of its positive half and of its cut, -1 if unsplit."""

    positive: Array
    negative: Array
    upper: Array
    cut: Array


def _table(size: int, ids: Array, start: int) -> Array:
    table = np.full(size, -1)
    table[ids] = start + np.arange(len(ids))
    return table


def _flat_border(fan: Fan, level: int, flat: Array, here: _Level, face: Array, sub: Array) -> Array:
    """Pairs (cut of face, flat face two levels lower) for the unsplit subfaces that touch the cut."""
    middle, low = fan.pairs(level - 1)
    keep = flat[low]
    left, right = join(sub, middle[keep])
    ring = np.stack([here.cut[face[left]], low[keep][right]], axis=1)
    return np.unique(ring, axis=0)  # each is met from the two subfaces that share it


def _new_edges(ring: Array, cuts: Array) -> Array:
    order = np.argsort(ring[:, 0], kind="stable")
    if len(ring) != 2 * len(cuts) or not (ring[order, 0] == np.repeat(cuts, 2)).all():
        raise CheckError(MEETING)
    return ring[order, 1].reshape(-1, 2)


def join(a: Array, b: Array) -> tuple[Array, Array]:
    """All index pairs (i, j) with a[i] == b[j]."""
    order = np.argsort(b, kind="stable")
    low, high = np.searchsorted(b[order], a, "left"), np.searchsorted(b[order], a, "right")
    number = high - low
    i = np.repeat(np.arange(len(a)), number)
    offset = np.arange(len(i)) - np.repeat(np.cumsum(number) - number, number)
    return i, order[np.repeat(low, number) + offset]
