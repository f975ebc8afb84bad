"""Translations brought to rest: every free one undone, every direction that nobody sees removed."""

from __future__ import annotations

import torch
from torch import Tensor

from regauge.act.fold import absorbed
from regauge.solve.blocks import Block
from regauge.solve.element import Element
from regauge.solve.plan import Plan
from regauge.solve.sources import Shifts, Source
from regauge.solve.state import State, gather
from regauge.solve.translate import Hide, Shift, Wander

ROUNDS = 20
REST = 1e-13


def rest(plan: Plan, state: State) -> Element:
    """The translations after which every free source is 0 (a covector's part along its relation is 0), and every unseen
    direction has no component. A shift that only a relation can take up, which it supplies itself, goes to the one for which
    the relation's constant is the number of its entries. Parameters that another one makes up for become 0."""
    made_up = {v.op.name: -state.tensor(v.op.name) for v in plan.absorbed}  # type: ignore[union-attr]
    total = Element(plan, (Wander(made_up),) if made_up else ())
    for _ in range(ROUNDS):
        at = total.moved(state)
        hide = Hide.nearest(plan, lambda b, at=at: -at.read(b))  # type: ignore[misc]
        seen = Element(plan, (hide,)).moved(at)
        shift = Shift(_undone(plan.shifts, plan, seen))
        shifted = Element(plan, (shift,)).moved(seen)
        level = Shift(_undone(plan.levels, plan, shifted), True)
        steps = [*(a for held in hide.parts.values() for a in held), *shift.free.values(), *level.free.values()]
        if max((float(a.abs().max()) for a in steps if a.numel()), default=0.0) <= REST:
            return total
        moves = (*((hide,) if hide.parts else ()), *(m for m in (shift, level) if m.free))
        total = Element(plan, moves) @ total
    return total


def _undone(shifts: Shifts, plan: Plan, state: State) -> dict[int, Tensor]:
    out = {}
    for i in shifts.free:
        s = shifts.sources[i]
        x = state.read(s.block)
        if s.known is not None:
            phi = _covector(s, state)
            along = sorted(s.along)
            u = -(x * phi).sum(along) / (phi * phi).sum()
        elif s.along:
            u = -x.mean(sorted(s.along))
        elif shifts is plan.shifts and not absorbed(plan, s):
            u = _unit(shifts, s.block, state) - x
        else:
            u = -x
        if bool((u.abs() > 1e-16 * (1 + x.abs().max())).any()):
            out[i] = u.reshape(s.shape)
    return out


def _covector(s: Source, state: State) -> Tensor:
    """phi on the source's block, the product over its roles; of size 1 along the other leaves."""
    phi = torch.ones((), dtype=torch.float64)
    for where, known in s.roles:
        shape = [n if a in where else 1 for a, n in enumerate(s.block.sizes)]
        one = torch.ones(shape, dtype=torch.float64)
        for g in known.gains:
            one = one / gather(state.value(g.value), g).reshape(shape)
        phi = phi * one
    return phi


def _unit(shifts: Shifts, block: Block, state: State) -> Tensor:
    """The shift whose relation has as its constant the number of its entries: 1 / phi."""
    for k in shifts.known.values():
        for _, b, count in k.shifts:
            if b.id == block.id:
                out = torch.ones(block.sizes, dtype=torch.float64)
                for g in k.gains[:count]:
                    out = out * gather(state.value(g.value), g).reshape(block.sizes)
                return out
    return torch.ones(block.sizes, dtype=torch.float64)
