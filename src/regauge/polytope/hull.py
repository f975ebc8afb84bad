"""Convex hulls with their whole face lattice, n-gons kept: models to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import ConvexHull

from regauge.polytope.net import Array


@dataclass(frozen=True, eq=False)
class Polytope:
    """A convex polytope: vertices (V, d), outer facet equations normals . x <= 1 (origin inside), its f-vector, and
    faces[k - 1]: pairs (face, subface) of dimensions k and k - 1."""

    vertices: Array
    normals: Array
    f_vector: tuple[int, ...]
    faces: tuple[Array, ...]


def hull(points: ArrayLike, tolerance: float = 1e-7) -> Polytope:
    """The convex hull of points (n, d) around their mean; facets closer than `tolerance` to one plane are one."""
    cloud: Array = np.asarray(points, dtype=float)
    cloud = cloud - cloud.mean(axis=0)
    found = ConvexHull(cloud)
    planes = found.equations[:, :-1] / -found.equations[:, -1:]
    size = np.abs(cloud).max()
    planes = np.unique(np.round(planes * size, 6), axis=0, return_index=True)[1]
    normals = found.equations[planes, :-1] / -found.equations[planes, -1:]
    vertices = cloud[found.vertices]
    on = np.abs(vertices @ normals.T - 1) < tolerance
    levels = [[frozenset(np.flatnonzero(column).tolist()) for column in on.T]]
    pairs: list[Array] = []
    for _ in range(cloud.shape[1] - 1):
        number: dict[frozenset[int], int] = {}
        rows = []
        for i, face in enumerate(levels[-1]):
            shared = {face & other for other in levels[0]} - {face, frozenset()}
            biggest = [s for s in shared if not any(s < t for t in shared)]
            rows += [(i, number.setdefault(s, len(number))) for s in biggest]
        levels.append(list(number))
        pairs.append(np.array(rows))
    order = np.array([next(iter(s)) for s in levels[-1]])
    f_vector = tuple(len(level) for level in reversed(levels))
    return Polytope(vertices[order], normals, f_vector, tuple(reversed(pairs)))
