"""Convex hulls with their whole face lattice, n-gons kept: models to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import ConvexHull, QhullError

from regauge.errors import InputError
from regauge.polytope.incidence import lattice
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
    """The convex hull of points (n, d) around their mean; facets closer than `tolerance` to one plane are one.

    Raises InputError when the points do not span their space.
    """
    cloud: Array = np.asarray(points, dtype=float)
    cloud = cloud - cloud.mean(axis=0)
    try:
        found = ConvexHull(cloud)
    except QhullError as error:
        raise InputError(f"{len(cloud)} points in {cloud.shape[-1]} dimensions have no body as hull.") from error
    planes = found.equations[:, :-1] / -found.equations[:, -1:]
    size = np.abs(cloud).max()
    normals = planes[np.unique(np.round(planes * size, 6), axis=0, return_index=True)[1]]
    corners = found.vertices[_extreme(cloud[found.vertices], normals, tolerance)]
    on = np.abs(cloud[corners] @ normals.T - 1) < tolerance
    f_vector, faces = lattice(on, cloud.shape[1])
    return Polytope(cloud[corners], normals, f_vector, faces)


def _extreme(points: Array, normals: Array, tolerance: float) -> Array:
    """Points that are corners: their facets meet in nothing more (qhull keeps points inside merged facets)."""
    on = np.abs(points @ normals.T - 1) < tolerance
    return np.array([np.linalg.matrix_rank(normals[row], tol=1e-6) == points.shape[1] for row in on])
