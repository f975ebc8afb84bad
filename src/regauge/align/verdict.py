"""What a residual means: rounding, a difference that training or compression made, or no relation at all.

The floor is measured, not guessed: what rounding b to its own dtype does, and what rounding a does on its way through the
element. A difference that the identity (or an exact reordering) explains as well as the element is no gauge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.align.redrawn import Dithered, rounding
from regauge.solve.element import Element, Move, Permute, Scale
from regauge.solve.plan import Plan
from regauge.solve.state import State

IDENTICAL, GAUGE_EQUAL, DERIVED, UNRELATED = "identical", "gauge-equal", "derived", "unrelated"
MARGIN = 1.6  # the residual may be this many times the floor
WORST = 6.0  # and in no tensor more than this
FAR = 10.0  # a tensor that is further away than so many times its size counts as no further
WIDE = 1e-11  # relative: what double precision does on the way


@dataclass(frozen=True)
class Row:
    """One parameter: norms of b, of g.a - b, and of what rounding alone does. cosine: between g.a and b."""

    name: str
    norm: float
    residual: float
    floor: float
    cosine: float
    numel: int

    @property
    def relative(self) -> float:
        return self.residual / self.norm if self.norm else float(self.residual > 0)


def compare(plan: Plan, element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> tuple[Row, ...]:
    """g.a against b, parameter by parameter, in double precision."""
    start, target = State(plan, a), State(plan, b)
    moved = element.moved(start)
    dithered = element.moved(State(plan, Dithered(a)))
    rows = []
    for name in start.params:
        y = target.stored(name).double()
        x = moved.result(name)
        x = start.stored(name).double() if x is None else x
        z = dithered.result(name)
        carried = 0.0 if z is None else float((z - x).norm())
        norm, size = float(y.norm()), float(x.norm())
        away = float((x - y).norm())
        cosine = float((x * y).sum()) / (norm * size) if norm and size else float(norm == size)
        own = rounding(y, target.stored(name).dtype)
        rows.append(Row(name, norm, away, (own**2 + carried**2 + (WIDE * norm) ** 2) ** 0.5, cosine, y.numel()))
    return tuple(rows)


def within(plan: Plan, element: Element, a: Mapping[str, Tensor], b: Mapping[str, Tensor], limit: float) -> bool:
    """Whether the `distance` that the element leaves is at most the limit: no more tensors are looked at than it takes."""
    start, target = State(plan, a), State(plan, b)
    moved = element.moved(start)
    sizes = {name: float(target.stored(name).double().norm()) for name in start.params}
    told = {name: target.stored(name).numel() for name, size in sizes.items() if size > 0}
    left = limit * max(sum(told.values()), 1)
    for name in sorted(told, key=lambda n: told[n]):
        x = moved.result(name)
        x = start.stored(name) if x is None else x
        left -= told[name] * min(float((x.double() - target.stored(name).double()).norm()) / sizes[name], FAR)
        if not left >= 0:
            return False
    return True


def equal(rows: tuple[Row, ...], limits: tuple[float, float] = (MARGIN, WORST)) -> bool:
    """Whether rounding explains the residual."""
    residual, floor = together(rows)
    return residual <= limits[0] * floor and all(r.residual <= limits[1] * r.floor for r in rows)


def together(rows: tuple[Row, ...]) -> tuple[float, float]:
    """Norms of g.a - b, and of what rounding alone does, over all parameters."""
    return sum(r.residual**2 for r in rows) ** 0.5, sum(r.floor**2 for r in rows) ** 0.5


def distance(rows: tuple[Row, ...]) -> float:
    """Relative distance |g.a - b| / |b| in the mean over tensors that are not zero, each weighed by its entries and counted as
    FAR at most."""
    told = [r for r in rows if r.norm > 0]
    weights = sum(r.numel for r in told)
    return sum(r.numel * min(r.relative, FAR) for r in told) / max(weights, 1)


def similarity(rows: tuple[Row, ...]) -> float:
    """Mean cosine between g.a and b, each tensor weighed by its entries."""
    weights = sum(r.numel for r in rows)
    return sum(r.numel * r.cosine for r in rows) / max(weights, 1)


def exact_part(element: Element) -> Element:
    """Its orders and signs alone: what changes no entry but for place and sign."""
    moves: list[Move] = []
    for m in element.moves:
        match m:
            case Permute():
                moves.append(m)
            case Scale(scales, signs):
                moves.append(Scale(tuple(torch.zeros_like(s) for s in scales), signs))
    return Element(element.plan, tuple(moves))
