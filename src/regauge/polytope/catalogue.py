"""Known polytopes that are no products, sums or pyramids: names, f-vectors, and how to build each.

Uniform polytopes of every dimension are orbits under reflection groups (`wythoff`); snubs are orbits under rotations
with all edges equal. Besides: antiprisms, zonotopes with a name, associahedra, cyclic polytopes. Polars need no entry.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import fsolve

from regauge.polytope import words
from regauge.polytope.coxeter import Diagram, f_vector, linear, mirrors, orbit, orbit_points
from regauge.polytope.hull import Polytope, hull
from regauge.polytope.net import Array
from regauge.polytope.wythoff import with_vertices

SNUBS = {"snub cube": (linear(4, 3), (24, 60, 38)), "snub dodecahedron": (linear(5, 3), (60, 150, 92))}
GOLDEN = (1 + math.sqrt(5)) / 2


@dataclass(frozen=True)
class Known:
    """metric: whether the model's shape is part of the name, and its automorphisms are isometries."""

    title: str
    build: Callable[[], Polytope]
    metric: bool = True


def candidates(numbers: tuple[int, ...]) -> Iterator[Known]:
    """Known polytopes that may have this f-vector."""
    dim = len(numbers)
    for title, diagram, rings in with_vertices(dim, numbers[0]):
        if f_vector(diagram, rings) == numbers:
            yield Known(title, _uniform(diagram, rings))
    if dim == 3:
        yield from _solids(numbers)
    if dim == 4:
        for title, known, build in (
            ("snub 24-cell", (96, 432, 480, 144), _snub_24_cell),
            ("grand antiprism", (100, 500, 720, 320), _grand_antiprism),
        ):
            if known == numbers:
                yield Known(title, build)
    yield from _families(dim, numbers)


def _solids(numbers: tuple[int, ...]) -> Iterator[Known]:
    v, e, _ = numbers
    for title, (diagram, known) in SNUBS.items():
        if known == numbers:
            yield Known(title, _snub(diagram))
    if v % 2 == 0 and e == 2 * v and 6 < v <= 200:
        yield Known(f"{words.adjective(v // 2)} antiprism", lambda: hull(_antiprism(v // 2)))
    for title, lines, known in (
        ("elongated dodecahedron", _elongated, (18, 28, 12)),
        ("rhombic icosahedron", lambda: np.column_stack([ring(5), np.full(5, 0.5)]), (22, 40, 20)),
        ("chamfered cube", lambda: np.concatenate([np.eye(3), _diagonals() / math.sqrt(3)]), (32, 48, 18)),
        ("rhombic enneacontahedron", _ten_zones, (92, 180, 90)),
    ):
        if known == numbers:
            yield Known(title, _summed(lines))
    zones = (1 + math.isqrt(4 * v - 7)) // 2
    if 5 < zones <= 20 and numbers == (zones * (zones - 1) + 2, 2 * zones * (zones - 1), zones * (zones - 1)):
        title = f"polar zonohedron of {zones} zones"
        yield Known(title, lambda: hull(_cone_sums(zones)), False)


def _families(dim: int, numbers: tuple[int, ...]) -> Iterator[Known]:
    v, f = numbers[0], numbers[-1]
    if v == math.comb(2 * dim + 2, dim + 1) // (dim + 2) and f == dim * (dim + 3) // 2:
        title = "associahedron" if dim == 3 else f"{dim}-associahedron"
        yield Known(title, lambda: _associahedron(dim), False)
    if dim > 3 and dim + 2 < v <= 40 and f == _cyclic_facets(v, dim):
        yield Known(f"cyclic polytope C({v}, {dim})", lambda: _cyclic(v, dim), False)


def _summed(lines: Callable[[], Array]) -> Callable[[], Polytope]:
    return lambda: zonotope(lines())


def _uniform(diagram: Diagram, rings: str) -> Callable[[], Polytope]:
    return lambda: hull(orbit_points(diagram, rings))


def _snub(diagram: Diagram) -> Callable[[], Polytope]:
    def build() -> Polytope:
        normals = mirrors(diagram)
        reflect = [np.eye(3) - 2 * np.outer(n, n) for n in normals]
        turns = [reflect[i] @ reflect[j] for i, j in ((0, 1), (1, 2), (0, 2))]

        def unequal(weights: Array) -> list[float]:
            point = np.linalg.solve(normals, np.append(weights, 1.0))
            edge = [float(np.linalg.norm(point - turn @ point)) for turn in turns]
            return [edge[0] - edge[1], edge[1] - edge[2]]

        seed = np.linalg.solve(normals, np.append(fsolve(unequal, [1.0, 1.0], xtol=1e-12), 1.0))
        return hull(orbit(seed, turns))

    return build


def _snub_24_cell() -> Polytope:
    """The even permutations of (0, +-1, +-g, +-g^2), g the golden ratio."""
    signed = [np.array([0, a, b * GOLDEN, c * GOLDEN**2]) for a, b, c in itertools.product((1, -1), repeat=3)]
    even = [p for p in itertools.permutations(range(4)) if np.linalg.det(np.eye(4)[list(p)]) > 0]
    return hull([point[list(order)] for point in signed for order in even])


def _grand_antiprism() -> Polytope:
    """The 600-cell without two orthogonal rings of ten corners."""
    points = orbit_points(linear(5, 3, 3), "0001")
    points = points / np.linalg.norm(points[0])
    second = points[np.flatnonzero(np.abs(points @ points[0] - GOLDEN / 2) < 1e-9)[0]]
    plane = np.linalg.qr(np.stack([points[0], second], axis=1))[0]
    share = ((points @ plane) ** 2).sum(axis=1)
    return hull(points[(share > 1e-9) & (share < 1 - 1e-9)])


def ring(n: int, shift: float = 0.0) -> Array:
    """The corners of a regular n-gon on the unit circle, (n, 2), turned by `shift` of a step."""
    angle = 2 * np.pi * (np.arange(n) + shift) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _antiprism(n: int) -> Array:
    """Two regular n-gons, turned by half a step, as far apart as makes all edges equal."""
    gap = math.sqrt((2 * math.sin(math.pi / n)) ** 2 - (2 * math.sin(math.pi / (2 * n))) ** 2)
    top, bottom = (np.column_stack([ring(n, s), np.full(n, h)]) for s, h in ((0, gap / 2), (0.5, -gap / 2)))
    return np.vstack([top, bottom])


def _diagonals() -> Array:
    return np.array([[1.0, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]])


def _elongated() -> Array:
    """The rhombic dodecahedron stretched along a fourfold axis, all edges equal."""
    return np.concatenate([_diagonals(), [[0, 0, math.sqrt(3)]]])


def _ten_zones() -> Array:
    """The long diagonals of a dodecahedron."""
    corners = orbit_points(linear(5, 3), "100")
    first = [i for i in range(len(corners)) if not any(np.allclose(corners[i], -corners[j]) for j in range(i))]
    return corners[first]


def zonotope(lines: Array) -> Polytope:
    """The sum of the segments from -line to line, line by line, so that no more than its corners are kept."""
    points = np.zeros((1, lines.shape[1]))
    for i, line in enumerate(lines):
        points = np.concatenate([points + line, points - line])
        if i >= lines.shape[1] and np.linalg.matrix_rank(points) == lines.shape[1]:
            points = hull(points).vertices
    return hull(points)


def _cone_sums(zones: int) -> Array:
    """The corners of the zonotope of lines on a cone: signs change at most twice around it."""
    signs = [np.ones(zones), -np.ones(zones)]
    for start in range(zones):
        for length in range(1, zones):
            sign = -np.ones(zones)
            sign[(start + np.arange(length)) % zones] = 1
            signs.append(sign)
    return np.array(signs) @ np.column_stack([ring(zones), np.ones(zones)])


def _associahedron(dim: int) -> Polytope:
    """The secondary polytope of a regular (dim + 3)-gon: a corner is a triangulation, its coordinates the areas of
    the triangles at each corner of the polygon (Gelfand, Kapranov and Zelevinsky)."""
    n, corners = dim + 3, ring(dim + 3)

    def area(i: int, j: int, k: int) -> float:
        a, b = corners[j] - corners[i], corners[k] - corners[i]
        return abs(float(a[0] * b[1] - a[1] * b[0]))

    def split(low: int, high: int) -> list[Array]:
        if high - low < 2:
            return [np.zeros(n)]
        found = []
        for middle in range(low + 1, high):
            here = np.zeros(n)
            here[[low, middle, high]] = area(low, middle, high)
            found += [here + a + b for a, b in itertools.product(split(low, middle), split(middle, high))]
        return found

    points = np.array(split(0, n - 1))
    points -= points.mean(axis=0)
    return hull(points @ np.linalg.svd(points, full_matrices=False)[2][:dim].T)


def _cyclic_facets(n: int, dim: int) -> int:
    half = dim // 2
    if dim % 2:
        return 2 * math.comb(n - half - 1, half)
    return math.comb(n - half, half) + math.comb(n - half - 1, half - 1)


def _cyclic(n: int, dim: int) -> Polytope:
    """Points of the moment curve, in the basis of Chebyshev polynomials, which is kinder to rounding."""
    t = np.cos(math.pi * (np.arange(n) + 0.5) / n)
    return hull(np.polynomial.chebyshev.chebvander(t, dim)[:, 1:])
