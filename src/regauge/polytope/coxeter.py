"""Reflection groups: their orders, and the uniform polytopes that are orbits of one point (Wythoff's construction).

A point off the ringed mirrors and on the others is moved by the whole group; its orbit spans a polytope whose faces
are the orbits of sub-diagrams in which every connected piece has a ring, so the f-vector is known before a single
point is (Coxeter, Regular Polytopes, ch. 11; Champagne, Kjiri, Patera and Sharp, Can. J. Phys. 73, 566 (1995)).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from regauge.polytope.net import Array

# n -> order of the group E_n
EXCEPTIONAL = {6: 51840, 7: 2903040, 8: 696729600}


@dataclass(frozen=True)
class Diagram:
    """`bonds`: (i, j, m), mirrors i and j at the angle pi / m, m >= 3; all other pairs are orthogonal."""

    size: int
    bonds: tuple[tuple[int, int, int], ...]

    @property
    def order(self) -> int:
        return group_order(self, (1 << self.size) - 1)


def linear(*labels: int) -> Diagram:
    """Mirrors in a row: linear(4, 3) is the group of the cube."""
    return Diagram(len(labels) + 1, tuple((i, i + 1, m) for i, m in enumerate(labels)))


def forked(size: int, at: int) -> Diagram:
    """A row of size - 1 mirrors and a last one on mirror `at`: D_n for at = n - 3, E_n for at = 2."""
    return Diagram(size, (*((i, i + 1, 3) for i in range(size - 2)), (at, size - 1, 3)))


@lru_cache(maxsize=65536)
def group_order(diagram: Diagram, nodes: int) -> int:
    """The order of the group that the mirrors in the bit set `nodes` generate (a finite one)."""
    total = 1
    for piece in pieces(diagram, nodes):
        total *= _piece_order(diagram, piece)
    return total


def pieces(diagram: Diagram, nodes: int) -> list[int]:
    """The connected pieces of a bit set of mirrors."""
    near, found = _near(diagram), []
    while nodes:
        piece, edge = 0, nodes & -nodes
        while edge:
            piece |= edge
            reach = 0
            for i in range(diagram.size):
                if edge >> i & 1:
                    reach |= near[i]
            edge = reach & nodes & ~piece
        found.append(piece)
        nodes &= ~piece
    return found


@lru_cache(maxsize=256)
def _near(diagram: Diagram) -> tuple[int, ...]:
    near = [0] * diagram.size
    for i, j, _ in diagram.bonds:
        near[i] |= 1 << j
        near[j] |= 1 << i
    return tuple(near)


def _piece_order(diagram: Diagram, piece: int) -> int:
    """By the classification of finite reflection groups."""
    n = piece.bit_count()
    labels = [m for i, j, m in diagram.bonds if piece >> i & 1 and piece >> j & 1]
    most = max(labels, default=3)
    degree = [(near & piece).bit_count() for near in _near(diagram)]
    if max(degree[i] for i in range(diagram.size) if piece >> i & 1) > 2:  # D_n or E_n, by what is left of the fork
        fork = next(i for i in range(diagram.size) if piece >> i & 1 and degree[i] > 2)
        legs = sorted(leg.bit_count() for leg in pieces(diagram, piece & ~(1 << fork)))
        return 2 ** (n - 1) * math.factorial(n) if legs[1] == 1 else EXCEPTIONAL[n]
    if most == 3:
        return math.factorial(n + 1)
    if n == 2:
        return 2 * most
    if most == 5:
        return {3: 120, 4: 14400}[n]
    ends = [i for i in range(diagram.size) if piece >> i & 1 and degree[i] == 1]
    at_end = any(m == 4 and (i in ends or j in ends) for i, j, m in diagram.bonds if piece >> i & 1 and piece >> j & 1)
    return 2**n * math.factorial(n) if at_end else 1152


def bits(rings: str) -> int:
    """Ringed mirrors as a bit set: "100" rings mirror 0."""
    return sum(1 << i for i, ring in enumerate(rings) if ring == "1")


def orbit_size(diagram: Diagram, rings: str) -> int:
    """Vertices: the group's order over that of the mirrors that the point lies on."""
    return diagram.order // group_order(diagram, ((1 << diagram.size) - 1) & ~bits(rings))


def f_vector(diagram: Diagram, rings: str) -> tuple[int, ...]:
    """The numbers of faces of dimension 0, ..., n - 1, each face by its stabiliser."""
    ringed, near, everything = bits(rings), _near(diagram), (1 << diagram.size) - 1
    counts = [0] * diagram.size
    for nodes in range(everything):
        if all(piece & ringed for piece in pieces(diagram, nodes)):
            touched = nodes
            for i in range(diagram.size):
                touched |= near[i] if nodes >> i & 1 else 0
            still = everything & ~touched & ~ringed
            counts[nodes.bit_count()] += diagram.order // (group_order(diagram, nodes) * group_order(diagram, still))
    return tuple(counts)


def mirrors(diagram: Diagram) -> Array:
    """Unit normals of the mirrors, as rows."""
    gram = np.eye(diagram.size)
    for i, j, m in diagram.bonds:
        gram[i, j] = gram[j, i] = -math.cos(math.pi / m)
    return np.linalg.cholesky(gram)


def orbit_points(diagram: Diagram, rings: str) -> Array:
    """The vertices, (orbit_size, n); all edges are equal."""
    normals = mirrors(diagram)
    seed = np.linalg.solve(normals, np.array([float(ring) for ring in rings]))
    return orbit(seed, [np.eye(len(n)) - 2 * np.outer(n, n) for n in normals])


def orbit(seed: Array, moves: Sequence[Array]) -> Array:
    """All images of a point under the group that `moves` generate, (points, n)."""
    stack, found, frontier = np.stack(moves), seed[None], seed[None]
    seen = {_key(seed)}
    while len(frontier):
        fresh = []
        for point in np.einsum("mij,pj->pmi", stack, frontier).reshape(-1, len(seed)):
            if (key := _key(point)) not in seen:
                seen.add(key)
                fresh.append(point)
        frontier = np.array(fresh).reshape(-1, len(seed))
        found = np.concatenate([found, frontier])
    return found


def _key(point: Array) -> bytes:
    return bytes((np.round(point, 6) + 0.0).tobytes())


def ring_strings(size: int) -> list[str]:
    """Every way to ring at least one of `size` mirrors; the first mirrors first."""
    return ["".join(s) for s in itertools.product("10", repeat=size) if "1" in s]
