"""Flags of a polytope: canonical form of the face lattice, isomorphisms and automorphisms, in any dimension.

A flag is a chain vertex < edge < ... < facet. In a polytope every flag has exactly one neighbour that differs in the
face of dimension i (the diamond property), so a walk from one flag names all others: flags with equal walks are
images of one another under a combinatorial automorphism, and the least walk is a canonical form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from regauge.errors import InputError
from regauge.polytope.arrangement import components
from regauge.polytope.fan import join
from regauge.polytope.net import Array

LARGEST = 200_000


class TooManyFlags(InputError):
    """The body is a polytope perhaps, but too large to walk all its flags."""


class HasFaces(Protocol):
    """vertices: (V, d); faces[k - 1]: pairs (face, subface) of dimensions k and k - 1."""

    @property
    def vertices(self) -> Array: ...

    @property
    def faces(self) -> tuple[Array, ...]: ...


@dataclass(frozen=True, eq=False)
class Walk:
    """order: the flags as met from one of them, breadth first; table[i]: numbers in that order of their i-neighbours;
    layers: for each distance, the parents (numbers) and steps by which its flags were met."""

    order: Array
    table: Array
    layers: tuple[tuple[Array, Array], ...]

    @property
    def code(self) -> bytes:
        return bytes(self.table.astype("<i4").tobytes())


@dataclass(frozen=True, eq=False)
class Symmetries:
    """A group of automorphisms. generators: (k, flags) permutations; labels: (flags,) its orbits."""

    generators: Array
    labels: Array
    start: int

    @property
    def order(self) -> int:
        return int((self.labels == self.labels[self.start]).sum())

    def orbit(self, flag: int) -> Array:
        return np.flatnonzero(self.labels == self.labels[flag])


@dataclass(frozen=True, eq=False)
class Flags:
    """flags: (n, d) one face of every dimension; neighbour[i]: (n,) the flag that differs in dimension i only."""

    flags: Array
    neighbour: Array

    @cached_property
    def canonical(self) -> tuple[str, Array]:
        """(a name that two polytopes share iff their face lattices are isomorphic, flags in the order of the least
        walk: the n-th flags of isomorphic polytopes correspond)."""
        left = np.flatnonzero(self._colours == np.bincount(self._colours).argmin())
        best: Walk | None = None
        while len(left):
            walk = self._walk(int(left[0]))
            if best is None or walk.code < best.code:
                best = walk
            left = np.setdiff1d(left, self.symmetries.orbit(int(left[0])))
        assert best is not None
        head = f"{self.flags.shape[1]}:{tuple(int(c) + 1 for c in self.flags.max(axis=0))}:".encode()
        return hashlib.sha256(head + best.code).hexdigest(), best.order

    @cached_property
    def symmetries(self) -> Symmetries:
        """All automorphisms of the face lattice."""
        return self.subgroup(np.zeros(len(self.flags), dtype=int), lambda image: True)

    def subgroup(self, colour: Array, keep: Callable[[Array], bool]) -> Symmetries:
        """The automorphisms that keep `colour` (flags,) and pass `keep` (called with the images of all flags).

        The group acts freely on the flags, so its order is the size of an orbit, and every automorphism found at
        least doubles it; a flag that is not reached rules out its whole orbit.
        """
        colour = self._refined(together([self._colours, colour]))
        start = int(np.flatnonzero(colour == np.bincount(colour).argmin())[0])
        walk, alike = self._walk(start), np.flatnonzero(colour == colour[start])
        found = Symmetries(np.empty((0, len(self.flags)), dtype=np.int32), np.arange(len(self.flags)), start)
        ruled_out = np.zeros(len(self.flags), bool)
        while True:
            label = found.labels
            dead = np.zeros(len(label), bool)
            dead[label[ruled_out]] = True
            open_ = alike[(label[alike] != label[start]) & ~dead[label[alike]]]
            if not len(open_):
                return found
            image = self._image(walk, int(open_[0]))
            if image is not None and keep(image):
                generators = np.concatenate([found.generators, image[None]])
                both = np.tile(np.arange(len(label)), len(generators))
                found = Symmetries(generators, components(len(label), both, generators.reshape(-1))[1], start)
            else:
                ruled_out[open_[0]] = True

    @cached_property
    def _colours(self) -> Array:
        """Numbers of the flags that automorphisms keep, refined until stable; equal in isomorphic lattices."""
        columns = [self._turn(i) for i in range(len(self.neighbour) - 1)]
        return self._refined(together(columns))

    def _refined(self, colour: Array) -> Array:
        colour = colour.reshape(-1)
        while True:
            finer = together([colour, *(colour[step] for step in self.neighbour)])
            if finer.max() == colour.max():
                return finer
            colour = finer

    def _turn(self, i: int) -> Array:
        """How many times the neighbours i and i + 1 must be taken in turn to come back: sizes of polygons."""
        step = self.neighbour[i + 1][self.neighbour[i]]
        at, length, home = step.copy(), np.zeros(len(step), dtype=int), np.arange(len(step))
        count = 1
        while not length.all():
            length[(length == 0) & (at == home)] = count
            at, count = step[at], count + 1
        return length

    def _walk(self, start: int) -> Walk:
        number = np.full(len(self.flags), -1, dtype=np.int32)
        number[start] = 0
        layers, frontier, total = [], np.array([start]), 1
        order = [frontier]
        while len(frontier):
            reached = self.neighbour[:, frontier].T.reshape(-1)
            new = np.flatnonzero(number[reached] < 0)
            new = new[np.sort(np.unique(reached[new], return_index=True)[1])]
            layers.append((total - len(frontier) + new // len(self.neighbour), new % len(self.neighbour)))
            frontier = reached[new]
            number[frontier] = total + np.arange(len(frontier))
            total += len(frontier)
            order.append(frontier)
        walk = np.concatenate(order)
        if total != len(self.flags):
            raise InputError("the face lattice falls apart into pieces, so it is not that of a polytope.")
        return Walk(walk, number[self.neighbour[:, walk]], tuple(layers))

    def _image(self, walk: Walk, start: int) -> Array | None:
        """Where the automorphism that takes the walk's first flag to `start` takes every flag; None if none does."""
        image = np.empty(len(walk.order), dtype=np.int32)
        image[0], at = start, 1
        for parent, step in walk.layers:
            image[at : at + len(parent)] = self.neighbour[step, image[parent]]
            at += len(parent)
        if any((step[image] != image[table]).any() for step, table in zip(self.neighbour, walk.table, strict=True)):
            return None
        result = np.empty_like(image)
        result[walk.order] = image
        return result


def together(columns: Sequence[Array]) -> Array:
    """One number for every row of some columns of numbers >= 0, in lexicographic order."""
    label = np.unique(columns[0], return_inverse=True)[1]
    for column in columns[1:]:
        label = np.unique(label * (np.int64(column.max(initial=0)) + 1) + column, return_inverse=True)[1]
    return label


def flags(body: HasFaces) -> Flags:
    """The flags of a body. InputError when its faces do not have the diamond property (holes, pinched faces)."""
    chains = body.faces[-1]
    for lower in reversed(body.faces[:-1]):
        upper, under = join(chains[:, -1], lower[:, 0])
        chains = np.concatenate([chains[upper], lower[under, 1:]], axis=1)
        if len(chains) > LARGEST:
            raise TooManyFlags(f"the body has more than {LARGEST} flags; its symmetry is not worked out at this size.")
    chains = chains[:, ::-1]
    if not len(chains):
        raise InputError("the body has no vertices, so it has no flags.")
    neighbour = np.empty((chains.shape[1], len(chains)), dtype=np.int32)
    for i in range(chains.shape[1]):
        rest = np.delete(chains, i, axis=1)
        order = np.lexsort(rest.T)
        rest = rest[order]
        if len(order) % 2 or (rest[::2] != rest[1::2]).any() or (rest[1:-1:2] == rest[2::2]).all(axis=1).any():
            raise InputError(
                "the faces are not those of a polytope (unbounded, a facet with a hole, or faces that touch in a "
                "lower face), so there is no canonical form of a face lattice."
            )
        neighbour[i, order[::2]], neighbour[i, order[1::2]] = order[1::2], order[::2]
    return Flags(chains, neighbour)


def dual(found: Flags) -> Flags:
    """The flags of the polar polytope: dimensions in reverse."""
    return Flags(found.flags[:, ::-1], found.neighbour[::-1])
