"""The last digits of an element: frames and scales by least squares, each piece weighed by its rounding error.

Balance spreads the rounding of a small tensor (a gain) over the large ones that share its scale. Here every piece says
what it can, g.a against b as they are: in double precision, one part of the model after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from regauge.align.balance import free_multiples, gram, parts, turn
from regauge.align.freedoms import Freedoms
from regauge.align.leaves import Layout, Piece
from regauge.align.linear import sylvester
from regauge.align.redrawn import spacing
from regauge.align.scales import folded, largest, on_leaves, spread, summed
from regauge.solve.element import Element, Move, Rotate
from regauge.solve.sampling import ones_basis
from regauge.solve.state import Moved, State

PASSES = 3
SWEEPS = 30
STILL = 1e-10  # a step below this is none
LOCAL = ("GL", "SO2")  # frames of a few blocks; O and O1 belong to a stream, which is read piece by piece
Arrays = dict[int, Tensor]
Weigh = Callable[[Tensor, Tensor, torch.dtype], float]  # of g.a, b and the dtype of b


def by_rounding(x: Tensor, y: Tensor, dtype: torch.dtype) -> float:
    """One over the mean squared rounding error of a piece: of the one that it is compared with, too, since zeros have none."""
    return 1.0 / max(float((spacing(x, dtype).square() + spacing(y, dtype).square()).mean()), 1e-300)


def by_size(x: Tensor, y: Tensor, dtype: torch.dtype) -> float:
    """One over the mean square of what a piece is to become: for states that differ by more than rounding."""
    return 1.0 / max(float(y.square().mean()), 1e-300)


def polish(
    rough: Element,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    layout: Layout,
    free: Freedoms,
    weigh: Weigh = by_rounding,
) -> list[Move]:
    """Moves near the identity that bring rough.a nearer to b, where the squares of every piece count as `weigh` says."""
    plan = rough.plan
    x, y = rough.moved(State(plan, a)), State(plan, b)
    moves: list[Move] = []
    streams = _streams(x, y, layout, weigh)
    if streams:
        moves.append(Rotate(streams))
        x = Moved(x, moves[-1].on)
    matrices: dict[int, Tensor] = {}
    functions: dict[int, Tensor] = {}
    pieces = {p.block.id: p for p in layout.pieces}
    linked = set(plan.frames.component.values())
    scaled = free_multiples(layout, free)
    for part in parts(layout, free, LOCAL):
        near = {i: x.read(pieces[i].block).double() for i in part.blocks}
        target = {i: y.read(pieces[i].block).double() for i in part.blocks}
        weights = {i: weigh(near[i], target[i], y.stored(pieces[i].name).dtype) for i in part.blocks}
        for _ in range(PASSES):
            for root in part.frames:
                if plan.component(root) in linked:
                    continue
                m = _frame(near, target, weights, layout, root, root in scaled)
                if m is not None:
                    matrices[root] = m @ matrices[root] if root in matrices else m
                    turn(near, layout, root, m)
            for i, f in _scales(near, target, weights, free, part.scales).items():
                functions[i] = functions[i] + f if i in functions else f
                for k, leaves, c in free.scales[i].on:
                    near[k] = near[k] * spread((float(c) * f).exp(), leaves, near[k].ndim)
    if matrices:
        moves.append(Rotate(matrices))
    if functions:
        moves.append(free.scale(functions))
    return moves


def _cross(a: Tensor, b: Tensor, k: int, places: tuple[int, ...]) -> Tensor:
    """sum a b^T over a leaf, one matrix for each index of the places."""
    left, right = list(range(a.ndim)), list(range(a.ndim))
    right[k] = a.ndim
    return torch.einsum(a, left, b, right, [*places, k, a.ndim])


def _alone(piece: Piece, k: int) -> bool:
    """No other leaf of the piece is turned by the same frame."""
    return all(j == k or other.frame != piece.leaves[k].frame for j, other in enumerate(piece.leaves))


def _streams(x: State, y: State, layout: Layout, weigh: Weigh) -> dict[int, Tensor]:
    """Orthogonal frames that many pieces share, from those that no link stands before."""
    plan, frames = layout.plan, layout.plan.frames
    out = {}
    for root, source in plan.sources.items():
        if source.kind not in ("O", "O1"):
            continue
        total = torch.zeros(*[n for _, n in source.places], source.n, source.n, dtype=torch.float64)
        for piece, k in layout.at.get(("frame", root), ()):
            if frames.root[frames.cells.cell(piece.block, k)] == root and _alone(piece, k):
                p, q = x.read(piece.block).double(), y.read(piece.block).double()
                total += weigh(p, q, y.stored(piece.name).dtype) * _cross(p, q, k, piece.leaves[k].places)
        m = _orthogonal(total, source.kind == "O1")
        if m is not None:
            out[root] = m
    return out


def _orthogonal(cross: Tensor, fixed: bool) -> Tensor | None:
    """M = exp D near one, D + D^T = 0, for which b = M a fits best: with A = sum a a^T, D A + A D = sum b a^T - sum a b^T.
    fixed: M leaves the vector of ones alone."""
    if fixed:
        basis = ones_basis(cross.shape[-1]).to(cross)[:, 1:]
        cross = basis.mT @ cross @ basis
    if not cross.shape[-1]:
        return None
    d = sylvester((cross + cross.mT) / 2, (cross + cross.mT) / 2, cross.mT - cross, 1e-6)
    d = (d - d.mT) / 2
    if fixed:
        d = basis @ d @ basis.mT
    return torch.linalg.matrix_exp(d) if _slight(d) else None


def _slight(d: Tensor) -> bool:
    """Whether 1 + D is invertible, and well so."""
    return bool(torch.isfinite(d).all()) and float(torch.linalg.matrix_norm(d, 2).max()) < 0.5


def _frame(x: Arrays, y: Arrays, weights: dict[int, float], layout: Layout, root: int, scaled: bool) -> Tensor | None:
    """One step of least squares for a frame; None where it would be a long one."""
    source = layout.plan.sources[root]
    sums = torch.zeros(3, *[n for _, n in source.places], source.n, source.n, dtype=torch.float64)
    cross = torch.zeros_like(sums[0])
    for piece, k in layout.at[("frame", root)]:
        if not _alone(piece, k):
            continue
        leaf, w = piece.leaves[k], weights[piece.block.id]
        a, b = x[piece.block.id], y[piece.block.id]
        if source.kind == "SO2":
            cross += w * _cross(a, b, k, leaf.places)
            continue
        sums[1 if leaf.dual else 0] += w * gram(b if leaf.dual else a, k, leaf.places)
        # vectors: b = M a, D a a^T = (b - a) a^T; duals: M^T b = a, b b^T D = b (a - b)^T; both with M = 1 + D
        sums[2] += w * (_cross(b, a - b, k, leaf.places) if leaf.dual else _cross(b - a, a, k, leaf.places))
    if source.kind == "SO2":
        return _orthogonal(cross, False)
    d = sylvester(sums[0], sums[1], sums[2], 1e-6)
    if not _slight(d):
        return None
    m = torch.eye(source.n, dtype=torch.float64) + d
    return m if scaled else m / torch.exp(torch.linalg.slogdet(m)[1] / source.n)[..., None, None]


class Residuals:
    """What is left of b - a exp(x) on one block, to first order in functions x on sets of leaves: sums of a (b - a exp(x))."""

    def __init__(self, a: Tensor, b: Tensor, sets: Iterable[tuple[int, ...]], weight: float) -> None:
        self.ndim = a.ndim
        self.largest = largest(sets)
        self.squares = summed(a * a, frozenset().union(*self.largest))
        product = a * (b - a)
        self.norms = {s: weight * summed(self.squares, s).double() for s in self.largest}
        self.left = {s: weight * summed(product, s).double() for s in self.largest}
        self.waiting: dict[frozenset[int], Tensor] = {}  # steps that the sets elsewhere have not seen
        self.weight = weight

    def on(self, leaves: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Sums of squares of a, and of what is left, on these leaves."""
        home = next(s for s in self.largest if s >= set(leaves))
        for s in [s for s in self.waiting if s != home]:
            step = self.waiting.pop(s)
            for other in self.largest:
                if other != s:
                    self.left[other] = self.left[other] - self._carried(step, other)
        return on_leaves(self.norms[home], leaves), on_leaves(self.left[home], leaves)

    def _carried(self, step: Tensor, home: frozenset[int]) -> Tensor:
        operand = folded(step.to(self.squares))
        total = torch.einsum(self.squares, list(range(self.ndim)), *operand, sorted(home))
        return self.weight * total.double().reshape(self.left[home].shape)

    def move(self, step: Tensor, leaves: tuple[int, ...]) -> None:
        home = next(s for s in self.largest if s >= set(leaves))
        wide = spread(step, leaves, self.ndim)
        self.left[home] = self.left[home] - self.norms[home] * wide
        if len(self.largest) > 1:
            self.waiting[home] = self.waiting[home] + wide if home in self.waiting else wide


def _scales(
    x: Arrays, y: Arrays, weights: dict[int, float], free: Freedoms, members: Iterable[int]
) -> dict[int, Tensor]:
    """One Gauss-Newton step for the free scales, one after the other on the sums of the pieces."""
    chosen = {i: free.scales[i] for i in members}
    sets: dict[int, list[tuple[int, ...]]] = {}
    for f in chosen.values():
        for b, leaves, _ in f.on:
            sets.setdefault(b, []).append(leaves)
    blocks = {b: Residuals(x[b], y[b], held, weights[b]) for b, held in sets.items()}
    steps = {i: torch.zeros(f.shape, dtype=torch.float64) for i, f in chosen.items()}
    for _ in range(SWEEPS):
        furthest = 0.0
        for i, f in chosen.items():
            top, bottom = torch.zeros(f.shape, dtype=torch.float64), torch.zeros(f.shape, dtype=torch.float64)
            for b, leaves, c in f.on:
                norm, left = blocks[b].on(leaves)
                top += float(c) * left
                bottom += float(c) ** 2 * norm
            step = top / bottom.clamp_min(1e-300)
            for a in range(step.ndim):
                step = step - step.mean(a, keepdim=True)
            step = step.clamp(-0.5, 0.5)
            size = float(step.abs().max())
            furthest = max(furthest, size)
            steps[i] = steps[i] + step
            for b, leaves, c in f.on:
                blocks[b].move(float(c) * step, leaves)
        if furthest < STILL:
            break
    return steps
