"""Great circles on the sphere: the fan of all planes at once, linear in its size up to sorting (d = 3).

Every circle meets every other in two opposite points; sorting them along each circle gives the edges, and turning
left at every point gives the regions.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from regauge.polytope.fan import Fan
from regauge.polytope.net import Array


def distinct(normals: Array, tolerance: float) -> Array:
    """One unit normal for each plane: those that agree up to sign and `tolerance` count once."""
    n = len(normals)
    if n < 2:
        return normals
    pairs = cKDTree(np.concatenate([normals, -normals])).query_pairs(tolerance, output_type="ndarray") % n
    _, label = components(n, pairs[:, 0], pairs[:, 1])
    return normals[np.unique(label, return_index=True)[1]]


def components(size: int, a: Array, b: Array) -> tuple[int, Array]:
    """Connected components of the graph on `size` nodes with edges a-b: their number and each node's label."""
    graph = csr_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(size, size))
    number, label = connected_components(graph, directed=False)
    return int(number), label


def sphere(normals: Array, tolerance: float) -> tuple[Fan, Array] | None:
    """The fan in R^3 of the planes with these distinct unit normals, and its rays.

    Crossings closer than `tolerance` on a common circle are one ray. None when the planes share a line, or when
    rounding merged some crossings and not others that belong to them.
    """
    n = len(normals)
    if n < 3 or np.linalg.matrix_rank(normals, tol=1e-6) < 3:
        return None
    points, circle, angle = _crossings(normals)
    order = np.lexsort((angle, circle))
    after = np.roll(order.reshape(n, -1), -1, axis=1).reshape(-1)
    gap = (angle[after] - angle[order]) % (2 * np.pi)
    gap = np.minimum(gap, 2 * np.pi - gap)
    twins = np.arange(len(circle)) // 2  # a point is listed by both of its circles
    same = gap < tolerance
    rays, label = components(int(twins[-1]) + 1, twins[order[same]], twins[after[same]])
    first = np.unique(label, return_index=True)[1]
    ray = label[twins]
    if same.any() and not _closed(ray, circle, n):
        return None
    edges = np.stack([ray[order[~same]], ray[after[~same]]], axis=1)
    around = normals[circle[order[~same]]]
    face, edge, faces = _faces(points[first], edges, around)
    if rays - len(edges) + faces != 2:
        return None
    return Fan((rays, len(edges), faces), edges, ((face, edge),)), points[first]


def _closed(ray: Array, circle: Array, n: int) -> bool:
    """Whether all circles through a ray meet each other there: m circles give m (m - 1) entries."""
    through = np.unique(ray * np.int64(n) + circle) // n
    m, entries = np.bincount(through), np.bincount(ray)
    return bool((entries == m * (m - 1)).all())


def _crossings(normals: Array) -> tuple[Array, Array, Array]:
    """Points (p, 3), then for each point twice: its circle and its angle on it, as flat arrays of length 2p."""
    i, j = np.triu_indices(len(normals), 1)
    points = np.cross(normals[i], normals[j])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = np.concatenate([points, -points])
    circle = np.stack([np.tile(i, 2), np.tile(j, 2)], axis=1).reshape(-1)
    least = np.eye(3)[np.abs(normals).argmin(axis=1)]
    x = np.cross(normals, least)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(normals, x)
    where = np.repeat(points, 2, axis=0)
    angle = np.arctan2((where * y[circle]).sum(1), (where * x[circle]).sum(1))
    return points, circle, angle


def _faces(rays: Array, edges: Array, around: Array) -> tuple[Array, Array, int]:
    """Pairs (face, edge) of the regions left of every directed edge. `around`: the edge's circle's normal."""
    n = len(edges)
    tail = np.concatenate([edges[:, 0], edges[:, 1]])
    direction = np.cross(np.concatenate([around, -around]), rays[tail])  # counterclockwise on the edge's circle
    least = np.eye(3)[np.abs(rays).argmin(axis=1)]
    x = np.cross(rays, least)
    y = np.cross(rays, x)
    turn = np.arctan2((direction * y[tail]).sum(1), (direction * x[tail]).sum(1))
    order = np.lexsort((turn, tail))
    start = np.searchsorted(tail[order], np.arange(len(rays)))
    place = np.empty(2 * n, dtype=int)
    place[order] = np.arange(2 * n)
    degree = np.diff(np.append(start, 2 * n))
    back = np.concatenate([np.arange(n, 2 * n), np.arange(n)])  # the same edge, walked the other way
    at = tail[back]
    clockwise = order[start[at] + (place[back] - start[at] - 1) % degree[at]]
    faces, label = components(2 * n, np.arange(2 * n), clockwise)
    return label, np.tile(np.arange(n), 2), faces
