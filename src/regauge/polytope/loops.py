"""The boundary curves of the facets of a polyhedron in R^3, all facets at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regauge.errors import CheckError
from regauge.polytope.arrangement import components
from regauge.polytope.net import Array


@dataclass(frozen=True)
class Loops:
    """facets[i]: closed curves of vertex numbers; the outer one first, counterclockwise seen from outside."""

    facets: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def holes(self) -> int:
        return sum(len(curves) - 1 for curves in self.facets)


def loops(facet_edges: Array, edges: Array, vertices: Array, normals: Array) -> Loops:
    """Order the edges of every facet. facet_edges: pairs (facet, edge); edges: (E, 2); normals point outwards.

    Raises CheckError when the edges of a facet do not close.
    """
    facet, edge = facet_edges[:, 0], facet_edges[:, 1]
    vertex = edges[edge].reshape(-1)  # entry e: pair e // 2 at one of its ends; its other end is e ^ 1
    key = np.repeat(facet, 2) * np.int64(len(vertices)) + vertex
    order = np.argsort(key, kind="stable")
    if len(order) % 2 or (key[order[::2]] != key[order[1::2]]).any():
        raise CheckError("the edges of a facet do not close; change `tolerance`, or extract with exact=True.")
    partner = np.empty(len(order), dtype=int)
    partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    after = partner ^ 1  # go on along the facet's other edge at this vertex, to its far end
    number, label = components(len(order), np.arange(len(order)), after)

    here, there = vertices[vertex], vertices[vertex[after]]
    area = np.bincount(label, (np.cross(here, there) * normals[np.repeat(facet, 2)]).sum(1), number)
    first = np.unique(label, return_index=True)[1]
    owner = np.repeat(facet, 2)[first]
    rank = np.lexsort((-area, owner))  # of each facet the largest curve first; every curve also occurs backwards
    walks = _walks(first, after, vertex, np.bincount(label, minlength=number))
    curves: list[list[tuple[int, ...]]] = [[] for _ in range(len(normals))]
    taken: list[set[frozenset[int]]] = [set() for _ in range(len(normals))]
    for c in rank.tolist():
        inside = bool(taken[owner[c]])
        walk = walks[c]
        if not inside:
            curves[owner[c]].append(walk)
            taken[owner[c]].add(frozenset(walk))
        elif frozenset(walk) not in taken[owner[c]] and area[c] < 0:
            curves[owner[c]].append(walk)
            taken[owner[c]].add(frozenset(walk))
    return Loops(tuple(tuple(c) for c in curves))


def _walks(first: Array, after: Array, vertex: Array, lengths: Array) -> list[tuple[int, ...]]:
    longest = int(lengths.max(initial=0))
    order = np.argsort(-lengths, kind="stable")
    alive = np.searchsorted(-lengths[order], -np.arange(longest), "left")
    grid = np.empty((len(first), longest), dtype=vertex.dtype)
    at = first[order]
    for step in range(longest):
        n = alive[step]
        grid[:n, step] = vertex[at[:n]]
        at = after[at[:n]]
    walks: list[tuple[int, ...]] = [()] * len(first)
    for row, c, length in zip(grid.tolist(), order.tolist(), lengths[order].tolist(), strict=True):
        walks[c] = tuple(row[:length])
    return walks
