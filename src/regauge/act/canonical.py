"""The canonical representative: one point on each orbit, the same from wherever on it one starts.

    gains folded, translations at rest -> least norm over scales and GL -> principal axes -> sorted -> signs
    (what is left:  R+, GL, O, S, Z2)      (O, S, Z2)                      (S, Z2)           (Z2)      (1)

Each step fixes one factor of the group by quantities that those still free leave alone. Where such quantities nearly
coincide the representative is not sharp: rounding may choose another one. The report says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from regauge.act.axes import COMPACT, turned
from regauge.act.balance import Balance, solve
from regauge.act.fold import fold_shifts, gain_solver
from regauge.act.held import Held
from regauge.act.orders import sorted_orders
from regauge.act.signs import positive
from regauge.act.sizes import one_sided
from regauge.act.slices import no_signs, zeros
from regauge.act.still import rest
from regauge.errors import CheckError
from regauge.solve.element import Element, Scale
from regauge.solve.gauge import Gauge
from regauge.solve.plan import Plan
from regauge.solve.state import State

SHARP = 1e-9  # gaps below this times the largest value are reported
ROUNDS = 60


@dataclass(frozen=True)
class CanonicalReport:
    """gap: (what, smallest relative gap) for frames and index sets, the narrowest first. A gap that is not well above the
    precision of the weights makes that choice arbitrary. open: freedom that no step fixes."""

    gaps: tuple[tuple[str, float], ...]
    open: tuple[str, ...]

    @property
    def gap(self) -> float:
        """The narrowest of all gaps."""
        return min((g for _, g in self.gaps), default=1.0)

    def near(self, precision: float = SHARP) -> tuple[str, ...]:
        """Choices that weights known to this relative precision do not determine."""
        return tuple(what for what, g in self.gaps if g <= precision)

    @property
    def sharp(self) -> bool:
        """Whether in double precision one representative is determined."""
        return not self.open and not self.near()

    def __str__(self) -> str:
        lines = [f"canonical representative, narrowest gap {self.gap:.1e}"]
        lines += [f"  nearly degenerate: {what} (gap {g:.1e})" for what, g in self.gaps if g <= SHARP]
        lines += [f"  not fixed: {text}" for text in self.open]
        return "\n".join(lines)

    __repr__ = __str__


def canonical(gauge: Gauge, state: Mapping[str, Tensor]) -> tuple[Element, CanonicalReport]:
    """The element that carries `state` to its orbit's representative, and how sharply that is determined.

    For g of the whole group, canonical(g.state) gives the state that canonical(state) gives, up to the precision of the
    weights divided by the narrowest gap.
    """
    plan = gauge.plan
    begin = State(plan, state)
    total = Element(plan)
    notes: list[str] = []

    def then(step: Element) -> State:
        nonlocal total
        total = step @ total
        return total.moved(begin)

    scale, held = gain_solver(plan, begin)
    now = then(Element(plan, (scale,)))
    now = then(fold_shifts(plan, now))
    now = then(rest(plan, now))
    step, found = _sized(plan, now, held)
    now = then(step)
    notes += found
    rotation, gaps = turned(plan, now)
    now = then(Element(plan, (rotation,)))
    notes += _unturned(plan, set(rotation.matrices))
    order, ties = sorted_orders(plan, now)
    now = then(Element(plan, (order,)))
    flips, signs, open_ = positive(held.reduced(plan), now)
    now = then(Element(plan, (flips, Scale(tuple(zeros(plan)), tuple(held.with_signs(signs))))))
    then(rest(plan, now))  # a sign may reflect what a relation's constant had put at rest
    notes += open_
    named = [(_frame_name(plan, r), g) for r, g in gaps.items()] + [(_set_name(plan, r), g) for r, g in ties.items()]
    return total, CanonicalReport(tuple(sorted(named, key=lambda x: x[1])), tuple(notes))


def _sized(plan: Plan, state: State, held: Held) -> tuple[Element, list[str]]:
    """Scales and general linear frames at the least norm; scales that only raise or only lower, at norm one."""
    total = Element(plan)
    rest = held.reduced(plan)
    for _ in range(ROUNDS):
        free, step = one_sided(rest, total.moved(state))
        largest = max((float(f.abs().max()) for f in step if f.numel()), default=0.0)
        total = Element(plan, (Scale(tuple(held.with_scales(step)), no_signs(plan)),)) @ total
        found = solve(rest, total.moved(state), held=free)
        found.scales = held.with_scales(found.scales)
        total = found.element(plan) @ total
        if not free or largest <= 1e-12:
            return total, _open(found)
    raise CheckError("the scales of this state do not settle: some unit is nearly dead")


def _open(found: Balance) -> list[str]:
    return list(dict.fromkeys(found.open))


def _unturned(plan: Plan, done: set[int]) -> list[str]:
    out = []
    for s in plan.sources.values():
        if s.root not in done:
            why = "its group is not reductive" if s.kind not in COMPACT else "gains that do not fold stand in the way"
            out.append(f"{_frame_name(plan, s.root)}: {why}")
    return out


def _frame_name(plan: Plan, root: int) -> str:
    s = plan.sources[root]
    return f"{s.kind} frame of {s.n} on {_carrier(plan, plan.frames.root, root)}"


def _set_name(plan: Plan, root: int) -> str:
    return f"order of {plan.shuffles[root].n} on {_carrier(plan, plan.indices.root, root)}"


def _carrier(plan: Plan, roots: list[int], root: int) -> str:
    cells = plan.frames.cells
    for v in plan.parameters():
        for block in plan.blocks.of[v.id]:
            if any(roots[cells.cell(block, k)] == root for k in range(len(block.leaves))):
                return v.op.name  # type: ignore[union-attr]
    return "tensors behind gains"
