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
    stride = np.zeros(n, dtype=np.int64)  # of the pair that an index is the low one of; 0: none
    high = np.zeros(n, dtype=bool)
    for group in members.values():
        if len(group) > 2:
            return None
        if len(group) == 2:
            stride[group[0]], high[group[1]] = group[1] - group[0], True
    same = np.array([bool((m[:, i, i] == 1).all()) for i in range(n)])
    lattices: list[Lattice] = []
    planes: dict[Lattice, int] = {}
    plain = []
    done = np.zeros(n, dtype=bool)
    for i in range(n):
        if done[i]:
            continue
        s = int(stride[i])
        if s == 0:
            j = i + 1
            while j < n and not (stride[j] or high[j]) and same[j] == same[i]:
                j += 1
            done[i:j] = True
            lattice: Lattice = (i, ((j - i, 1),) if j - i > 1 else ())
            if same[i]:
                plain.append(lattice)
        else:
            run = _run(stride, i)  # of low indices, then as many high ones if it is as long as the stride, and so on
            count = 1
            while (
                run == s and i + 2 * s * count < n and _run(stride, i + 2 * s * count) == s == stride[i + 2 * s * count]
            ):
                count += 1
            lattice = (i, tuple(leaf for leaf in ((count, 2 * s), (2, s), (run, 1)) if leaf[0] > 1))
            low = [i + 2 * s * c + k for c in range(count) for k in range(run)]
            done[[*low, *(k + s for k in low)]] = True
            if not _rotations(m, low, s):
                return None
            planes[lattice] = s
        lattices.append(lattice)
    return Segments(tuple(lattices), planes, frozenset(plain))


def _run(stride: np.ndarray, start: int) -> int:
    """How many indices from `start` on are the low ones of pairs with one stride; at most the stride."""
    s = int(stride[start])
    j = start
    while j < min(start + s, len(stride)) and stride[j] == s:
        j += 1
    return j - start


def _rotations(m: Tensor, low: list[int], s: int) -> bool:
    """Every 2 x 2 part is a 1 + b J."""
    high = [k + s for k in low]
    error = (m[:, low, low] - m[:, high, high]).abs().max() + (m[:, low, high] + m[:, high, low]).abs().max()
    return bool(error <= 1e-5 * m.abs().max())
