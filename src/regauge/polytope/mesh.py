"""Bodies as meshes: polygons where a format keeps them, triangles where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regauge.errors import InputError
from regauge.polytope.body import StarBody, simplices
from regauge.polytope.net import Array


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface in R^3. polygons: corners counterclockwise from outside; facet[i]: the facet polygon i is part of;
    triangles (T, 3) cut the same surface into the same or other corners of `corners`, triangle_facet its facets."""

    points: Array
    polygons: tuple[tuple[int, ...], ...]
    facet: Array
    corners: Array
    triangles: Array
    triangle_facet: Array
    edges: Array


def mesh(body: StarBody) -> Mesh:
    """The surface of a bounded body, d = 2 (a flat polygon at z = 0) or d = 3.

    Facets stay whole n-gons; only a facet with holes is cut, into its convex linear regions.
    Raises InputError for an unbounded body, or d > 3 (take a section of the network).
    """
    if body.dim > 3:
        raise InputError(f"a mesh lives in 2 or 3 dimensions, the body in {body.dim}; extract a section first.")
    if not body.bounded:
        raise InputError("the body is unbounded, so it has no closed surface to draw.")
    return _flat(body) if body.dim == 2 else _solid(body)


def _solid(body: StarBody) -> Mesh:
    corners = tips(body)
    cones, region = simplices(body.regions.fan)
    inward = np.linalg.det(corners[cones]) < 0
    cones[inward] = cones[inward][:, ::-1]
    label = body.facet_of_region[region]
    whole = [i for i, curves in enumerate(body.loops.facets) if len(curves) == 1]
    polygons = [body.loops.facets[i][0] for i in whole]
    points, facet = body.vertices.astype(float), list(whole)
    if len(whole) < len(body.normals):  # facets with holes: their pieces, on points of their own
        pieces = ~np.isin(label, whole)
        polygons += [tuple(int(v) + len(points) for v in cone) for cone in cones[pieces]]
        facet += label[pieces].tolist()
        points = np.concatenate([points, corners])
    return Mesh(points, tuple(polygons), np.array(facet), corners, cones, label, body.edges)


def tips(body: StarBody) -> Array:
    """Where the rays of the fine fan of a bounded body meet its surface, (rays, d)."""
    rays, values = body.regions.rays, body.regions.values
    if body.certified:
        scaled = [
            [float(body.network.scale * int(v) / int(f)) for v in ray] for ray, f in zip(rays, values, strict=True)
        ]
        return np.array(scaled)
    return rays / values[:, None] * float(body.network.scale)


def _flat(body: StarBody) -> Mesh:
    points = np.column_stack([body.vertices.astype(float), np.zeros(len(body.vertices))])
    order = np.argsort(np.arctan2(points[:, 1], points[:, 0]))
    ring = tuple(int(v) for v in order)
    corners = np.concatenate([points, np.zeros((1, 3))])
    spokes = np.stack([np.full(len(ring), len(points)), order, np.roll(order, -1)], axis=1)
    sides = {frozenset(edge): i for i, edge in enumerate(body.edges.tolist())}
    facet = np.array([sides[frozenset(spoke[1:])] for spoke in spokes.tolist()])
    return Mesh(points, (ring,), np.zeros(1, dtype=int), corners, spokes, facet, body.edges)


def smooth_mesh(gauge: Callable[[Array], Array], level: int = 4) -> Mesh:
    """The surface {gauge = 1} of a positive homogeneous function on R^3, over a subdivided icosahedron."""
    points, triangles = icosphere(level)
    value = np.asarray(gauge(points), dtype=float)
    if not (value > 0).all():
        raise InputError("the gauge is not positive in every direction, so the body is unbounded.")
    points = points / value[:, None]
    edges = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    one = np.zeros(len(triangles), dtype=int)  # no flat faces, so one facet
    polygons = tuple(tuple(t) for t in triangles.tolist())
    return Mesh(points, polygons, one, points, triangles, one, edges)


def icosphere(level: int) -> tuple[Array, Array]:
    """An icosahedron whose triangles are split in four `level` times: unit points and triangles, outwards."""
    phi = (1 + 5**0.5) / 2
    signs = [(s, t * phi) for s in (1, -1) for t in (1, -1)]
    points = np.array([np.roll([0, s, t], k) for k in range(3) for s, t in signs])
    gap = np.linalg.norm(points[:, None] - points[None], axis=2)
    near = gap < 2.1
    triangles = np.array(
        [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]]
    )
    flip = np.linalg.det(points[triangles]) < 0
    triangles[flip] = triangles[flip][:, ::-1]
    for _ in range(level):
        sides = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        unique, number = np.unique(sides, axis=0, return_inverse=True)
        middle = len(points) + number.reshape(-1, 3)
        points = np.concatenate([points, points[unique].mean(axis=1)])
        a, b, c = triangles.T
        ab, bc, ca = middle.T
        triangles = np.stack([a, ab, ca, b, bc, ab, c, ca, bc, ab, bc, ca], axis=1).reshape(-1, 3)
    return points / np.linalg.norm(points, axis=1, keepdims=True), triangles
