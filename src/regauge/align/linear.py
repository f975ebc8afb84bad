"""A frame by least squares, without the help of balance: for frames that have no balanced form, and to polish others.

Vectors obey b = M a, dual ones a = M^T b. The least squares of both are one Sylvester equation,

    M (sum a a^T) + (sum b b^T) M = sum b a^T + sum b a^T,

the first sums over vectors, the second ones over duals.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regauge.align.balance import gram
from regauge.align.overlap import Problem, Use


def frame_by_least_squares(problem: Problem, root: int, found: list[Use], tolerance: float) -> Tensor:
    """(*places, n, n). Directions that nothing tells are filled up to an invertible matrix."""
    source = problem.layout.plan.sources[root]
    shape = [n for _, n in source.places]
    sums = torch.zeros(3, *shape, source.n, source.n, dtype=torch.float64)
    for u in found:
        leaf = u.piece.leaves[u.leaf]
        x, y = problem.read(u.piece, u.leaf)
        sums[1 if leaf.dual else 0] += gram(y if leaf.dual else x, u.leaf, leaf.places)
        n, k = x.ndim, u.leaf
        left, right = list(range(n)), list(range(n))
        right[k] = n
        sums[2] += torch.einsum(x, left, y, right, [*leaf.places, n, k]).double()
    return sylvester(sums[0], sums[1], sums[2], tolerance)


def sylvester(p: Tensor, q: Tensor, r: Tensor, tolerance: float, fill: bool = True) -> Tensor:
    """M with M p + q M = r for p, q >= 0; where both vanish, M is zero, or with `fill` as needed to be invertible."""
    pv, pu = torch.linalg.eigh(p)
    qv, qu = torch.linalg.eigh(q)
    size = torch.maximum(pv[..., -1], qv[..., -1])[..., None]
    pv, qv = (torch.where(v > tolerance**2 * size, v, 0.0) for v in (pv, qv))
    weights = pv[..., None, :] + qv[..., :, None]
    m = qu.mT @ r @ pu / torch.where(weights > 0, weights, 1.0)
    rest = torch.eye(p.shape[-1], dtype=p.dtype).flip(-1) * m.abs().mean((-1, -2), keepdim=True) * float(fill)
    return qu @ torch.where(weights == 0, rest, m) @ pu.mT
