"""What a residual means: rounding, a difference that training or compression made, or no relation at all.

The floor is measured, not guessed: what rounding b to its own dtype does, and what rounding a does on its way through the
element. A difference that the identity (or an exact
reordering) explains as well as the element is no gauge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regauge.solve.element import Element, Move, Permute, Scale
from regauge.solve.plan import Plan
from regauge.solve.state import State

IDENTICAL, GAUGE_EQUAL, DERIVED, UNRELATED = "identical", "gauge-equal", "derived", "unrelated"
MARGIN = 1.6  # the residual may be this many times the floor
WORST = 6.0  # and in no tensor more than this


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
        wide = 1e-11 * norm  # what double precision does on the way
        rows.append(Row(name, norm, away, (own**2 + carried**2 + wide**2) ** 0.5, cosine, y.numel()))
    return tuple(rows)


def rounding(x: Tensor, dtype: torch.dtype) -> float:
    """Norm of the error of rounding numbers of this size to dtype: a twelfth of the squared spacing each."""
    return float(spacing(x, dtype).norm()) / 12**0.5


def spacing(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Distance between neighbouring numbers of dtype at x."""
    info = torch.finfo(dtype)
    return torch.exp2(x.abs().clamp_min(info.tiny).log2().floor()) * info.eps


class Dithered(Mapping[str, Tensor]):
    """The state dict with rounding errors of its own dtype added, the same at every reading; made on demand."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.seeds = {name: i for i, name in enumerate(state)}

    def __getitem__(self, name: str) -> Tensor:
        x = self.state[name]
        if not x.is_floating_point():
            return x
        g = torch.Generator().manual_seed(self.seeds[name])
        wide = x.detach().double()
        return wide + (torch.rand(x.shape, generator=g, dtype=torch.float64) - 0.5) * spacing(wide, x.dtype)

    def __contains__(self, name: object) -> bool:
        return name in self.state

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def equal(rows: tuple[Row, ...], limits: tuple[float, float] = (MARGIN, WORST)) -> bool:
    """Whether rounding explains the residual."""
    total = sum(r.residual**2 for r in rows) ** 0.5
    floor = sum(r.floor**2 for r in rows) ** 0.5
    return total <= limits[0] * floor and all(r.residual <= limits[1] * r.floor for r in rows)


def distance(rows: tuple[Row, ...]) -> float:
    """Relative distance |g.a - b| / |b| in the mean over tensors that are matrices, each weighed by its entries."""
    told = [r for r in rows if r.norm > 0]
    weights = sum(r.numel for r in told)
    return sum(r.numel * min(r.relative, 10.0) for r in told) / max(weights, 1)


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
