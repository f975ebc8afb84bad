"""What a body is: its symmetry group, and its name when it is a known polytope."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from regauge.errors import InputError
from regauge.polytope.flags import Flags, HasFaces, TooManyFlags, flags, together
from regauge.polytope.incidence import table
from regauge.polytope.net import Array
from regauge.polytope.typed import identify, in_catalogue, lattice_flags
from regauge.polytope.words import article, is_polygon

LARGEST_TABLE = 2000  # vertices or facets; larger products are not taken apart


@dataclass(frozen=True)
class Symmetry:
    """order: isometries that keep the body; rotations: those of determinant 1; combinatorial: automorphisms of the
    face lattice; generators: isometries that generate the group, as permutations of the vertices."""

    order: int
    rotations: int
    combinatorial: int
    generators: tuple[tuple[int, ...], ...]

    @property
    def chiral(self) -> bool:
        return self.order == self.rotations


@dataclass(frozen=True)
class Name:
    """type: the known polytope of the same combinatorial type; congruent: also the same shape up to scale."""

    type: str
    congruent: bool

    def __str__(self) -> str:
        if is_polygon(self.type) and self.congruent:
            return f"regular {self.type}"
        return self.type if self.congruent else f"combinatorially {article(self.type)}"


def canonical_form(body: HasFaces) -> str:
    """A string that two bodies share exactly when their face lattices are isomorphic.

    Raises InputError when the faces are not those of a polytope: unbounded, holes, pinched faces.
    """
    return flags(body).canonical[0]


def symmetry(body: HasFaces, tolerance: float = 1e-6, exact: bool = False) -> Symmetry:
    """The symmetry groups of a bounded body.

    Isometries are compared within `tolerance` of the body's size; exact: decided in rational arithmetic instead, for
    a body of the certified mode. Raises InputError as `canonical_form` does.
    """
    found = flags(body)
    vertices = body.vertices.astype(float)
    centred = vertices - vertices.mean(axis=0)
    centred = centred / np.sqrt((centred**2).sum(axis=1).max())
    basis = _basis(centred)
    gram = centred @ centred[basis].T
    if exact and body.vertices.dtype != object:
        raise InputError("exact symmetry needs rational vertices; extract the body with exact=True.")
    certify = _certifier(body.vertices, basis) if exact else None
    first = np.unique(found.flags[:, 0], return_index=True)[1]

    def isometric(image: Array) -> bool:
        moved = found.flags[image[first], 0]
        there = centred[moved]
        if np.abs(there @ there[basis].T - gram).max() > tolerance:
            return False
        return certify is None or certify(moved)

    group = found.subgroup(_measures(found, centred, tolerance), isometric)
    maps = [found.flags[image[first], 0] for image in group.generators]
    frame = np.linalg.det(centred[basis])
    proper = all(np.linalg.det(centred[moved[basis]]) * frame > 0 for moved in maps)
    return Symmetry(
        group.order,
        group.order if proper else group.order // 2,
        found.symmetries.order,
        tuple(tuple(int(v) for v in moved) for moved in maps),
    )


def name(body: HasFaces, tolerance: float = 1e-6) -> Name | None:
    """The known polytope that the body is, or None.

    Products, direct sums and pyramids of known ones are known (up to 2,000 vertices and facets), and so are polars.
    Raises InputError as `canonical_form` does.
    """
    dim, size = body.vertices.shape[1], max(len(body.vertices), int(body.faces[-1][:, 0].max(initial=0)) + 1)
    try:
        shape = flags(body)
    except TooManyFlags:
        if size > LARGEST_TABLE or not getattr(body, "bounded", True) or not getattr(body, "convex", True):
            raise
        shape = None  # of a convex body the incidence says all
    if size > LARGEST_TABLE and shape is not None:
        found = in_catalogue(shape)
    else:
        on = table(body.faces)
        found = identify(on, dim, shape)
        if found is not None and shape is not None and not _is_lattice_of(on, dim, shape, body):
            found = None
    if found is None:
        return None
    return Name(found.title, found.metric and _similar(body.vertices.astype(float), found.vertices, tolerance))


def _is_lattice_of(on: Array, dim: int, shape: Flags, body: HasFaces) -> bool:
    """Whether the faces are those that a convex body with this incidence has; a star body may have others."""
    if getattr(body, "convex", True):
        return True
    return lattice_flags(on, dim).canonical[0] == shape.canonical[0]


def _similar(a: Array, b: Array, tolerance: float) -> bool:
    """Whether points correspond by a similarity. In the models every automorphism is an isometry, so one
    correspondence decides."""
    a, b = (points - points.mean(axis=0) for points in (a, b))
    a, b = (points / np.sqrt((points**2).sum(axis=1).mean()) for points in (a, b))
    basis = _basis(b)
    return bool(np.abs(a @ a[basis].T - b @ b[basis].T).max() <= tolerance)


def _basis(points: Array) -> Array:
    """Rows that span the space of the points."""
    chosen: list[int] = []
    rest = points.copy()
    for _ in range(points.shape[1]):
        chosen.append(int((rest**2).sum(axis=1).argmax()))
        direction = rest[chosen[-1]] / max(math.sqrt((rest[chosen[-1]] ** 2).sum()), 1e-300)
        rest = rest - np.outer(rest @ direction, direction)
    return np.array(chosen)


def _measures(found: Flags, points: Array, tolerance: float) -> Array:
    """A colour for every flag from lengths that isometries keep, so that few candidates are left."""
    columns = []
    for level in range(found.flags.shape[1]):
        face = found.flags[:, level]
        number = np.zeros(face.max() + 1)
        centre = np.zeros((face.max() + 1, points.shape[1]))
        np.add.at(number, face, 1.0)
        np.add.at(centre, face, points[found.flags[:, 0]])
        length = np.sqrt(((centre / number[:, None]) ** 2).sum(axis=1))
        columns.append(_clusters(length, tolerance)[face])
    return together(columns)


def _clusters(values: Array, tolerance: float) -> Array:
    order = np.argsort(values)
    steps = np.append(0, np.cumsum(np.diff(values[order]) > tolerance))
    label = np.empty(len(values), dtype=int)
    label[order] = steps
    return label


def _certifier(vertices: Array, basis: Array) -> Callable[[Array], bool]:
    mean = vertices.sum(axis=0) * Fraction(1, len(vertices))
    centred = vertices - mean
    gram = centred @ centred[basis].T

    def certify(moved: Array) -> bool:
        there = centred[moved]
        return bool((there @ there[basis].T == gram).all())

    return certify


def describe(body: HasFaces) -> str:
    """The name, or the reason why there is none, in a few words."""
    try:
        found = name(body)
    except InputError as error:
        return f"no known polytope: {error}"
    return str(found) if found else "not a polytope with a name"
