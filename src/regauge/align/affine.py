"""Translations taken away: the free ones at a fixed value, what nobody sees at zero; and the ones between two states.

Where a translation moves a constant that a reader divides by (kappa of a known relation), its source is brought to the
covector of the relation instead of zero, so that the constant stays away from zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from regauge.align.held import Held
from regauge.errors import CheckError
from regauge.graph.ir import Param, Value
from regauge.solve.blocks import Block
from regauge.solve.element import Move
from regauge.solve.plan import Plan
from regauge.solve.sources import SCALAR, Shifts, Source
from regauge.solve.state import Moved, State, gather
from regauge.solve.translate import Hide, Shift, Wander

TURNS = 12  # what follows one translation may move another a little; each turn leaves less
SETTLED = 1e-9  # of the first turn
LEFT = 0.1  # of the first turn, or this much of the entries: with more left after the last one they do not settle
ROUNDED = 1e-6


def remove(held: Held) -> None:
    """Bring every free translation, level and unseen direction of the state to its fixed value."""
    plan = held.plan
    first = 0.0
    for turn in range(TURNS):
        size = 0.0
        for level in (False, True):
            free = _wanted(held, plan, level)
            size = max(size, _largest(free))
            held.apply(Shift(free, level))
        first = first if turn else size
        if size <= SETTLED * first:
            break
    _require_settled(held, first, size)
    held.apply(Hide.nearest(plan, lambda b: -held.read(b).double()))


def between(moved: State, target: State) -> list[Move]:
    """The translations that take one state to the other, where all else of the element is in `moved` already."""
    plan = moved.plan
    moves: list[Move] = []
    first = 0.0
    for turn in range(TURNS):
        size = 0.0
        for level in (False, True):
            shifts = plan.levels if level else plan.shifts
            held = [shifts.sources[i] for i in shifts.free]
            free = {s.id: _component(target, s) - _component(moved, s) for s in held}
            size = max(size, _largest(free))
            if _largest(free) > SETTLED * first:
                moves.append(Shift(free, level))
                moved = Moved(moved, moves[-1].on)
        first = first if turn else size
        if size <= SETTLED * first:
            break
    _require_settled(moved, first, size)
    return [*moves, *settle(moved, target)]


def settle(moved: State, target: State) -> list[Move]:
    """What nobody sees, and what another parameter makes up for, brought to what they are in the target."""
    plan = moved.plan
    moves: list[Move] = []
    if plan.absorbed:
        moves.append(Wander({n: target.tensor(n) - moved.tensor(n) for n in map(_name, plan.absorbed)}))
    hide = Hide.nearest(plan, lambda b: _read(target, b) - _read(moved, b))
    return [*moves, hide] if hide.parts else moves


def _name(v: Value) -> str:
    assert isinstance(v.op, Param)
    return v.op.name


def _read(state: State, block: Block) -> Tensor:
    assert isinstance(block.value.op, Param)
    return gather(state.tensor(block.value.op.name), block).double()


def _largest(free: dict[int, Tensor]) -> float:
    return max((float(u.abs().max()) for u in free.values() if u.numel()), default=0.0)


def _require_settled(state: State, first: float, last: float) -> None:
    """Turns that leave more and more are no way to an element, and say nothing of the two models."""
    if last <= LEFT * first:
        return
    sources = [shifts.sources[i] for shifts in (state.plan.shifts, state.plan.levels) for i in shifts.free]
    for s in sources:
        size = float(_read(state, s.block).norm()) / float(_covector(state, s).norm())
        if last <= ROUNDED * size:
            return
    raise CheckError(
        f"align: the translations do not settle: after {TURNS} turns they still move by {last:.1e}, first by {first:.1e}. "
        "The parameters are not generic (a gain is near zero?), so nothing can be said of the two models; compare their "
        "sketches (regauge fingerprint, regauge match)"
    )


def _wanted(held: Held, plan: Plan, level: bool) -> dict[int, Tensor]:
    shifts = plan.levels if level else plan.shifts
    keep = _divisors(shifts)
    out = {}
    for i in shifts.free:
        s = shifts.sources[i]
        u = -_component(held, s)
        if s.block.id in keep:
            c, gains = keep[s.block.id]
            u = u + c * _phi(held, gains, s.block.sizes).reshape(s.shape)
        out[i] = u
    return out


def _divisors(shifts: Shifts) -> dict[int, tuple[float, tuple[Block, ...]]]:
    """Blocks whose translation enters a constant that a reader's own is divided by, with the coefficient and the gains of
    the covector to bring them to."""
    found = {}
    for d in shifts.demands:
        if d.part.kind == SCALAR and d.known is not None:
            for c, block, gains in d.known.shifts:
                found[block.id] = (c, d.known.gains[:gains])
    return found


def _covector(state: State, s: Source) -> Tensor:
    """The direction of the source: the product of the covectors of all its roles; size 1 on the leaves of u."""
    out = torch.ones([n if k in s.along else 1 for k, n in enumerate(s.block.sizes)], dtype=torch.float64)
    for where, known in s.roles:
        out = out * _phi(state, known.gains, [n if k in where else 1 for k, n in enumerate(s.block.sizes)])
    return out


def _phi(state: State, gains: tuple[Block, ...], shape: Sequence[int]) -> Tensor:
    phi = torch.ones(prod(shape), dtype=torch.float64)
    for g in gains:
        phi = phi / gather(state.value(g.value), g).double().reshape(-1)
    return phi.reshape(tuple(shape))


def _component(state: State, s: Source) -> Tensor:
    """How much of the source's direction the block holds, shape of u."""
    array = _read(state, s.block)
    phi = _covector(state, s)
    total = (array * phi).sum(sorted(s.along), keepdim=True) / (phi * phi).sum() if s.along else array
    return total.reshape(s.shape)
