"""Known polytopes as models to compare with: names, and how to build each.

Uniform polytopes come from Wythoff's construction: the orbit of one point under a reflection group, where ringed
mirrors are those that the point is off (Coxeter, Regular Polytopes, ch. 11). Snubs are orbits under the rotations
with all edges equal; Catalan solids are polars. Prisms, pyramids and their kind exist for every n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from scipy.optimize import fsolve

from regauge.polytope.hull import Polytope, hull
from regauge.polytope.net import Array

POLYGONS = ("triangle", "square", "pentagon", "hexagon", "heptagon", "octagon", "nonagon", "decagon")
Build = Callable[[], Polytope]

# name -> (labels of the linear Coxeter diagram, ringed nodes)
SOLIDS: dict[str, tuple[tuple[int, ...], str]] = {
    "tetrahedron": ((3, 3), "100"),
    "octahedron": ((3, 3), "010"),
    "cube": ((4, 3), "100"),
    "dodecahedron": ((5, 3), "100"),
    "icosahedron": ((5, 3), "001"),
    "cuboctahedron": ((4, 3), "010"),
    "icosidodecahedron": ((5, 3), "010"),
    "truncated tetrahedron": ((3, 3), "110"),
    "truncated cube": ((4, 3), "110"),
    "truncated octahedron": ((4, 3), "011"),
    "rhombicuboctahedron": ((4, 3), "101"),
    "truncated cuboctahedron": ((4, 3), "111"),
    "truncated dodecahedron": ((5, 3), "110"),
    "truncated icosahedron": ((5, 3), "011"),
    "rhombicosidodecahedron": ((5, 3), "101"),
    "truncated icosidodecahedron": ((5, 3), "111"),
}
SNUBS = {"snub cube": (4, 3), "snub dodecahedron": (5, 3)}
CATALAN = {
    "rhombic dodecahedron": "cuboctahedron",
    "rhombic triacontahedron": "icosidodecahedron",
    "triakis tetrahedron": "truncated tetrahedron",
    "triakis octahedron": "truncated cube",
    "tetrakis hexahedron": "truncated octahedron",
    "deltoidal icositetrahedron": "rhombicuboctahedron",
    "disdyakis dodecahedron": "truncated cuboctahedron",
    "triakis icosahedron": "truncated dodecahedron",
    "pentakis dodecahedron": "truncated icosahedron",
    "deltoidal hexecontahedron": "rhombicosidodecahedron",
    "disdyakis triacontahedron": "truncated icosidodecahedron",
    "pentagonal icositetrahedron": "snub cube",
    "pentagonal hexecontahedron": "snub dodecahedron",
}
PREFIX = {
    "1000": "", "0100": "rectified ", "1100": "truncated ", "1010": "cantellated ", "1001": "runcinated ",
    "0110": "bitruncated ", "1110": "cantitruncated ", "1101": "runcitruncated ", "1111": "omnitruncated ",
}  # fmt: skip
POLYCHORA: Mapping[str, tuple[tuple[int, ...], str]] = (
    {prefix + "5-cell": ((3, 3, 3), rings) for rings, prefix in PREFIX.items()}
    | {prefix + "tesseract": ((4, 3, 3), rings) for rings, prefix in PREFIX.items()}
    | {prefix + "24-cell": ((3, 4, 3), rings) for rings, prefix in PREFIX.items()}
    | {
        "16-cell": ((4, 3, 3), "0001"),
        "truncated 16-cell": ((4, 3, 3), "0011"),
        "runcitruncated 16-cell": ((4, 3, 3), "1011"),
        "120-cell": ((5, 3, 3), "1000"),
        "600-cell": ((5, 3, 3), "0001"),
        "rectified 120-cell": ((5, 3, 3), "0100"),
        "rectified 600-cell": ((5, 3, 3), "0010"),
    }
)


def candidates(f_vector: tuple[int, ...]) -> Iterator[tuple[str, Build]]:
    """Known polytopes that may have this f-vector (their numbers of vertices and facets fit): (name, build)."""
    dim, ends = len(f_vector), (f_vector[0], f_vector[-1])
    if dim == 2:
        n = f_vector[0]
        yield POLYGONS[n - 3] if n < 11 else f"{n}-gon", lambda: hull(_ring(n))
        return
    if dim == 3:
        yield from _solids(ends)
    if dim == 4:
        yield from ((name, _uniform(*made)) for name, made in POLYCHORA.items() if _orbit_size(*made) == ends[0])
    if dim > 4:
        yield from _families(dim, ends)


def _solids(ends: tuple[int, int]) -> Iterator[tuple[str, Build]]:
    v, f = ends
    size = {name: _orbit_size(*made) for name, made in SOLIDS.items()}
    size |= {name: _group_order(labels) // 2 for name, labels in SNUBS.items()}
    for name in size:
        if size[name] == v:
            yield name, _solid(name)
    for name, archimedean in CATALAN.items():
        if size[archimedean] == f:
            yield name, _polar(_solid(archimedean))
    if v % 2 == 0 and f == v // 2 + 2 and v != 8:
        yield f"{v // 2}-gonal prism", lambda: hull(_stack(v // 2, 0.0))
    if v == f and v > 4:
        yield f"{v - 1}-gonal pyramid", lambda: hull(np.vstack([_level(_ring(v - 1), 0), [[0, 0, 1]]]))
    if f == 2 * (v - 2) and v not in (6, 4):
        yield f"{v - 2}-gonal bipyramid", lambda: hull(np.vstack([_level(_ring(v - 2), 0), [[0, 0, 1], [0, 0, -1]]]))
    if v % 2 == 0 and f == v + 2 and v > 6:
        yield f"{v // 2}-gonal antiprism", lambda: hull(_stack(v // 2, 0.5))
    if f % 2 == 0 and v == f + 2 and f > 6:
        yield f"{f // 2}-gonal trapezohedron", lambda: hull(hull(_stack(f // 2, 0.5)).normals)
    if ends == (22, 20):
        yield "rhombic icosahedron", _rhombic_icosahedron
    if ends == (20, 22):
        yield "polar of the rhombic icosahedron", _polar(_rhombic_icosahedron)
    if ends == (32, 18):
        yield "chamfered cube", _chamfered_cube
    if ends == (18, 32):
        yield "tetrakis cuboctahedron", _polar(_chamfered_cube)


def _polar(build: Build) -> Build:
    return lambda: hull(build().normals)


def _solid(name: str) -> Build:
    return _snub(SNUBS[name]) if name in SNUBS else _uniform(*SOLIDS[name])


def _families(dim: int, ends: tuple[int, int]) -> Iterator[tuple[str, Build]]:
    three, four = (3,) * (dim - 1), (4,) + (3,) * (dim - 2)
    first, last = "1" + "0" * (dim - 1), "0" * (dim - 1) + "1"
    for name, labels, rings in (
        (f"{dim}-simplex", three, first),
        (f"rectified {dim}-simplex", three, "01" + "0" * (dim - 2)),
        (f"expanded {dim}-simplex", three, "1" + "0" * (dim - 2) + "1"),
        (f"omnitruncated {dim}-simplex", three, "1" * dim),
        (f"{dim}-cube", four, first),
        (f"{dim}-orthoplex", four, last),
        (f"rectified {dim}-orthoplex", four, "0" * (dim - 2) + "10"),
    ):
        if _orbit_size(labels, rings) == ends[0]:
            yield name, _uniform(labels, rings)


def _group_order(labels: tuple[int, ...]) -> int:
    """The order of the reflection group of a linear Coxeter diagram with n = len(labels) + 1 mirrors."""
    n, special = len(labels) + 1, [i for i, m in enumerate(labels) if m != 3]
    if not special:
        return math.factorial(n + 1)
    if n == 2:
        return 2 * labels[0]
    if labels == (3, 4, 3):
        return 1152
    if labels[special[0]] == 4:
        return 2**n * math.factorial(n)
    return {3: 120, 4: 14400}[n]


def _orbit_size(labels: tuple[int, ...], rings: str) -> int:
    """Points in the orbit: the group's order over that of the mirrors the point lies on."""
    fixed, start = 1, 0
    for stop in [i for i, ring in enumerate(rings) if ring == "1"] + [len(rings)]:
        fixed *= _group_order(labels[start : stop - 1]) if stop > start else 1
        start = stop + 1
    return _group_order(labels) // fixed


def _mirrors(labels: tuple[int, ...]) -> Array:
    """Unit normals of the mirrors of a linear Coxeter diagram."""
    gram = np.eye(len(labels) + 1)
    for i, m in enumerate(labels):
        gram[i, i + 1] = gram[i + 1, i] = -math.cos(math.pi / m)
    return np.linalg.cholesky(gram)


def _uniform(labels: tuple[int, ...], rings: str) -> Build:
    def build() -> Polytope:
        normals = _mirrors(labels)
        seed = np.linalg.solve(normals, np.array([float(ring) for ring in rings]))
        return hull(_orbit(seed, [np.eye(len(n)) - 2 * np.outer(n, n) for n in normals]))

    return build


def _snub(labels: tuple[int, int]) -> Build:
    def build() -> Polytope:
        normals = _mirrors(labels)
        reflect = [np.eye(3) - 2 * np.outer(n, n) for n in normals]
        turns = [reflect[i] @ reflect[j] for i, j in ((0, 1), (1, 2), (0, 2))]

        def unequal(weights: Array) -> list[float]:
            point = np.linalg.solve(normals, np.append(weights, 1.0))
            edge = [float(np.linalg.norm(point - turn @ point)) for turn in turns]
            return [edge[0] - edge[1], edge[1] - edge[2]]

        seed = np.linalg.solve(normals, np.append(fsolve(unequal, [1.0, 1.0], xtol=1e-12), 1.0))
        return hull(_orbit(seed, turns))

    return build


def _orbit(seed: Array, moves: list[Array]) -> Array:
    points, frontier = {tuple(np.round(seed, 7) + 0.0): seed}, [seed]
    while frontier:
        fresh = []
        for point in (move @ p for p in frontier for move in moves):
            key = tuple(np.round(point, 7) + 0.0)
            if key not in points:
                points[key] = point
                fresh.append(point)
        frontier = fresh
    return np.array(list(points.values()))


def _ring(n: int, shift: float = 0.0) -> Array:
    angle = 2 * np.pi * (np.arange(n) + shift) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _level(ring: Array, height: float) -> Array:
    return np.column_stack([ring, np.full(len(ring), height)])


def _stack(n: int, shift: float) -> Array:
    """Two regular n-gons, one turned by `shift` of a step, as far apart as makes all edges equal."""
    edge = 2 * math.sin(math.pi / n)
    gap = math.sqrt(edge**2 - (2 * math.sin(math.pi * shift / n)) ** 2)
    return np.vstack([_level(_ring(n), gap / 2), _level(_ring(n, shift), -gap / 2)])


def _rhombic_icosahedron() -> Polytope:
    return _zonotope(_level(_ring(5), 0.5))  # five of the six long diagonals of an icosahedron


def _chamfered_cube() -> Polytope:
    diagonals = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]]) / math.sqrt(3)
    return _zonotope(np.concatenate([np.eye(3), diagonals]))


def _zonotope(lines: Array) -> Polytope:
    signs = np.array(np.meshgrid(*[[1, -1]] * len(lines))).reshape(len(lines), -1).T
    return hull(signs @ lines)
