"""The combinatorial type of a polytope, found from its vertices on facets, with a model to compare its shape with.

Products, direct sums and pyramids are taken apart first; what is left is looked up in the catalogue by the canonical
form of its face lattice, or by that of its polar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from regauge.polytope import words
from regauge.polytope.catalogue import candidates, ring
from regauge.polytope.flags import Flags, dual, flags
from regauge.polytope.hull import Polytope
from regauge.polytope.incidence import apex, lattice, product_parts
from regauge.polytope.net import Array


@dataclass(frozen=True, eq=False)
class Typed:
    """title, polar: names of the type and of its polar. vertices: (V, d) the model's vertices in the body's order;
    normals: (F, d) its facets normals . x = 1 in the body's order. sides: of a polygon; 2: a segment; 0: neither.
    metric: whether the model's shape means anything; its automorphisms are then isometries."""

    title: str
    polar: str
    vertices: Array
    normals: Array
    sides: int = 0
    metric: bool = True

    def flipped(self) -> Typed:
        """The polar polytope."""
        return Typed(self.polar, self.title, self.normals, self.vertices, self.sides, self.metric)


@dataclass(frozen=True, eq=False)
class _Lattice:
    vertices: Array
    faces: tuple[Array, ...]


def identify(on: Array, dim: int, shape: Flags | None = None) -> Typed | None:
    """The type of the polytope of dimension `dim` with incidence `on` (vertices, facets), or None if unknown.

    shape: its flags, where they are at hand. Raises InputError when there are too many.
    """
    if dim == 1:
        ends = np.where(on[:, :1], 0.5, -0.5)  # facet 0 is the end at 1/2
        return Typed("segment", "segment", ends, np.array([[2.0], [-2.0]]), 2)
    if dim == 2:
        return _polygon(on)
    if len(on) == dim + 1:
        return _simplex(on, dim)
    if parts := product_parts(on):
        return _product(parts)
    if parts := product_parts(on.T):
        found = _product(parts)
        return found.flipped() if found else None
    if tip := apex(on):
        return _pyramid(on, dim, *tip)

    shape = lattice_flags(on, dim) if shape is None else shape
    return in_catalogue(shape)


def in_catalogue(shape: Flags) -> Typed | None:
    """The type by the canonical form of its face lattice, or of its polar's."""
    return _catalogued(shape, False) or _catalogued(dual(shape), True)


def lattice_flags(on: Array, dim: int) -> Flags:
    """The flags of the polytope with this incidence."""
    return flags(_Lattice(on, lattice(on, dim)[1]))


def _dimension(on: Array) -> int:
    """By going down: a facet's facets are its largest intersections with the others."""
    dim = 0
    while on.shape[1] > 1 and len(on) > 1:
        facet = on[:, 0]
        rest = on[facet]
        rest = rest[:, ~rest.all(axis=0)]
        size = rest.sum(axis=0)
        keep = size > 0
        rest = np.unique(rest[:, keep], axis=1)
        inside = rest.T.astype(np.int64) @ rest.astype(np.int64)
        largest = ((inside == rest.sum(axis=0)[:, None]).sum(axis=1) == 1) if rest.shape[1] else np.zeros(0, bool)
        on, dim = rest[:, largest], dim + 1
    return dim


def _polygon(on: Array) -> Typed:
    n, order, edge = len(on), [0], int(np.flatnonzero(on[0])[0])
    edges = [edge]
    while len(order) < n:
        here = int(next(v for v in np.flatnonzero(on[:, edge]) if v != order[-1]))
        edge = int(next(e for e in np.flatnonzero(on[here]) if e != edge))
        order.append(here)
        edges.append(edge)
    corners, normals = np.empty((n, 2)), np.empty((n, 2))
    half = math.pi / n
    corners[order] = ring(n) / (2 * math.sin(half))  # edges of length 1
    normals[edges] = ring(n, 0.5) * 2 * math.tan(half)
    title = words.polygon(n)
    return Typed(title, title, corners, normals, n)


def _simplex(on: Array, dim: int) -> Typed:
    title = words.SIMPLICES.get(dim, f"{dim}-simplex")
    frame = np.linalg.svd(np.ones((1, dim + 1)))[2][1:].T  # the corners of R^(dim + 1) in the plane of sum 1
    normals = -(dim + 1) * frame[[int(np.flatnonzero(~column)[0]) for column in on.T]]
    return Typed(title, title, frame, normals)


def _product(parts: Sequence[tuple[Array, Array, Array]]) -> Typed | None:
    factors = []
    for _, own, _ in parts:
        factor = identify(own, _dimension(own))
        if factor is None:
            return None
        factors.append(_unit(factor))
    total = sum(factor.vertices.shape[1] for factor in factors)
    vertices = np.concatenate([f.vertices[number] for f, (*_, number) in zip(factors, parts, strict=True)], axis=1)
    normals, start = np.zeros((sum(len(mine) for mine, *_ in parts), total)), 0
    for factor, (mine, *_) in zip(factors, parts, strict=True):
        normals[mine, start : start + factor.vertices.shape[1]] = factor.normals
        start += factor.vertices.shape[1]
    sides = [factor.sides for factor in factors]
    title = words.product([factor.title for factor in factors], sides)
    polar = words.direct_sum([factor.polar for factor in factors], sides)
    return Typed(title, polar, vertices, normals, 0, all(factor.metric for factor in factors))


def _unit(found: Typed) -> Typed:
    """Scaled so that the nearest vertices are one apart."""
    gram = found.vertices @ found.vertices.T
    square = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    near = math.sqrt(square[~np.eye(len(square), dtype=bool)].min())
    return Typed(found.title, found.polar, found.vertices / near, found.normals * near, found.sides, found.metric)


def _pyramid(on: Array, dim: int, tip: int, base: int) -> Typed | None:
    """All edges equal where the base is not too wide for it."""
    under = np.flatnonzero(on[:, base])
    sides = np.delete(np.arange(on.shape[1]), base)
    found = identify(on[np.ix_(under, sides)], dim - 1)
    if found is None:
        return None
    found = _unit(found)
    radius = float((found.vertices**2).sum(axis=1).max())
    vertices = np.zeros((len(on), dim))
    vertices[under, :-1], vertices[tip, -1] = found.vertices, math.sqrt(1 - radius if radius < 1 - 1e-9 else radius)
    vertices -= vertices.mean(axis=0)
    normals = np.stack([np.linalg.lstsq(vertices[column], np.ones(column.sum()))[0] for column in on.T])
    title, polar = words.pyramid(found.title, found.sides), words.pyramid(found.polar, found.sides)
    return Typed(title, polar, vertices, normals, 0, found.metric)


def _catalogued(shape: Flags, polar: bool) -> Typed | None:
    f_vector = tuple(int(c) + 1 for c in shape.flags.max(axis=0))
    models = [made.title for made in candidates(f_vector)]
    if not models:
        return None
    form, order = shape.canonical
    for title in models:
        model, there, metric = _model(f_vector, title)
        if there.canonical[0] == form:
            here, mine = shape.flags[order], there.flags[there.canonical[1]]
            vertices, normals = np.empty_like(model.vertices), np.empty_like(model.normals)
            vertices[here[:, 0]], normals[here[:, -1]] = model.vertices[mine[:, 0]], model.normals[mine[:, -1]]
            found = Typed(title, words.polar(title), vertices, normals, 0, metric)
            return found.flipped() if polar else found
    return None


@lru_cache(maxsize=256)
def _model(f_vector: tuple[int, ...], title: str) -> tuple[Polytope, Flags, bool]:
    made = next(made for made in candidates(f_vector) if made.title == title)
    model = made.build()
    return model, flags(model), made.metric
