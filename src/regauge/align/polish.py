"""The last digits of an element: GL frames and scales by least squares, each piece weighed by its rounding error.

Balance spreads the rounding of a small tensor (a gain) over the large ones that share its scale. Here every piece says
what it can, g.a against b as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regauge.align.balance import free_multiples, gram, on_leaves, spread
from regauge.align.freedoms import Freedoms
from regauge.align.held import Held
from regauge.align.leaves import Layout, Piece
from regauge.align.linear import sylvester
from regauge.align.verdict import spacing
from regauge.solve.element import Move, Rotate

PASSES = 3


def polish(x: Held, y: Held, layout: Layout, free: Freedoms) -> list[Move]:
    """Moves near the identity that bring x nearer to y; x is taken along."""
    weights = {p.block.id: _weight(y, p) for p in layout.pieces}
    moves: list[Move] = []
    for _ in range(PASSES):
        turns = _frames(x, y, layout, free, weights)
        if turns:
            moves.append(Rotate(turns))
            x.apply(moves[-1])
        steps = _scales(x, y, layout, free, weights)
        if steps:
            moves.append(free.scale(steps))
            x.apply(moves[-1])
    return moves


def _weight(y: Held, piece: Piece) -> float:
    """One over the mean squared rounding error of the piece."""
    stored = y.stored(piece.name)
    errors = spacing(y.read(piece.block).double(), stored.dtype).square().mean()
    return 1.0 / max(float(errors), 1e-300)


def _frames(x: Held, y: Held, layout: Layout, free: Freedoms, weights: dict[int, float]) -> dict[int, Tensor]:
    linked = set(layout.plan.frames.component.values())
    scaled = free_multiples(layout, free)
    out = {}
    for root, source in layout.plan.sources.items():
        if source.kind != "GL" or source.n == 1 or layout.plan.component(root) in linked:
            continue
        sums = torch.zeros(3, *[n for _, n in source.places], source.n, source.n, dtype=torch.float64)
        for piece, k in layout.at[("frame", root)]:
            leaf, w = piece.leaves[k], weights[piece.block.id]
            if any(j != k and other.frame == root for j, other in enumerate(piece.leaves)):
                continue
            a, b = x.read(piece.block), y.read(piece.block)
            sums[1 if leaf.dual else 0] += w * gram(b if leaf.dual else a, k, leaf.places)
            left, right = list(range(a.ndim)), list(range(a.ndim))
            right[k] = a.ndim
            # vectors: b = M a, D a a^T = (b - a) a^T; duals: M^T b = a, b b^T D = b (a - b)^T; both with M = 1 + D
            first, second = (b, a - b) if leaf.dual else (b - a, a)
            sums[2] += w * torch.einsum(first, left, second, right, [*leaf.places, k, a.ndim]).double()
        m = torch.eye(source.n, dtype=torch.float64) + _small(sums)
        if root not in scaled:
            m = m / torch.exp(torch.linalg.slogdet(m)[1] / source.n)[..., None, None]
        if bool(torch.isfinite(m).all()) and float((m - torch.eye(source.n, dtype=m.dtype)).abs().max()) < 0.5:
            out[root] = m
    return out


def _small(sums: Tensor) -> Tensor:
    """D with D p + q D = r; nothing where nothing tells."""
    return sylvester(sums[0], sums[1], sums[2], 1e-6, fill=False)


def _scales(x: Held, y: Held, layout: Layout, free: Freedoms, weights: dict[int, float]) -> dict[int, Tensor]:
    """One Gauss-Newton step for every free scale, one after the other on the sums of the pieces."""
    by_block = {p.block.id: p for p in layout.pieces}
    axes: dict[int, set[int]] = {}
    for f in free.scales:
        for b, leaves, _ in f.on:
            axes.setdefault(b, set()).update(leaves)
    norm, away = {}, {}
    for b, kept in axes.items():
        p, q = x.read(by_block[b].block).double(), y.read(by_block[b].block).double()
        rest = [a for a in range(p.ndim) if a not in kept]
        n, d = p * p * weights[b], p * (q - p) * weights[b]
        norm[b], away[b] = (n.sum(rest, keepdim=True), d.sum(rest, keepdim=True)) if rest else (n, d)
    steps = {i: torch.zeros(f.shape, dtype=torch.float64) for i, f in enumerate(free.scales)}
    for _ in range(30):
        largest = 0.0
        for i, f in enumerate(free.scales):
            top, bottom = torch.zeros(f.shape, dtype=torch.float64), torch.zeros(f.shape, dtype=torch.float64)
            for b, leaves, c in f.on:
                top += float(c) * on_leaves(away[b], leaves)
                bottom += float(c) ** 2 * on_leaves(norm[b], leaves)
            step = top / bottom.clamp_min(1e-300)
            for a in range(step.ndim):
                step = step - step.mean(a, keepdim=True)
            step = step.clamp(-0.5, 0.5)
            steps[i] = steps[i] + step
            largest = max(largest, float(step.abs().max()))
            for b, leaves, c in f.on:
                away[b] = away[b] - float(c) * norm[b] * spread(step, leaves, norm[b].ndim)
        if largest < 1e-14:
            break
    return steps
