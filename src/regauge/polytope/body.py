"""The star body {f <= 1} of a network as an exact complex."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from torch import nn

from regauge.errors import InputError
from regauge.polytope.fan import Fan, join
from regauge.polytope.loops import Loops, loops
from regauge.polytope.module import read
from regauge.polytope.net import Array, Network, checked, rational
from regauge.polytope.region import Regions, regions
from regauge.polytope.strata import strata, walls


@dataclass(frozen=True, eq=False)
class StarBody:
    """{x : f(x) <= 1}, where f is the piecewise-linear `network`; convex or not, bounded or not.

    vertices: (V, d); in the certified mode an object array of Fractions, as are normals.
    normals: (F, d); facet i lies in {x : normals[i] . x = 1}. Facets are the connected pieces, n-gons kept.
    f_vector: the number of faces of dimension 0, ..., d - 1 (a facet with a hole counts as one face).
    faces: faces[k - 1] holds the pairs (face, subface) of faces of dimension k and k - 1.
    certified: every decision was made in rational arithmetic.
    regions: the linear regions of the network, as a fan.
    true_faces: true_faces[k][i] is the face of dimension k that face i of the fan is part of, -1 if none.
    """

    network: Network
    vertices: Array
    normals: Array
    f_vector: tuple[int, ...]
    faces: tuple[Array, ...]
    bounded: bool
    convex: bool
    certified: bool
    regions: Regions
    true_faces: tuple[Array, ...]

    @property
    def facet_of_region(self) -> Array:
        """For every linear region the facet that it belongs to, -1 where f <= 0."""
        return self.true_faces[-1]

    @property
    def dim(self) -> int:
        return self.network.dim

    @cached_property
    def facets(self) -> tuple[tuple[int, ...], ...]:
        """The vertices of every facet; for d = 3 in order, counterclockwise seen from outside (outer boundary)."""
        if self.dim == 3 and self.bounded:
            return tuple(facet[0] for facet in self.loops.facets)
        member = self.facet_vertices
        cuts = np.searchsorted(member[:, 0], np.arange(1, len(self.normals)))
        return tuple(tuple(part.tolist()) for part in np.split(member[:, 1], cuts))

    @cached_property
    def facet_vertices(self) -> Array:
        """Pairs (facet, vertex), sorted."""
        pairs = self.faces[-1]
        for lower in reversed(self.faces[:-1]):
            i, j = join(pairs[:, 1], lower[:, 0])
            pairs = np.unique(np.stack([pairs[i, 0], lower[j, 1]], axis=1), axis=0)
        return pairs

    @cached_property
    def loops(self) -> Loops:
        """The boundary curves of every facet of a bounded body in R^3; more than one where a facet has holes."""
        self._need_bounded("the boundary curves of its facets")
        if self.dim != 3:
            raise InputError(f"facets are bounded by curves only for d = 3; this body has d = {self.dim}.")
        return loops(self.faces[1], self.edges, self.vertices.astype(float), self.normals.astype(float))

    @property
    def edges(self) -> Array:
        """(E, 2) vertices of the edges of a bounded body."""
        self._need_bounded("edges with two ends")
        return self.faces[0][:, 1].reshape(-1, 2)

    @cached_property
    def volume(self) -> float | Fraction:
        """The d-dimensional volume (area for d = 2); exact in the certified mode, infinite when unbounded."""
        if not self.bounded:
            return math.inf
        cones, _ = simplices(self.regions.fan)
        corners, values, d = self.regions.rays[cones], self.regions.values[cones], self.dim
        if not self.certified:
            tips = corners / values[..., None] * float(self.network.scale)
            return float(np.abs(np.linalg.det(tips)).sum() / math.factorial(d))
        total = sum(
            Fraction(abs(_determinant(c)), math.prod(int(v) for v in f)) for c, f in zip(corners, values, strict=True)
        )
        return total * self.network.scale**d / math.factorial(d)

    def _need_bounded(self, what: str) -> None:
        if not self.bounded:
            raise InputError(f"the body is unbounded, so it has no {what}; see .bounded, and .f_vector for its faces.")

    def __repr__(self) -> str:
        kind = ("convex " if self.convex else "star-shaped, not convex, ") + ("" if self.bounded else "unbounded ")
        proof = ", certified" if self.certified else ""
        return f"StarBody(d={self.dim}, {kind.strip(', ').strip()}, f-vector {self.f_vector}{proof})"


def extract(
    net: Network | nn.Module, *, exact: bool = False, denominator: int | None = None, tolerance: float = 1e-9
) -> StarBody:
    """The star body {f <= 1} of a bias-free piecewise-linear network, as an exact complex.

    net: a network, or a module that `read` understands.

    exact: certified mode; weights are taken as the fractions that the floats are (denominators bounded by
        `denominator` when given) and every sign and equality is decided in integers.
    tolerance: in the floating mode, relative size below which a sign is 0 and two gradients are equal.

    Raises InputError for d < 2 or d > 10, and CheckError when rounding gave contradictory signs.
    """
    net = checked(read(net) if isinstance(net, nn.Module) else net)
    net = rational(net, denominator) if exact else net
    if tolerance < 0:
        raise InputError(f"tolerance {tolerance} is negative; give 0 or more.")
    found = regions(net, 0.0 if net.exact else tolerance)
    fan, rays, values = found.fan, found.rays, found.values
    inner = inner_points(fan, rays)
    gradient = _gradients(net, inner)
    a, b = walls(fan).T
    jump = gradient[a] - gradient[b]
    if net.exact:
        bends, positive = (jump != 0).any(axis=1).astype(bool), (values > 0).astype(bool)
    else:
        size = np.abs(gradient).max(initial=0.0)
        bends, positive = np.abs(jump).max(axis=1) > tolerance * size, values > tolerance * size
    pieces = strata(fan, bends, positive)
    side = (jump * (inner[a] - inner[b])).sum(axis=1)
    convex = bool((side[bends & pieces.visible[-2]] > 0).all())

    tip = np.flatnonzero(pieces.labels[0] >= 0)
    first = np.unique(pieces.labels[-1], return_index=True)
    facet = first[1][first[0] >= 0]
    if net.exact:
        over = np.array([Fraction(net.scale) / int(v) for v in values[tip]], dtype=object)
        vertices, normals = rays[tip] * over[:, None], gradient[facet] / Fraction(net.scale)
    else:
        vertices = rays[tip] / values[tip, None] * float(net.scale)
        normals = gradient[facet] / float(net.scale)
    return StarBody(
        net,
        vertices,
        normals,
        pieces.counts,
        pieces.pairs,
        bool(positive.all()),
        convex,
        net.exact,
        found,
        pieces.labels,
    )


def inner_points(fan: Fan, rays: Array) -> Array:
    """A point inside every full cone: the sum of its rays."""
    member = fan.rays_of(fan.top)
    if rays.dtype != object:
        return np.asarray(member @ rays)
    cuts = member.indptr[1:-1]
    return np.array([part.sum(axis=0) for part in np.split(rays[member.indices], cuts)], dtype=object)


def _gradients(net: Network, points: Array) -> Array:
    block = max(1, 2**18 // max(len(layer.weight) for layer in net.layers))
    return np.concatenate([net.gradient(points[i : i + block]) for i in range(0, len(points), block)])


def simplices(fan: Fan, level: int | None = None) -> tuple[Array, Array]:
    """Every face of a level cut into simplicial cones without new rays: (n, level + 1) rays, and (n,) their face.

    A face is coned from its lowest ray over the subfaces that miss it, so neighbours agree on what they share.
    """
    level = fan.top if level is None else level
    lowest = owner = np.arange(fan.counts[0])
    cones = lowest[:, None]
    for k in range(1, level + 1):
        face, sub = fan.pairs(k)
        least = np.full(fan.counts[k], fan.counts[0])
        np.minimum.at(least, face, lowest[sub])
        away = lowest[sub] != least[face]
        face, sub = face[away], sub[away]
        i, j = join(sub, owner)
        cones = np.concatenate([cones[j], least[face[i]][:, None]], axis=1)
        owner, lowest = face[i], least
    return cones, owner


def _determinant(matrix: Array) -> int:
    """Of integers, without fractions (Bareiss)."""
    rows, sign, before = [list(map(int, row)) for row in matrix], 1, 1
    for k in range(len(rows) - 1):
        pivot = next((r for r in range(k, len(rows)) if rows[r][k]), None)
        if pivot is None:
            return 0
        if pivot != k:
            rows[k], rows[pivot], sign = rows[pivot], rows[k], -sign
        for r in range(k + 1, len(rows)):
            rows[r] = [(rows[r][c] * rows[k][k] - rows[r][k] * rows[k][c]) // before for c in range(len(rows))]
        before = rows[k][k]
    return sign * rows[-1][-1]
