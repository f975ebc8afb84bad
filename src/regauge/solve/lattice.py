"""Boxes of indices in mixed radix: how an axis is cut by views, slices and concatenations.

A lattice is a set of indices offset + sum_k i_k * stride_k with 0 <= i_k < n_k and strides falling. Views make it
finer (768 -> 12 x 64), slices cut it, and two uses of one axis agree when they cut it into the same lattices.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Leaf = tuple[int, int]  # (size, stride)
Lattice = tuple[int, tuple[Leaf, ...]]  # (offset, leaves with falling strides; none of size 1)


class Clash(Exception):
    """Two cuts of one axis have no common refinement."""


def whole(n: int) -> Lattice:
    return (0, ((n, 1),) if n > 1 else ())


def size(lattice: Lattice) -> int:
    n = 1
    for m, _ in lattice[1]:
        n *= m
    return n


@lru_cache(maxsize=4096)
def points(lattice: Lattice) -> np.ndarray:
    """All indices, sorted."""
    out = np.array([lattice[0]], dtype=np.int64)
    for n, stride in lattice[1]:
        out = (out[:, None] + np.arange(n, dtype=np.int64) * stride).ravel()
    return np.sort(out)


def span(lattice: Lattice) -> tuple[int, int]:
    low = lattice[0]
    return low, low + sum((n - 1) * s for n, s in lattice[1])


def contiguous(lattice: Lattice) -> bool:
    low, high = span(lattice)
    return high - low + 1 == size(lattice)


@lru_cache(maxsize=65536)
def overlap(a: Lattice, b: Lattice) -> bool:
    if a == b:
        return True
    (la, ha), (lb, hb) = span(a), span(b)
    if ha < lb or hb < la:
        return False
    if contiguous(a) and contiguous(b):
        return True
    return bool(np.isin(points(a), points(b), assume_unique=True).any())


def split(leaves: tuple[Leaf, ...], stride: int) -> tuple[Leaf, ...]:
    """Cut the leaf that straddles `stride`, where that is possible."""
    out: list[Leaf] = []
    for n, s in leaves:
        if s < stride < n * s and stride % s == 0 and (n * s) % stride == 0:
            out += [(n * s // stride, stride), (stride // s, s)]
        else:
            out.append((n, s))
    return tuple(out)


def _digits(lattice: Lattice, at: np.ndarray) -> list[tuple[int, int]]:
    """For each leaf, the range lo, hi of its digit over the given indices."""
    rest = at - lattice[0]
    ranges = []
    for _, s in lattice[1]:
        digit = rest // s
        ranges.append((int(digit.min()), int(digit.max()) + 1))
        rest = rest - digit * s
    if rest.any():
        raise Clash
    return ranges


def _restrict(lattice: Lattice, ranges: list[tuple[int, int]]) -> Lattice:
    offset = lattice[0] + sum(lo * s for (lo, _), (_, s) in zip(ranges, lattice[1], strict=True))
    leaves = tuple((hi - lo, s) for (lo, hi), (_, s) in zip(ranges, lattice[1], strict=True) if hi - lo > 1)
    return offset, leaves


def _cut(lattice: Lattice, ranges: list[tuple[int, int]]) -> list[Lattice]:
    """The box of the ranges, and what is left of the lattice around it."""
    parts = []
    full = [(0, n) for n, _ in lattice[1]]
    for i, (lo, hi) in enumerate(ranges):
        for piece in ((0, lo), (hi, lattice[1][i][0])):
            if piece[1] > piece[0]:
                parts.append(_restrict(lattice, [*ranges[:i], piece, *full[i + 1 :]]))
    return [_restrict(lattice, ranges), *parts]


@lru_cache(maxsize=65536)
def meet(a: Lattice, b: Lattice) -> tuple[tuple[Lattice, ...], tuple[Lattice, ...]]:
    """Partitions of two overlapping lattices in which their intersection is one common part (the first of both).

    Raises Clash where the intersection is not a box in both.
    """
    leaves_a, leaves_b = a[1], b[1]
    for _ in range(3):
        for _, s in leaves_b:
            leaves_a = split(leaves_a, s)
        for _, s in leaves_a:
            leaves_b = split(leaves_b, s)
    a, b = (a[0], leaves_a), (b[0], leaves_b)
    common = np.intersect1d(points(a), points(b), assume_unique=True)
    parts = []
    for one in (a, b):
        ranges = _digits(one, common)
        box = 1
        for lo, hi in ranges:
            box *= hi - lo
        if box != len(common):
            raise Clash
        parts.append(tuple(_cut(one, ranges)))
    if parts[0][0] != parts[1][0]:
        raise Clash
    return parts[0], parts[1]
