"""Uniform polytopes by name, in every dimension: which diagram and which rings.

The operations count from the regular polytope: rings 0 and k are an expansion (truncated, cantellated, runcinated,
...), a first ring beyond 0 gives the prefixes bi, tri, ... (Johnson's terms, as in Coxeter's and Olshevsky's lists).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from regauge.polytope.coxeter import Diagram, forked, linear, orbit_size, ring_strings

Wythoffian = tuple[str, Diagram, str]  # name, diagram, rings

SOLIDS: dict[str, tuple[Diagram, str]] = {
    "tetrahedron": (linear(3, 3), "100"),
    "octahedron": (linear(3, 3), "010"),
    "cube": (linear(4, 3), "100"),
    "dodecahedron": (linear(5, 3), "100"),
    "icosahedron": (linear(5, 3), "001"),
    "cuboctahedron": (linear(4, 3), "010"),
    "icosidodecahedron": (linear(5, 3), "010"),
    "truncated tetrahedron": (linear(3, 3), "110"),
    "truncated cube": (linear(4, 3), "110"),
    "truncated octahedron": (linear(4, 3), "011"),
    "rhombicuboctahedron": (linear(4, 3), "101"),
    "truncated cuboctahedron": (linear(4, 3), "111"),
    "truncated dodecahedron": (linear(5, 3), "110"),
    "truncated icosahedron": (linear(5, 3), "011"),
    "rhombicosidodecahedron": (linear(5, 3), "101"),
    "truncated icosidodecahedron": (linear(5, 3), "111"),
}
FIRST = ("", "bi", "tri", "quadri", "quinti", "sexi", "septi", "octi", "novi", "deci")
LAST_PART = ("rectified", "truncated", "cantellated", "runcinated", "stericated", "pentellated", "hexicated",
             "heptellated", "octellated", "ennecated")  # fmt: skip
INNER_PART = ("", "", "canti", "runci", "steri", "penti", "hexi", "hepti", "octi", "enneci")
HALF = ("", "", "cantic", "runcic", "steric", "pentic", "hexic", "heptic", "octic", "ennecic")
REGULAR_4 = {"4-simplex": "5-cell", "4-cube": "tesseract", "4-orthoplex": "16-cell"}


def operation(rings: str) -> str:
    """The words for the rings of a linear diagram, "" for the first mirror alone."""
    at = [i for i, ring in enumerate(rings) if ring == "1"]
    if at == [0]:
        return ""
    if len(at) == len(rings) and len(rings) > 2:
        return "omnitruncated "
    if len(at) == 1:
        return ("rectified " if at[0] == 1 else FIRST[at[0] - 1] + "rectified ") if at[0] else ""
    steps = [i - at[0] for i in at[1:]]  # the largest step is said first
    inner = "".join(INNER_PART[step] for step in reversed(steps[1:]))
    last = LAST_PART[steps[0]]
    if at == [0, len(rings) - 1] and len(rings) > 4:
        return "expanded "
    return FIRST[at[0]] + inner + last + " "


def _half_operation(steps: list[int]) -> str:
    """The words for rings of a demicube's diagram at these steps from the ringed end of its fork."""
    if not steps:
        return ""
    return "".join(INNER_PART[step] for step in reversed(steps[1:])) + HALF[steps[0]] + " "


@lru_cache(maxsize=16)
def uniform(dim: int) -> tuple[Wythoffian, ...]:
    """Uniform polytopes of dimension `dim` >= 3 that are orbits under a reflection group, each once."""
    if dim == 3:
        return tuple((name, *made) for name, made in SOLIDS.items())
    simplex, cube = linear(*[3] * (dim - 1)), linear(4, *[3] * (dim - 2))
    found: list[Wythoffian] = []
    if dim == 4:
        found += _two_ended("24-cell", None, linear(3, 4, 3))
        found += _two_ended("120-cell", "600-cell", linear(5, 3, 3))
    first, second = (REGULAR_4.get(name, name) for name in (f"{dim}-cube", f"{dim}-orthoplex"))
    found += _two_ended(REGULAR_4.get(f"{dim}-simplex", f"{dim}-simplex"), None, simplex)
    found += _two_ended(first, second, cube)
    if dim == 4:  # these are the 24-cell and its truncations
        found = [made for made in found if made[1:] not in [(cube, rings) for rings in ("0010", "0101", "0111")]]
    if dim > 4:
        found += _demicubes(dim)
    if dim == 6:
        found += [("2_21", forked(6, 2), "100000"), ("1_22", forked(6, 2), "000001")]
    return tuple(found)


def _two_ended(first: str, second: str | None, diagram: Diagram) -> Iterator[Wythoffian]:
    """All rings; those nearer the far end are named from the polytope there (`second`), None: the same polytope."""
    for rings in ring_strings(diagram.size):
        back = rings[::-1]
        if rings >= back:
            yield operation(rings) + first, diagram, rings
        elif second is not None:
            yield operation(back) + second, diagram, rings


def _demicubes(dim: int) -> Iterator[Wythoffian]:
    """Rings on one end of the fork of D_n: those on both or none are rings of the cube's diagram."""
    diagram = forked(dim, dim - 3)
    for inner in ring_strings(dim - 2) + ["0" * (dim - 2)]:
        steps = [dim - 1 - i for i in reversed(range(dim - 2)) if inner[i] == "1"]
        yield _half_operation(steps) + (f"{dim}-demicube" if not steps else f"{dim}-cube"), diagram, inner + "01"


def with_vertices(dim: int, number: int) -> Iterator[Wythoffian]:
    """Those of `uniform(dim)` with this many vertices."""
    return (made for made in uniform(dim) if orbit_size(made[1], made[2]) == number)
