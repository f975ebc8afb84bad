"""How a detour mixes an axis: which places it keeps apart, and which it rotates in planes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from regauge.solve.lattice import Lattice


@dataclass(frozen=True)
class Segments:
    """What a Mix does along its axis: lattices, and which of them are rotated planes (with the stride of the pair)."""

    lattices: tuple[Lattice, ...]
    planes: dict[Lattice, int]
    plain: frozenset[Lattice]


def segment(matrix: Tensor, tolerance: float = 1e-12) -> Segments | None:
    """Cut the axis of a Mix by the connected components of its matrices: rotated pairs, and places kept apart."""
    n = matrix.shape[-1]
    m = matrix.reshape(-1, n, n)
    scale = m.abs().max()
    pattern = (m.abs() > tolerance * scale).any(0).numpy()
    count, label = connected_components(pattern, directed=False)
    members: dict[int, list[int]] = {}
    for i, c in enumerate(label):
        members.setdefault(int(c), []).append(i)
    stride = np.zeros(n, dtype=np.int64)
    for group in members.values():
        if len(group) > 2:
            return None
        if len(group) == 2:
            stride[group] = group[1] - group[0]
    same = np.array([bool((m[:, i, i] == 1).all()) for i in range(n)])
    lattices: list[Lattice] = []
    planes: dict[Lattice, int] = {}
    plain = []
    i = 0
    while i < n:
        s = int(stride[i])
        j = i
        while j < n and stride[j] == s and (s or same[j] == same[i]):
            j += 1
        if s == 0:
            lattice: Lattice = (i, ((j - i, 1),) if j - i > 1 else ())
            if same[i]:
                plain.append(lattice)
        else:
            if (j - i) % (2 * s):
                return None
            leaves = tuple(leaf for leaf in (((j - i) // (2 * s), 2 * s), (2, s), (s, 1)) if leaf[0] > 1)
            lattice = (i, leaves)
            low = [k for k in range(i, j) if ((k - i) // s) % 2 == 0]
            if any(label[k] != label[k + s] for k in low) or not _rotations(m, low, s):
                return None
            planes[lattice] = s
        lattices.append(lattice)
        i = j
    return Segments(tuple(lattices), planes, frozenset(plain))


def _rotations(m: Tensor, low: list[int], s: int) -> bool:
    """Every 2 x 2 part is a 1 + b J."""
    high = [k + s for k in low]
    error = (m[:, low, low] - m[:, high, high]).abs().max() + (m[:, low, high] + m[:, high, low]).abs().max()
    return bool(error <= 1e-5 * m.abs().max())
