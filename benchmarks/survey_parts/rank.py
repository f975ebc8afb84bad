"""The rank and the null vectors of a matrix with thousands of columns.

A pivoted factorisation, or singular values, cost ten times a plain one. Here columns are mixed by a random orthogonal map
(signs, a cosine transform, a permutation), after which the leading columns span the range whatever the matrix, and a QR without
pivots shows the rank on its diagonal (Halko, Martinsson and Tropp, SIAM Review 53, 2011; Demmel, Dumitriu and Holtz,
Numerische Mathematik 108, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import scipy.fft
import torch
from torch import Tensor

NULL = 1e-10  # no singular value above this, relative to the largest, is called null
NOISE = 1e-13  # none below this is called non-null
SPARE = 16  # directions beside those whose pivots are null, whose singular values are looked at as well


@dataclass(frozen=True, eq=False)
class Rank:
    """`null` is (n, n - rank), orthonormal; `gap` is the smallest singular value that counts over the largest that does
    not."""

    rank: int
    gap: float
    null: Tensor


def rank(matrix: Tensor) -> Rank:
    """Of a matrix (m, n) in double precision, m at least n, whose columns have comparable norms. It is overwritten."""
    n, rng = matrix.shape[1], torch.Generator().manual_seed(0)
    signs, order = torch.randint(0, 2, (n,), generator=rng).double().mul_(2).sub_(1), torch.randperm(n, generator=rng)
    mixed = torch.from_numpy(scipy.fft.dct(matrix.mul_(signs).numpy(), axis=1, norm="ortho", overwrite_x=True))
    r = torch.linalg.qr(mixed[:, order], mode="r").R
    pivots = r.diagonal().abs()
    lead = max(0, int((pivots > NULL * pivots.max()).sum()) - SPARE)
    small = torch.cat(
        [-torch.linalg.solve_triangular(r[:lead, :lead], r[:lead, lead:], upper=True), torch.eye(n - lead).to(r)]
    )
    small = torch.linalg.qr(small).Q
    _, values, vectors = torch.linalg.svd(r @ small, full_matrices=False)
    values = values / torch.linalg.vector_norm(r @ _leading(r))
    count, gap = cut(values)
    null = (small @ vectors[count:].T)[order.argsort()]
    null = torch.from_numpy(scipy.fft.idct(null.numpy(), axis=0, norm="ortho")) * signs[:, None]
    return Rank(lead + count, gap, null)


def cut(values: Tensor) -> tuple[int, float]:
    """How many of these descending singular values, relative to the largest of all, count; and the ratio there, which is
    the widest between one above `NOISE` and one below `NULL`. One that is absent counts as 1e-16."""
    top = torch.cat([values.new_tensor([1.0]), values, values.new_tensor([0.0])]).clamp_min(1e-16)
    ratio = torch.where((top[1:] < NULL) & (top[:-1] > NOISE), top[:-1] / top[1:], 0.0)
    return int(ratio.argmax()), float(ratio.max())


def _leading(matrix: Tensor, steps: int = 12) -> Tensor:
    """The leading right singular vector by power iteration: two digits suffice for a scale."""
    vector = torch.ones(matrix.shape[1], dtype=matrix.dtype)
    for _ in range(steps):
        vector = matrix.T @ (matrix @ vector)
        vector = vector / vector.norm()
    return vector
