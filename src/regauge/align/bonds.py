"""What differs at each bond once two states are aligned: how much, and along how many directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.solve.element import Element
from regauge.solve.gauge import Gauge
from regauge.solve.state import State

ENERGY = 0.9  # of the squared difference that the rank must hold


@dataclass(frozen=True)
class Aligned:
    """At one bond: delta = |g.a - b| / |b| over the tensors that touch it; rank: how many directions of the bond hold nine
    tenths of the squared difference, of `size`. A fine-tune by low-rank adapters has a small rank, rounding a full one."""

    name: str
    group: str
    size: int
    delta: float
    rank: int

    def __str__(self) -> str:
        return f"{self.name}: {self.group}, delta {self.delta:.1e}, rank {self.rank} of {self.size}"


def per_bond(gauge: Gauge, element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> tuple[Aligned, ...]:
    """The table, in the order of the gauge's bonds."""
    plan = gauge.plan
    moved, target = element.moved(State(plan, a)), State(plan, b)
    tables = []
    squares = [[0.0, 0.0] for _ in gauge.bonds]
    grams: list[dict[int, Tensor]] = [{} for _ in gauge.bonds]
    touching: dict[str, list[tuple[int, int]]] = {}
    for i, bond in enumerate(gauge.bonds):
        for t in bond.touches:
            touching.setdefault(t.parameter, []).append((i, t.axis))
    for name, where in touching.items():
        y = target.tensor(name).double()
        delta = moved.tensor(name).double() - y
        for i, axis in where:
            squares[i][0] += float(delta.square().sum())
            squares[i][1] += float(y.square().sum())
            flat = delta.movedim(axis, 0).reshape(delta.shape[axis], -1)
            n = flat.shape[0]
            grams[i][n] = grams[i].get(n, torch.zeros(n, n, dtype=torch.float64)) + flat @ flat.mT
    for bond, (away, norm), held in zip(gauge.bonds, squares, grams, strict=True):
        size, gram = max(held.items()) if held else (bond.size, torch.zeros(1, 1, dtype=torch.float64))
        tables.append(
            Aligned(bond.name, str(bond.group), size, (away / norm) ** 0.5 if norm else 0.0, rank(gram, ENERGY))
        )
    return tuple(tables)


def rank(gram: Tensor, energy: float) -> int:
    """How many of the largest eigenvalues hold this part of the trace."""
    values = torch.linalg.eigvalsh(gram).flip(0).clamp_min(0)
    total = float(values.sum())
    if total <= 0:
        return 0
    return int((values.cumsum(0) < energy * total).sum()) + 1
