"""Frames on their principal axes: what is left of O(n), and of GL(n) once it is balanced, are signs."""

from __future__ import annotations

import torch
from torch import Tensor

from regauge.act.rotate import RIGID, principal
from regauge.act.slices import frame_cells, gram
from regauge.solve import sampling
from regauge.solve.element import Rotate
from regauge.solve.matrices import Matrices
from regauge.solve.plan import Plan, Source
from regauge.solve.state import State

COMPACT = ("GL", "O", "O1", "SO2")


def grams(plan: Plan, state: State) -> dict[int, Tensor]:
    """Second moments of everything that each frame turns, (*places, n, n)."""
    found: dict[int, Tensor] = {}
    blocks = plan.frames.cells.blocks
    for b, cell in frame_cells(plan, COMPACT, state):
        g = gram(state.read(blocks[b]), cell)
        found[cell.source] = found[cell.source] + g if cell.source in found else g
    return found


def turned(plan: Plan, state: State) -> tuple[Rotate, dict[int, float]]:
    """The rotation onto principal axes, and for each frame the smallest gap between neighbouring moments, relative to the
    largest: where it is not far above the precision of the weights, these axes are not sharp."""
    matrices: dict[int, Matrices] = {}
    gaps: dict[int, float] = {}
    for root, g in grams(plan, state).items():
        s = plan.sources[root]
        matrices[root] = _plane(g) if s.kind == "SO2" else principal(s, g)
        gaps[root] = _gap(s, g)
    return Rotate(matrices), gaps


def _plane(g: Tensor) -> Tensor:
    """A turn, not a reflection: the first axis, then the one a quarter turn on."""
    _, vectors = torch.linalg.eigh((g + g.mT) / 2)
    first = vectors[..., -1]
    second = torch.stack([-first[..., 1], first[..., 0]], -1)
    return torch.stack([first, second], -2)


def _gap(s: Source, g: Tensor) -> float:
    if s.kind in RIGID:
        basis = sampling.ones_basis(s.n)[:, 1:]
        g = basis.mT @ g @ basis
    values = torch.linalg.eigvalsh((g + g.mT) / 2)
    if values.shape[-1] < 2:
        return 1.0
    return float(((values[..., 1:] - values[..., :-1]).amin(-1) / values[..., -1].clamp_min(1e-300)).min())
